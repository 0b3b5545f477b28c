"""What the home's server runs: Streamlit, once all that the pages need is imported, so that the first page is quick."""

import sys

from streamlit.web import cli

from ecom_assets.dashboard import common  # noqa: F401  for its imports

if __name__ == "__main__":
    sys.exit(cli.main())
