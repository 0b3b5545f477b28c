"""TPC-DS, a retailer's 24 tables: data that nobody here has seen before ``ecom init`` does.

DuckDB's extension makes them (https://duckdb.org/docs/stable/core_extensions/tpcds), in an environment of its own, for
the project locks another DuckDB.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ecom_assets_tests.programs import uv

VERSION = "1.5.5"
SCALE = 0.01
"""278,000 rows, 27 MB."""

_MAKE = """
import sys, duckdb
extension, folder, scale, tables = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
con = duckdb.connect(config={"allow_unsigned_extensions": "true", "autoinstall_known_extensions": "false"})
con.execute(f"LOAD '{extension}'")
con.execute(f"CALL dsdgen(sf={scale})")
for (name,) in con.execute("SELECT table_name FROM information_schema.tables").fetchall():
    if not tables or name in tables:
        con.execute(f"COPY {name} TO '{folder}/{name}.csv' (FORMAT csv, HEADER true)")
"""


def make(folder: Path, *tables: str) -> None:
    """Write the CSV files of some tables, or of all; skips the test where the package registry is out of reach."""
    tools = folder.with_name("duckdb")
    packages = [f"{name}=={VERSION}" for name in ("duckdb", "duckdb-extension-tpcds")]
    uv("pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(tools), *packages)
    (extension,) = tools.glob("duckdb_extension_tpcds/extensions/*/tpcds.duckdb_extension")
    folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", _MAKE, extension, folder, str(SCALE), *tables],
        env={"PYTHONPATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
