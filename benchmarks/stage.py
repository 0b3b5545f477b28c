"""Where it is measured: a home of its own with the embedded stack, the same rows for every step, and no trace after it.

What belongs here: starting and clearing up, the rows in the forms that steps take them in, and running Java's own
tools. What does not: what is timed.
"""

from __future__ import annotations

import fcntl
import math
import shutil
import signal
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

import happybase
import pyarrow as pa
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic
from rich.console import Console

from ecom_assets.cli.display import start
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.location import local
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings, load
from ecom_assets.csv import chunk, expand, records
from ecom_assets.csv.plan import Plan
from ecom_assets.hbase.admin import HBaseAdmin, admin_of
from ecom_assets.hbase.layout import row_keys
from ecom_assets.java import jars
from ecom_assets.java.program import run_java
from ecom_assets.kafka import producer
from ecom_assets.kafka.clients import Clients
from ecom_assets.paths import CHUNKED, open_home
from ecom_assets.servers.stack import Stack
from ecom_assets.source import synthetic
from ecom_assets.source.synthetic import facts
from ecom_assets_tests.tables import CLICK_STREAM as TABLE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAMESPACE = "ecombench"
"""Begins the names of all topics and tables that are made here."""

MARK = "benchmark.lock"
"""In a home that was made here, and is deleted again."""

GRACE = 5.0
"""Seconds that the servers of such a home get to stop: nobody wants their data again."""

TOOL_MEMORY = "512m"
"""What Kafka's own scripts give these tools."""


class BusyError(RuntimeError):
    """Another benchmark runs in the same home."""


@contextmanager
def opened(home: Path, rows: int, deliveries: int, console: Console) -> Generator[Stage]:
    """Start the stack of a home, and leave the home as it was.

    A home that was not there is deleted in the end. In one that was, only what was made here goes, and servers that
    ran before go on.

    Args:
        home: Folder for the servers and all data.
        rows: Rows of a step.
        deliveries: Deliveries of a step that has many.
        console: Where to show how the servers start.

    Raises:
        BusyError: Another benchmark runs there.
        ServiceError: A server does not start.
    """
    with ExitStack() as held:
        settings = load(home=home, class_archives=False)
        home = settings.home
        own = not home.exists() or (home / MARK).exists()
        home.mkdir(parents=True, exist_ok=True)
        if own:
            _hold(home / MARK, held)
        # The embedded servers choose their compilers by the size of the data.
        settings = settings.model_copy(update=_whose(rows) | {"namespace": NAMESPACE})
        stack = Stack(settings)
        if own:
            stack.down(grace=GRACE)  # what a benchmark that was killed has left
        ran = any(status.pid for status in stack.status())
        folder = home / NAMESPACE
        shutil.rmtree(folder, ignore_errors=True)
        held.callback(_clear, stack, folder, own=own, ran=ran)
        addresses = start(settings, console)
        if not own:
            _sweep(stack)  # as above
        jars.fetch(sets=["tools"])
        with Stage(settings, addresses, rows, deliveries, folder) as stage:
            yield stage


def _whose(rows: int) -> dict[str, object]:
    return {"source": "synthetic", "scale": rows / facts.ROWS[TABLE.name], "expand": "none", "hbase_route": "hfile"}


def _hold(mark: Path, held: ExitStack) -> None:
    file = held.enter_context(mark.open("a"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(
            f"{mark.parent}: another benchmark runs there; wait for its end, or take another --home"
        ) from None


def _clear(stack: Stack, folder: Path, *, own: bool, ran: bool) -> None:
    """Take away what was made; a second Ctrl-C or kill does not stop that."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not own:
            _sweep(stack)
        if not ran:
            stack.down(grace=GRACE if own else math.inf)
        shutil.rmtree(stack.settings.home if own else folder, ignore_errors=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sweep(stack: Stack) -> None:
    """Delete topics, consumer groups and tables of a stack that goes on."""
    try:
        addresses = stack.addresses()
    except RuntimeError:  # it never came up
        return
    with suppress(KafkaException):
        admin = Clients(addresses.kafka, stack.settings.kafka_config).admin()
        topics = [name for name in admin.list_topics(timeout=10).topics if name.startswith(NAMESPACE)]
        futures = [*admin.delete_topics(topics).values()] if topics else []
        groups = [g.group_id for g in admin.list_consumer_groups().result().valid if g.group_id.startswith(NAMESPACE)]
        futures += [*admin.delete_consumer_groups(groups).values()] if groups else []
        for future in futures:
            with suppress(KafkaException):
                future.result()
    connection = happybase.Connection(*addresses.hbase_thrift)
    tables = [name.decode() for name in connection.tables() if name.decode().startswith(NAMESPACE)]
    connection.close()
    if tables:
        with HBaseAdmin(addresses.hbase_zookeeper) as admin:
            for name in tables:
                admin.delete_table(name)


class Stage:
    """The servers, and rows of click_stream, the largest table; leave its ``with`` block to release what it opened.

    Attributes:
        settings: Of the stack, with all addresses in them.
        addresses: Where the servers are.
        at: The same as layers take it.
        folder: For all that is written here.
        rows: Rows that were requested.
        deliveries: Deliveries that were requested.
    """

    def __init__(self, settings: Settings, addresses: Addresses, rows: int, deliveries: int, folder: Path) -> None:
        self.addresses, self.rows, self.deliveries, self.folder = addresses, rows, deliveries, folder
        # Homes within the folder use these servers by their addresses.
        self.settings = settings.model_copy(
            update={
                "home": folder,
                "kafka": addresses.kafka,
                "spark": addresses.spark,
                "hbase_thrift": "{}:{}".format(*addresses.hbase_thrift),
                "hbase_zookeeper": addresses.hbase_zookeeper,
            }
        )
        self.at = open_home(self.settings)
        self._numbers = count()
        folder.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.at.close()

    @property
    def fewer(self) -> int:
        """Rows for a slow way: what counts are rows a second, and enough of them that a start weighs little."""
        return min(self.rows, max(self.rows // 10, 20_000))

    def home(self, name: str, **changes: object) -> Settings:
        """Settings of a home within the folder, with topics and tables of its own."""
        return self.settings.model_copy(
            update={"home": self.folder / name, "namespace": f"{NAMESPACE}_{name}", **changes}
        )

    @property
    def admin(self) -> HBaseAdmin:
        """HBase's Admin."""
        return admin_of(self.at)

    @property
    def spark(self) -> SparkSession:
        """A session with Spark."""
        return self.at.spark

    # Rows

    @cached_property
    def raw(self) -> Settings:
        """A home with generated CSV files."""
        with track("generating rows", None) as advance:
            done = 0

            def reported(table: str, rows: int, _: int) -> None:
                nonlocal done
                if table == TABLE.name:
                    advance(rows - done)
                    done = rows

            synthetic.generate(self.settings.raw, self.settings.scale, 1, reported)
        return self.settings

    @cached_property
    def chunks(self) -> list[Path]:
        """The rows as chunk files."""
        self._expanded  # noqa: B018  makes them
        chunk.build(TABLE, self.settings)
        return list(map(local, chunk.files(TABLE, self.settings)))

    @cached_property
    def _expanded(self) -> Path:
        expand.build(TABLE, self.raw, Plan())
        (path,) = expand.files(TABLE, self.raw)
        return local(path)

    @cached_property
    def arrow(self) -> Path:
        """The rows as one Arrow file, in the order of the CSV file."""
        path = self.folder / "rows.arrow"
        with pa.ipc.new_stream(str(path), TABLE.arrow) as out:
            for parsed in records.parse(self._expanded, TABLE):
                out.write_batch(parsed.batch)
        return path

    def batches(self, rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """The first rows, all unless limited."""
        with pa.memory_map(str(self.arrow)) as source:
            for batch in pa.ipc.open_stream(source):
                part = batch if rows is None else batch.slice(0, rows)
                yield part
                if rows is not None and not (rows := rows - len(part)):
                    return

    @cached_property
    def keys(self) -> pa.ChunkedArray | pa.Array:
        """HBase's row keys of some rows, spread evenly."""
        step = 1 + self.rows // 50_000
        taken = [batch.take(pa.array(range(0, len(batch), step))) for batch in self.batches()]
        return row_keys(pa.Table.from_batches(taken), TABLE)

    @cached_property
    def topic(self) -> Settings:
        """A home whose topic holds the rows."""
        self.chunks  # noqa: B018  makes them
        producer.produce(CHUNKED, TABLE, self.settings, self.addresses.kafka)
        return self.settings

    # Tools

    @contextmanager
    def new_topic(self) -> Generator[str]:
        """An empty topic like the project's; deleted when the block ends."""
        admin = Clients(self.addresses.kafka, self.settings.kafka_config).admin()
        name = f"{NAMESPACE}.{next(self._numbers)}"
        admin.create_topics([NewTopic(name, self.settings.partitions, 1)])[name].result()
        try:
            yield name
        finally:
            admin.delete_topics([name])[name].result()

    def java(self, server: str, main: str, *arguments: str) -> str:
        """Run a Java program on the jars of a server.

        Args:
            server: Whose jars, one of ``jars.SERVERS``.
            main: Its main class.
            *arguments: What it is given.

        Returns:
            What it has printed and logged.

        Raises:
            ServiceError: It failed.
        """
        return run_java(
            [*jars.classpath("tools"), *jars.classpath(server)],
            main,
            *arguments,
            log=self.folder / f"tool-{next(self._numbers)}.log",
            heap=TOOL_MEMORY,
            expected=f"expected {main} to do its work",
            remedy="fix the cause above, then measure again; `--only` leaves other steps out",
        )
