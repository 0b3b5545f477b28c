"""Whole tables into HBase by its own ImportTsv, a MapReduce job: for those who have MapReduce on YARN (``ECOM_YARN``).

What belongs here: the text that the job reads, starting it, and the few rows that such text cannot hold. The job
writes files of one region after the other, which HBase then loads as it does those of ``bulk_load``.

ImportTsv has no way to escape anything, and takes an empty field for an absent one. So a field is ended by a control
character and a row by a rare sign, not by a tab and a line break; and rows that hold one of these, or an empty text
next to nulls, are written by ``write.load``. Source: https://hbase.apache.org/book.html#importtsv
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import HBaseError
from ecom_assets.core.location import HdfsPath, Location, emptied, hadoop_uri
from ecom_assets.core.progress import Advance
from ecom_assets.core.settings import Settings
from ecom_assets.hbase import write
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.bulk_load import Steps, folder, spill_folder
from ecom_assets.hbase.layout import Layout, Target
from ecom_assets.java import jars
from ecom_assets.java.clients import hbase_client, yarn_client
from ecom_assets.java.program import OPENS, run_java

FIELD_END = b"\x1f"
"""Between fields; ImportTsv takes one byte."""
ROW_END = "␞"
"""Between rows; no control character, since Hadoop hands its settings on as XML, which cannot hold them."""
SLICE_ROWS = 1 << 16
"""Rows made into text at once; bounds memory."""
TASK_MEMORY = 640
"""MiB of a task on YARN, and of the job's master."""


def load(
    target: Target,
    batches: Iterable[pa.RecordBatch],
    settings: Settings,
    admin: HBaseAdmin,
    addresses: Addresses,
    *,
    progress: Advance | None = None,
) -> int:
    """Write rows; safe to repeat.

    Args:
        target: The table; it must exist. Rows that are there and not in ``batches`` stay.
        batches: Clean rows in schema order, in any order of rows, each row key once.
        settings: For the folders, YARN and Hadoop's settings.
        admin: HBase's Admin, open.
        addresses: Where HBase is.
        progress: Called with the rows done since the last call: half of them when they are text, half at the end.

    Returns:
        Rows written.

    Raises:
        HBaseError: HBase cannot hold a row (see ``Layout``), YARN does not see the staging folder, or HBase could not
            load the job's files.
        ServiceError: The job failed.
    """
    if settings.yarn and not isinstance(settings.staging, HdfsPath):
        raise HBaseError(
            f"HBase table {target.name}: expected ImportTsv's files in HDFS, where YARN's"
            f" nodes see them, got {settings.staging}",
            "put the lake there (ECOM_LAKE_URI) and leave ECOM_HBASE_STAGING out; or leave ECOM_YARN out",
        )
    layout, steps = Layout(target.table), Steps(progress)
    with emptied(folder(target.name, settings)) as staging, emptied(spill_folder(target.name, settings)) as scratch:
        text, written = staging / "rows.txt", 0

        def unfit() -> Iterator[pa.RecordBatch]:
            """Write the text, and give what does not fit into it."""
            nonlocal written
            with text.open("wb") as out:
                for batch in steps.reading(batches):
                    for start in range(0, len(batch), SLICE_ROWS):
                        data, rest = as_text(layout, batch.slice(start, SLICE_ROWS))
                        written += out.write(data)
                        if len(rest):
                            yield rest

        write.load(target, unfit(), addresses)
        if written:
            _run(target, text, staging, scratch, settings, admin.zookeeper)
            admin.bulk_load(target.name, staging / "files")
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
        HBaseError: HBase cannot hold a row (see ``Layout``).
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


def _run(  # noqa: PLR0917 - a private step of load
    target: Target, text: Location, staging: Location, scratch: Path, settings: Settings, zookeeper: str
) -> None:
    """Run the job: on YARN, on the cluster that Hadoop's settings name, else in one process here."""
    cells = [cell.decode() for cell in Layout(target.table).cells]
    files = staging / "files"
    options = {
        **hbase_client(zookeeper),
        "importtsv.columns": ",".join(["HBASE_ROW_KEY", *cells]),
        "importtsv.separator": FIELD_END.decode(),
        "importtsv.timestamp": target.timestamp,
        "importtsv.skip.empty.columns": "true",
        "importtsv.skip.bad.lines": "false",
        "importtsv.bulk.output": hadoop_uri(files),
        "textinputformat.record.delimiter": ROW_END,
        "hbase.fs.tmp.dir": hadoop_uri(staging / "partitions"),
        "hadoop.tmp.dir": scratch / "hadoop",
        "mapreduce.local.map.tasks.maximum": os.cpu_count() or 2,
        "mapreduce.local.reduce.tasks.maximum": os.cpu_count() or 2,
    }
    if isinstance(staging, HdfsPath):
        options["fs.defaultFS"] = staging.at
        if settings.yarn:
            options |= on_yarn(settings.yarn, staging)
    site = [settings.hadoop_conf] if settings.hadoop_conf else []
    yarn = jars.classpath("yarn") if settings.yarn else []
    run_java(
        [*site, *jars.classpath("hbase"), *yarn],
        "org.apache.hadoop.hbase.mapreduce.ImportTsv",
        *(f"-D{name}={value}" for name, value in options.items()),
        target.name,
        hadoop_uri(text),
        log=scratch / "importtsv.log",
        heap="1g",
        expected=f"HBase table {target.name}: expected ImportTsv to make files of {text}",
        remedy="fix the cause above (mostly disk space or permissions) and run again; or load with"
        " ECOM_HBASE_LOADER=hfile",
    )


def on_yarn(address: str, staging: HdfsPath) -> dict[str, object]:
    """Hadoop's settings for a job on YARN, whose nodes have the same Java and jars at the same places as this one."""
    java = " ".join([f"-Xmx{TASK_MEMORY * 3 // 4}m", *OPENS])
    settings: dict[str, object] = {
        **yarn_client(address),
        "mapreduce.framework.name": "yarn",
        "mapreduce.application.classpath": ",".join(map(str, [*jars.classpath("hbase"), *jars.classpath("yarn")])),
        "yarn.app.mapreduce.am.staging-dir": str(staging / "job"),
        # Nobody keeps the job's history: its end must be seen while its master still runs.
        "mapreduce.client.completion.pollinterval": 500,
        "mapreduce.map.java.opts": java,
        "mapreduce.reduce.java.opts": java,
        "yarn.app.mapreduce.am.command-opts": java,
        "yarn.app.mapreduce.am.resource.mb": TASK_MEMORY,
        "mapreduce.map.memory.mb": TASK_MEMORY,
        "mapreduce.reduce.memory.mb": TASK_MEMORY,
    }
    return settings
