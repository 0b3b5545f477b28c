"""Rows into HBase and back: the project's ways, compared with what anybody would write, and with HBase's own tools.

Slow ways get fewer rows, for what counts are rows a second; those that take seconds to start get all. A load ends
when HBase serves the rows. HBase's performance evaluation writes as many cells a row as ours has, of the same size,
by the Java client's buffered mutator.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from unittest import mock

import happybase
import pyarrow.compute as pc

from benchmarks.harness import OURS, Goal, Sample, Step, timed, versus, within
from benchmarks.stage import NAMESPACE, Stage
from ecom_assets.hbase import bulk_load, importtsv, rpc, scan, write
from ecom_assets.hbase.layout import Layout, Target, split_keys
from ecom_assets.hbase.thrift import CONNECTIONS
from ecom_assets.java.clients import hbase_client
from ecom_assets_tests.tables import CLICK_STREAM as TABLE

HAPPYBASE, IMPORTTSV, THRIFT, PE, ROW_BY_ROW = (
    "happybase batches", "ImportTsv", "our Thrift calls", "PerformanceEvaluation", "happybase put by put",
)  # fmt: skip
SCAN, LIMIT = "happybase scan", "cells unread"


@contextmanager
def load(stage: Stage) -> Generator[Step]:
    """Rows into an empty table."""
    ways = _Ways(stage)
    yield Step(
        "hbase",
        "rows",
        {
            OURS: lambda: ways.into_empty(ways.load_hfile),
            IMPORTTSV: lambda: ways.into_empty(ways.load_importtsv),
            THRIFT: lambda: ways.into_empty(ways.load_thrift),
            HAPPYBASE: lambda: ways.into_empty(ways.load_happybase),
            PE: ways.evaluate,
            ROW_BY_ROW: lambda: ways.into_empty(ways.put_row_by_row),
        },
        (
            versus("hbase_vs_happybase", HAPPYBASE, Goal(10)),
            versus("hbase_vs_importtsv", IMPORTTSV, Goal(4)),
            versus("hbase_vs_thrift", THRIFT),
            versus("hbase_vs_pe", PE),
            versus("hbase_vs_row_by_row", ROW_BY_ROW),
        ),
    )
    stage.admin.delete_table(ways.name)


@contextmanager
def read_back(stage: Stage) -> Generator[Step]:
    """Every cell of a table, read and hashed."""
    ways = _Ways(stage)
    ways.into_empty(ways.load_hfile)
    yield Step(
        "read_back",
        "rows",
        {
            OURS: lambda: timed(ways.read_rpc),
            LIMIT: lambda: timed(ways.fetch),
            THRIFT: lambda: timed(ways.read_thrift),
            SCAN: lambda: timed(ways.read_happybase),
        },
        (
            versus("read_back_vs_happybase", SCAN),
            versus("read_back_vs_thrift", THRIFT),
            within("read_back_vs_limit", LIMIT),
        ),
    )
    stage.admin.delete_table(ways.name)


class _Ways:
    """The ways; each gives the rows it moved."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.settings, self.addresses = stage, stage.settings, stage.addresses
        self.target = Target.public(TABLE, self.settings, int(time.time() * 1000))
        self.name = self.target.name
        self.rows = sum(map(len, stage.batches()))
        self.fewer = min(self.rows, stage.fewer)
        self.splits = split_keys(stage.keys, self.settings.regions)

    def into_empty(self, work: Callable[[], int]) -> Sample:
        """Time a load of a table that is there and empty."""
        write.create(self.target, self.settings, self.stage.admin, self.splits)
        return timed(work)

    def load_hfile(self) -> int:
        """Sort, write HFiles, bulk load."""
        return bulk_load.load(self.target, self.stage.batches(), self.stage.keys, self.settings, self.stage.admin)

    def load_importtsv(self) -> int:
        """HBase's own MapReduce job, in one process, and the bulk load of its files."""
        return importtsv.load(self.target, self.stage.batches(), self.settings, self.stage.admin, self.addresses)

    def load_thrift(self) -> int:
        """The project's own Thrift calls, four connections."""
        return write.load(self.target, self.stage.batches(self.fewer), self.addresses)

    def load_happybase(self) -> int:
        """Batch puts as happybase's guide shows them."""
        with closing(self._connect()) as connection, connection.table(self.name).batch(batch_size=1000) as batch:
            return self._put(batch.put, self.fewer)

    def put_row_by_row(self) -> int:
        """A call for each row."""
        with closing(self._connect()) as connection:
            return self._put(connection.table(self.name).put, min(self.rows, 2000))

    def _put(self, put: Callable[[bytes, dict[bytes, bytes]], object], rows: int) -> int:
        done = 0
        for part in self.stage.batches(rows):
            for row in part.to_pylist():
                key = "|".join(row[c] for c in TABLE.hbase.row_key)
                cells = {
                    f"{family}:{column}".encode(): row[column].encode()
                    for family, columns in TABLE.hbase.families.items()
                    for column in columns
                    if row[column] is not None
                }
                put(key.encode(), cells)
                done += 1
        return done

    def evaluate(self) -> Sample:
        """HBase's own performance evaluation; it reports the time of its slowest client, without the start of Java."""
        clients = os.cpu_count() or 1
        first = Layout(TABLE).columns(next(self.stage.batches(10_000)))
        filled = sum(len(values) - values.null_count for _, values in first)
        size = round(sum(pc.sum(pc.binary_length(values)).as_py() for _, values in first) / filled)
        name = f"{NAMESPACE}_pe"
        reported = self.stage.java(
            "hbase", "org.apache.hadoop.hbase.PerformanceEvaluation",
            *(f"-D{key}={value}" for key, value in hbase_client(self.addresses.hbase_zookeeper).items()),
            "--nomapred", f"--rows={self.rows // clients}", f"--table={name}", f"--presplit={self.settings.regions}",
            f"--columns={round(filled / len(first[0][1]))}", f"--valueSize={size}", "sequentialWrite", str(clients),
        )  # fmt: skip
        self.stage.admin.delete_table(name)
        (longest,) = re.findall(r"SequentialWriteTest duration \]\s+Min: \d+ms\s+Max: (\d+)ms", reported)
        return Sample(self.rows // clients * clients, int(longest) / 1000)

    def read_rpc(self) -> int:
        """The verification of every cell through HBase's own RPC."""
        return self._verified()

    def fetch(self) -> int:
        """All cells through HBase's own RPC, thrown away: what bounds the verification."""
        with closing(self._connect()) as connection:
            regions = scan.regions(self.name, connection)

        def pages(region: rpc.Region) -> int:
            with rpc.Connection(region.server) as connection:
                return sum(map(len, connection.pages(region, region.start, region.stop)))

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return sum(pool.map(pages, regions))

    def read_thrift(self) -> int:
        """The verification through the Thrift server, four connections."""
        with mock.patch.object(rpc.Connection, "reaches", return_value=False):
            return self._verified()

    def _verified(self) -> int:
        found = scan.measure(TABLE, self.settings, self.addresses)
        if found.measure.rows != self.rows or found.damaged:
            raise ValueError(f"expected {self.rows} sound rows in {self.name}, got {found}")
        return found.measure.rows

    def read_happybase(self) -> int:
        """A scan as happybase's guide shows it; nothing is done with the rows."""
        with closing(self._connect()) as connection:
            return sum(1 for _ in connection.table(self.name).scan(limit=self.fewer, batch_size=1000))

    def _connect(self) -> happybase.Connection:
        return happybase.Connection(*self.addresses.hbase_thrift)
