"""``python -m ecom_assets.cli``, for containers and tests."""

from ecom_assets.cli import main

main()
