"""Whole tables into HBase by its own ImportTsv, a MapReduce job: for those who have MapReduce on YARN.

What belongs here: the text that the job reads, starting it, and the few rows that such text cannot hold. The job
makes files of one region after the other, which HBase then takes over as it does those of ``hbase_bulk``.

ImportTsv has no way to escape anything, and takes an empty field for an absent one. So a field is ended by a control
character and a row by a rare sign, not by a tab and a line break; and rows that hold one of these, or an empty text
beside nulls, go in by ``hbase.load``. Source: https://hbase.apache.org/book.html#importtsv
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.pipeline import hbase
from ecom_assets.pipeline.hbase import TIMESTAMP, Layout, Progress
from ecom_assets.pipeline.hbase_bulk import Steps, emptied, folder
from ecom_assets.services import jars
from ecom_assets.services.hbase_admin import HBaseAdmin
from ecom_assets.services.servers import hbase_client, run_java
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
        progress: Called with the rows done since the last call: half of them when they are text, half at the end.

    Returns:
        Rows written.

    Raises:
        ValueError: A row cannot lie in HBase (see ``hbase.Layout``).
        ServiceError: The job failed, or HBase could not take over its files.
    """
    layout, steps = Layout(table), Steps(progress)
    with emptied(folder(table, settings)) as staging:
        text = staging / "rows.txt"

        def unfit() -> Iterator[pa.RecordBatch]:
            """Write the text, and give what does not fit into it."""
            with text.open("wb") as out:
                for batch in steps.reading(batches):
                    for start in range(0, len(batch), SLICE_ROWS):
                        data, rest = as_text(layout, batch.slice(start, SLICE_ROWS))
                        out.write(data)
                        if len(rest):
                            yield rest

        hbase.load(table, unfit(), settings, addresses)
        if text.stat().st_size:
            _run(table, text, staging / "files", settings, admin.zookeeper)
            admin.bulk_load(table.hbase_table(settings.namespace), staging / "files")
    steps.written(steps.total)
    steps.loaded(steps.total)
    return steps.total


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
    site = [settings.hadoop_conf] if settings.hadoop_conf else []
    run_java(
        [*site, *jars.classpath("hbase")],
        "org.apache.hadoop.hbase.mapreduce.ImportTsv",
        *(f"-D{name}={value}" for name, value in options.items()),
        table.hbase_table(settings.namespace),
        f"file://{text}",
        log=files.with_name("importtsv.log"),
        heap="1g",
        expected=f"HBase table {table.hbase_table(settings.namespace)}: expected ImportTsv to make files of {text}",
        remedy="see to what the message says (mostly disk space or rights), and run again; or load with"
        " ECOM_HBASE_ROUTE=hfile",
    )
