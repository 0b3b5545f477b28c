"""Whole tables into HBase by its own ImportTsv, a MapReduce job: for those who have MapReduce on YARN.

What belongs here: the text that the job reads, starting it, and the few rows that such text cannot hold. The job
makes files of one region after the other, which HBase then takes over as it does those of ``hbase_bulk``.

ImportTsv has no way to escape anything, and takes an empty field for an absent one. So a field is ended by a control
character and a row by a rare sign, not by a tab and a line break; and rows that hold one of these, or an empty text
beside nulls, go in by ``hbase.load``. Source: https://hbase.apache.org/book.html#importtsv
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.pipeline import hbase
from ecom_assets.pipeline.hbase import TIMESTAMP, Layout, Progress
from ecom_assets.pipeline.hbase_bulk import folder
from ecom_assets.services import jars
from ecom_assets.services.errors import ServiceError
from ecom_assets.services.hbase_admin import HBaseAdmin
from ecom_assets.services.servers import JAVA, LOG4J, OPENS, hbase_client
from ecom_assets.services.stack import Addresses
from ecom_assets.settings import Settings
from ecom_assets.tables import Table

FIELD_END = b"\x1f"
"""Between fields; ImportTsv takes one byte."""
ROW_END = "␞"
"""Between rows; no control character, since Hadoop hands its settings on as XML, which cannot hold them."""
SLICE_ROWS = 1 << 16
"""Rows made into text at once; bounds memory."""


def load(
    table: Table,
    batches: Iterable[pa.RecordBatch],
    settings: Settings,
    admin: HBaseAdmin,
    addresses: Addresses,
    *,
    progress: Progress | None = None,
) -> int:
    """Write rows; safe to repeat.

    Args:
        table: The table; it must exist. Rows that are there and not in ``batches`` stay.
        batches: Clean rows in schema order, in any order of rows, each row key once.
        settings: For the namespace, the staging folder and Hadoop's settings.
        admin: HBase's Admin, open.
        addresses: Where HBase is.
        progress: Called with the rows done since the last call: half of each when it is text, half at the end.

    Returns:
        Rows written.

    Raises:
        ValueError: A row cannot lie in HBase (see ``hbase.Layout``).
        ServiceError: The job failed, or HBase could not take over its files.
    """
    staging = folder(table, settings)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    text = staging / "rows.txt"
    texts = others = 0

    def unfit() -> Iterator[pa.RecordBatch]:
        """Write the text, and give what does not fit into it."""
        nonlocal texts, others
        with text.open("wb") as out:
            for batch in batches:
                for start in range(0, len(batch), SLICE_ROWS):
                    rows = batch.slice(start, SLICE_ROWS)
                    data, rest = as_text(layout, rows)
                    out.write(data)
                    texts += len(rows) - len(rest)
                    others += len(rest)
                    if len(rest):
                        yield rest
                    if progress:
                        progress((texts + others) // 2 - (texts + others - len(rows)) // 2)

    layout = Layout(table)
    try:
        hbase.load(table, unfit(), settings, addresses)
        if texts:
            _run(table, text, staging / "files", settings, admin.zookeeper)
            admin.bulk_load(table.hbase_table(settings.namespace), staging / "files")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    done = texts + others
    if progress:
        progress(done - done // 2)
    return done


def as_text(layout: Layout, rows: pa.RecordBatch) -> tuple[bytes, pa.RecordBatch]:
    """Make rows into what ImportTsv reads.

    Args:
        layout: How the rows lie in HBase.
        rows: Clean rows in schema order.

    Returns:
        The text, and the rows that it cannot hold.

    Raises:
        ValueError: A row cannot lie in HBase (see ``hbase.Layout``).
    """
    fields = [layout.keys(rows), *(values for _, values in layout.columns(rows))]
    end = ROW_END.encode()
    unfit = pa.array([False] * len(rows))
    for values in fields:
        known = values.fill_null(b"")
        # An absent cell and an empty one would look alike.
        for wrong in (
            pc.and_(values.is_valid(), pc.equal(pc.binary_length(known), 0)),
            pc.match_substring(known, FIELD_END),
            pc.match_substring(known, end),
        ):
            unfit = pc.or_(unfit, wrong)
    lines = pc.binary_join_element_wise(*fields, FIELD_END, null_handling="replace", null_replacement=b"")
    lines = lines.filter(pc.invert(unfit))
    data = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), end)[0].as_py() + end
    return (data if len(lines) else b""), rows.filter(unfit)


def _run(table: Table, text: Path, files: Path, settings: Settings, zookeeper: str) -> None:
    """Run the job: on the cluster that Hadoop's settings name, else in one process here."""
    log = files.with_name("importtsv.log")
    (log4j := files.with_name("log4j2.properties")).write_text(LOG4J.format(log=log, level="info"), encoding="utf-8")
    cells = [cell.decode() for cell in Layout(table).cells]
    options = {
        **hbase_client(zookeeper),
        "importtsv.columns": ",".join(["HBASE_ROW_KEY", *cells]),
        "importtsv.separator": FIELD_END.decode(),
        "importtsv.timestamp": TIMESTAMP,
        "importtsv.skip.empty.columns": "true",
        "importtsv.skip.bad.lines": "false",
        "importtsv.bulk.output": f"file://{files}",
        "textinputformat.record.delimiter": ROW_END,
        "hbase.fs.tmp.dir": files.with_name("partitions"),
        "hadoop.tmp.dir": files.with_name("hadoop"),
        "mapreduce.local.map.tasks.maximum": os.cpu_count() or 2,
        "mapreduce.local.reduce.tasks.maximum": os.cpu_count() or 2,
    }
    site = [str(settings.hadoop_conf)] if settings.hadoop_conf else []
    command = [
        JAVA, "-Xmx1g", *OPENS, f"-Dlog4j2.configurationFile={log4j}",
        "-cp", os.pathsep.join([*site, *map(str, jars.classpath("hbase"))]),
        "org.apache.hadoop.hbase.mapreduce.ImportTsv",
        *(f"-D{name}={value}" for name, value in options.items()),
        table.hbase_table(settings.namespace), f"file://{text}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = log.read_text("utf-8", "replace") if log.exists() else ""
        # The last cause, and the place in a file that may stand on the line below it.
        reason = r"^(?:Caused by: |Exception in .*?: |\S+Exception: ).*(?:\n at \[.*)?$"
        reasons = re.findall(reason, told + done.stderr, re.MULTILINE)
        raise ServiceError(
            f"HBase table {table.hbase_table(settings.namespace)}: expected ImportTsv to make files of {text}, it ended"
            f" with {done.returncode}: {reasons[-1] if reasons else (done.stderr or told)[-1500:]}",
            "see to what the message says (mostly disk space or rights), and run again; or load with"
            " ECOM_HBASE_ROUTE=hfile",
        )
