"""Rows into HBase and back: the project's ways beside what anybody would write, in one run on the same servers.

    python benchmarks/hbase.py --home .ecom --rows 1000000     # the home's stack must run: ecom up

Each way is timed in turn, several times over; slow ways get fewer rows, for what counts are rows a second. A ratio
says how many times faster ours is. Other work on the machine spoils all figures, so its load is told as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import happybase
import psutil
import pyarrow as pa

from ecom_assets.pipeline import hbase, hbase_bulk, hbase_rpc, hbase_tsv, records
from ecom_assets.services.hbase_admin import HBaseAdmin
from ecom_assets.services.stack import Addresses, Stack
from ecom_assets.settings import Settings, load
from ecom_assets.source import synthetic
from ecom_assets.tables import CLICK_STREAM as TABLE

FULL_SIZE = 12_833_602
"""Rows of click_stream at scale 1."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", default=".ecom", help="home whose stack runs")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    settings = load(home=options.home).model_copy(update={"namespace": "bench_hbase"})
    addresses = Stack(settings).addresses()
    with (
        tempfile.TemporaryDirectory(dir=settings.home) as folder,
        HBaseAdmin(addresses.hbase_zookeeper) as admin,
    ):
        bench = Bench(settings, addresses, admin, make_rows(Path(folder), options.rows))
        before = os.getloadavg()[0]
        try:
            rates = bench.run(options.repeats)
        finally:
            admin.delete_table(bench.name)
    machine = {"cores": os.cpu_count(), "load_before": before, "load_after": os.getloadavg()[0]}
    figures = {name: round(statistics.median(found)) for name, found in rates.items()}
    for name, found in rates.items():
        print(f"{name:<22}{figures[name]:>12,} rows/s   ({min(found):,.0f} to {max(found):,.0f})")
    ratios = {
        "load_vs_happybase": figures["load hfile"] / figures["load happybase"],
        "load_vs_importtsv": figures["load hfile"] / figures["load importtsv"],
        "load_vs_thrift": figures["load hfile"] / figures["load thrift"],
        "read_vs_happybase": figures["read rpc"] / figures["read happybase"],
        "read_vs_thrift": figures["read rpc"] / figures["read thrift"],
    }
    for name, ratio in ratios.items():
        print(f"{name:<22}{ratio:>12.1f} x")
    print(f"machine: {machine}; peak memory of this process {psutil.Process().memory_info().rss >> 20} MiB at the end")
    if options.json:
        told = {name: round(ratio, 2) for name, ratio in ratios.items()}
        print(json.dumps({"ratios": told, "figures": figures, "machine": machine}))


def make_rows(folder: Path, rows: int) -> Path:
    """Generate click-stream rows, and keep them as one Arrow file in the order of the CSV file."""
    synthetic.generate(folder, rows / FULL_SIZE * 1.02, 1)
    path = folder / "rows.arrow"
    left = rows
    with pa.ipc.new_stream(str(path), TABLE.arrow) as out:
        for parsed in records.parse(folder / TABLE.csv, TABLE):
            part = parsed.batch.slice(0, left)
            out.write_batch(part)
            left -= len(part)
            if not left:
                break
    if left:
        raise ValueError(f"expected {rows} rows from the generator, got {rows - left}")
    return path


class Bench:
    """The ways, each as a function that gives the rows it moved."""

    def __init__(self, settings: Settings, addresses: Addresses, admin: HBaseAdmin, rows: Path) -> None:
        self.settings, self.addresses, self.admin, self.path = settings, addresses, admin, rows
        self.name = TABLE.hbase_table(settings.namespace)
        self.rows = sum(map(len, self.batches()))
        step = 1 + self.rows // 50_000
        taken = [batch.take(pa.array(range(0, len(batch), step))) for batch in self.batches()]
        self.sample = hbase.row_keys(pa.Table.from_batches(taken), TABLE)
        self.splits = hbase.split_keys(self.sample, settings.regions)

    def batches(self, rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """The first rows, all unless told otherwise."""
        with pa.memory_map(str(self.path)) as source:
            for batch in pa.ipc.open_stream(source):
                part = batch if rows is None else batch.slice(0, rows)
                yield part
                if rows is not None and not (rows := rows - len(part)):
                    return

    def run(self, repeats: int) -> dict[str, list[float]]:
        """Time each way so many times.

        Returns:
            Way -> rows a second, each time.
        """
        ways: dict[str, Callable[[], int]] = {
            "load happybase": self.load_happybase,
            "load thrift": self.load_thrift,
            "load importtsv": self.load_importtsv,
            "load hfile": self.load_hfile,
            "read happybase": self.read_happybase,
            "read thrift": self.read_thrift,
            "read rpc": self.read_rpc,
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                if name.startswith("load"):
                    hbase.create(TABLE, self.settings, self.admin, self.splits)
                began = time.perf_counter()
                rows = way()
                rates[name].append(rows / (time.perf_counter() - began))
        return rates

    def load_hfile(self) -> int:
        """Sort, write HFiles, bulk load."""
        return hbase_bulk.load(TABLE, self.batches(), self.sample, self.settings, self.admin)

    def load_importtsv(self) -> int:
        """HBase's own MapReduce job, in one process, and the bulk load of its files."""
        batches = self.batches(self.rows // 4)
        return hbase_tsv.load(TABLE, batches, self.settings, self.admin, self.addresses)

    def load_thrift(self) -> int:
        """The project's own Thrift calls, four connections."""
        return hbase.load(TABLE, self.batches(self.rows // 10), self.settings, self.addresses)

    def load_happybase(self) -> int:
        """Batch puts as happybase's guide shows them."""
        host, port = self.addresses.hbase_thrift
        connection = happybase.Connection(host, port)
        done = 0
        with connection.table(self.name).batch(batch_size=1000) as batch:
            for part in self.batches(self.rows // 50):
                for row in part.to_pylist():
                    key = "|".join(row[c] for c in TABLE.hbase.row_key)
                    cells = {
                        f"{family}:{column}".encode(): row[column].encode()
                        for family, columns in TABLE.hbase.families.items()
                        for column in columns
                        if row[column] is not None
                    }
                    batch.put(key.encode(), cells)
                    done += 1
        connection.close()
        return done

    def read_rpc(self) -> int:
        """The proof of every cell through HBase's own RPC."""
        return self._proven()

    def read_thrift(self) -> int:
        """The proof through the Thrift server, four connections."""
        with mock.patch.object(hbase_rpc.Connection, "reaches", return_value=False):
            return self._proven()

    def _proven(self) -> int:
        found = hbase.measure(TABLE, self.settings, self.addresses)
        if found.measure.rows != self.rows or found.damaged:
            raise ValueError(f"expected {self.rows} sound rows in {self.name}, got {found}")
        return found.measure.rows

    def read_happybase(self) -> int:
        """A scan as happybase's guide shows it; nothing is done with the rows."""
        host, port = self.addresses.hbase_thrift
        connection = happybase.Connection(host, port)
        rows = sum(1 for _ in connection.table(self.name).scan(limit=self.rows // 20, batch_size=1000))
        connection.close()
        return rows


if __name__ == "__main__":
    main()
