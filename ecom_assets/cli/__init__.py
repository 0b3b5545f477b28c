"""The command line, ``ecom``: a file per group of commands.

What belongs here: what people type and read; options become settings. What does not: the work itself. ``app`` is the
root, ``options`` and ``console`` are shared, ``job`` executes a Dagster job, and ``pipeline``, ``streaming``,
``servers``, ``dev``, ``bench`` and ``schema`` hold the commands.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line; errors that people can act on are printed in one sentence, without a traceback."""
    from ecom_assets.core import memory

    memory.economize()

    import psutil

    from ecom_assets.cli.app import app
    from ecom_assets.cli.console import console, failed

    try:
        app()
    except KeyboardInterrupt:
        console.print("[red]✗[/red] interrupted")
        sys.exit(130)
    except (OSError, ValueError, RuntimeError, psutil.Error) as error:
        if os.environ.get("ECOM_TRACEBACK"):
            raise
        failed(error)
        sys.exit(1)
    finally:
        gc.freeze()  # else Python looks for cycles among all its objects before it ends, for most of a second
