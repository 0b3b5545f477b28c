"""The flow: build, measure and reset any layer of any table, always the same way.

What each layer does stands in its own module; here stands what they have in common: a
layer is built again only if what it is made from has changed, or its last proof failed;
what was built and measured is remembered in the home's ``manifests/``. Assets, checks and
the command line all go through a ``Flow``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import EcomError, ServiceError
from ecom_assets.core.files import read_json, write_json
from ecom_assets.core.location import rmtree
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import note, track
from ecom_assets.core.settings import Settings, remember
from ecom_assets.core.spark import spark_session
from ecom_assets.csv import chunk, expand, spark_tasks, unique
from ecom_assets.dataset.model import Table
from ecom_assets.dataset.shop import LAYERS, TABLES
from ecom_assets.hbase import bulk_load, compare, importtsv, spark_load
from ecom_assets.hbase import table as hbase
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.kafka import topic
from ecom_assets.kafka.topic import Position
from ecom_assets.lake import merged, streamed
from ecom_assets.reconcile import report
from ecom_assets.reconcile.report import Proof, Verdict
from ecom_assets.servers.stack import Stack
from ecom_assets.source import acquire

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROUTES: dict[str, tuple[str, ...]] = {"stream": LAYERS, "bulk": ("raw", "expanded", "hbase")}
"""Route -> the layers it passes, in order."""


class DamagedLayerError(EcomError):
    """A layer that must not be made anew without being asked: a Kafka topic is not ours alone."""


class DiskFullError(EcomError):
    """A disk has no room for what was to be made."""


DISK_FULL = ("No space left on device", "database or disk is full")
"""How the operating system and SQLite say it."""

FULL = 1 << 20
"""Free bytes below which nothing can be made."""


@contextmanager
def room_for(what: str, home: Path) -> Generator[None]:
    """Say of a full disk which one it is and what to do, whoever noticed it: this process, a server or a database.

    Raises:
        DiskFullError: An error fell out of the block that says so, or at a time when nothing fits any more
            (Spark says of some of its errors only that a task failed).
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        free = shutil.disk_usage(home).free
        if free >= FULL and not any(said in str(error) for said in DISK_FULL):
            raise
        raise DiskFullError(
            f"{what}: expected room on the disk of {home}, got {free / 1e6:,.0f} MB free; free some space (old homes,"
            " `ecom doctor` shows what it needs), then run again: what is done stays, and the rest is made"
        ) from error


@dataclass(frozen=True)
class Built:
    """What ``Flow.build`` did.

    Attributes:
        unchanged: Whether there was nothing to do.
        rows: Rows made now.
        seconds: Time it took.
        notes: More to tell, by name.
    """

    unchanged: bool
    rows: int
    seconds: float
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """How far a table has come at the edge between Kafka and the lake.

    Attributes:
        table: Its name.
        position: How far its topic has come; ``None`` if there is none.
        due: Rows that ingestion is to bring; ``None`` if that is not known yet.
        streamed: Records in the streamed table.
        unread: Offsets that are not in the streamed table yet.
    """

    table: str
    position: Position | None
    due: int | None
    streamed: int
    unread: int

    @property
    def waits_for(self) -> str:
        """What is still to happen before the table can be published, in plain words; empty if nothing."""
        if self.position is None or self.due is None:
            return f"{self.table}: nothing has been ingested yet"
        if self.position.rows < self.due:
            return f"{self.table}: {self.position.rows:,} of {self.due:,} rows are in the topic"
        if self.unread:
            return f"{self.table}: {self.unread:,} offsets of the topic are not streamed yet"
        if self.streamed < self.position.rows + self.position.replayed:
            missing = self.position.rows + self.position.replayed - self.streamed
            return f"{self.table}: {missing:,} rows of the ledger are not in the streamed table"
        return ""


class Flow:
    """All layers of a home; leave its ``with`` block to release the connections it opened.

    Args:
        settings: The home.
        session: Gives a Spark session that somebody else releases; without it, one is
            opened when first needed.
    """

    def __init__(self, settings: Settings, session: Callable[[], SparkSession] | None = None) -> None:
        self.settings = settings
        self._session = session
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def addresses(self) -> Addresses:
        """Where the servers are.

        Raises:
            ServiceError: One of them does not run.
        """
        return Stack(self.settings).addresses()

    @property
    def spark(self) -> SparkSession:
        """A session with the home's Spark server."""
        return self._session() if self._session else self._own_session

    @cached_property
    def _own_session(self) -> SparkSession:
        return self._opened.enter_context(spark_session(self.addresses.spark))

    @cached_property
    def admin(self) -> HBaseAdmin:
        """HBase's Admin; its JVM takes seconds to start, so it serves all tables."""
        return self._opened.enter_context(HBaseAdmin(self.addresses.hbase_zookeeper))

    def close(self) -> None:
        """Release what was opened; the flow can be used again after it."""
        self._opened.close()
        for name in ("admin", "_own_session"):
            self.__dict__.pop(name, None)

    # Building

    def acquire(self) -> dict[str, Built]:
        """Place the raw files; they come from one source, so they come together, and share its time by their bytes."""
        remember(self.settings)
        paths = {name: expand.raw_file(table, self.settings) for name, table in TABLES.items()}
        before = {name: _file_state(path) for name, path in paths.items() if path.exists()}
        began = time.perf_counter()
        done: dict[str, int] = {}
        with track("raw", None) as advance:

            def told(table: str, rows: int, total: int) -> None:  # noqa: ARG001
                advance(rows - done.get(table, 0))
                done[table] = rows

            with room_for("raw", self.settings.home):
                acquire(self.settings, told)
        seconds = time.perf_counter() - began
        whole = sum(path.stat().st_size for path in paths.values())
        made = {}
        for name, path in paths.items():
            unchanged = before.get(name) == _file_state(path)
            share = 0.0 if unchanged else seconds * path.stat().st_size / whole
            made[name] = Built(unchanged, done.get(name, 0), share, {"bytes": path.stat().st_size})
            if not unchanged:
                self._path("raw", TABLES[name], "proof").unlink(missing_ok=True)
                write_json(self._path("raw", TABLES[name], "build"), {"seconds": round(share, 3)})
        note(f"  raw: {'unchanged' if all(b.unchanged for b in made.values()) else 'made'} in {seconds:.1f} s")
        return made

    def build(self, layer: str, table: Table, route: str | None = None) -> Built:
        """Make a layer of a table, if that is due.

        Args:
            layer: One of ``LAYERS`` but ``raw``, which ``acquire`` makes.
            table: The table.
            route: For ``hbase``: from which side; the settings' unless given.

        Raises:
            DamagedLayerError: The topic's last proof failed.
        """
        route = route or self.settings.route
        began = time.perf_counter()
        last = self._recall(layer, table, "build")
        if last and not self.due(layer, table, route):
            note(f"  {layer}/{table.name}: unchanged")
            return Built(unchanged=True, rows=0, seconds=0.0, notes=last["notes"])
        inputs = self._inputs(layer, table, route)
        if self._is_red(layer, table):
            self._clear_for_rebuild(layer, table)
        with room_for(f"{layer}/{table.name}", self.settings.home):
            rows, notes = getattr(self, f"_build_{layer}")(table, route)
        seconds = time.perf_counter() - began
        unchanged = bool(notes.get("unchanged"))
        if not (unchanged and last):
            state = {"inputs": inputs, "seconds": round(seconds, 3), "rows": rows, "notes": notes, "route": route}
            write_json(self._path(layer, table, "build"), state)
        note(f"  {layer}/{table.name}: {'unchanged' if unchanged else 'made'} in {seconds:.1f} s")
        return Built(unchanged, rows, seconds, notes)

    def due(self, layer: str, table: Table, route: str | None = None) -> bool:
        """Whether a layer of a table is to be made: what it is made from has changed, it is gone, or it is red."""
        route = route or self.settings.route
        if self._is_red(layer, table):
            return True
        match layer:
            case "streamed":
                at = topic.positions(self.settings, self.addresses.kafka).get(table.name)
                unread = at is None or streamed.unread(table, self.settings, at.ends)
                return bool(unread) or not streamed.settled(table, self.settings)
            case "merged":
                return merged.due(table, self.settings)
        last = self._recall(layer, table, "build")
        made = last is not None and last["inputs"] == self._inputs(layer, table, route)
        return not (made and self._exists(layer, table))

    def _is_red(self, layer: str, table: Table) -> bool:
        return bool((self._recall(layer, table, "proof") or {}).get("faults"))

    def _build_expanded(self, table: Table, route: str) -> tuple[int, dict[str, Any]]:  # noqa: ARG002
        size = expand.raw_file(table, self.settings).stat().st_size
        with track(f"expanded/{table.name}", size, "bytes") as advance:
            if self.settings.csv_route == "spark":
                done = spark_tasks.expand_table(self.spark, table, self.settings, advance)
            else:
                done = expand.build(table, self.settings, advance)
        return done.rows, {"copies": done.copies, "quarantined": done.quarantined}

    def _build_chunked(self, table: Table, route: str) -> tuple[int, dict[str, Any]]:  # noqa: ARG002
        with track(f"chunked/{table.name}", None) as advance:
            if self.settings.csv_route == "spark":
                chunks = spark_tasks.chunk_table(self.spark, table, self.settings, advance)
            else:
                chunks = chunk.build(table, self.settings, advance)
        return sum(c.rows for c in chunks), {"chunks": len(chunks)}

    def _build_topic(self, table: Table, route: str) -> tuple[int, dict[str, Any]]:  # noqa: ARG002
        rows = sum(c.rows for c in chunk.read_manifest(chunk.folder(table, self.settings)))
        with track(f"topic/{table.name}", rows) as advance:
            done = topic.produce(table, self.settings, self.addresses.kafka, advance)
        return done.rows, {"chunks": done.chunks, "resumed_after": done.skipped_chunks}

    def _build_streamed(self, table: Table, route: str) -> tuple[int, dict[str, Any]]:  # noqa: ARG002
        with track(f"streamed/{table.name}", self._rows_of("topic", table)) as advance:
            rows = streamed.stream(self.spark, table, self.settings, self.addresses.kafka, advance)
        return rows, {"unchanged": not rows}

    def _build_merged(self, table: Table, route: str) -> tuple[int, dict[str, Any]]:  # noqa: ARG002
        with track(f"merged/{table.name}", None):
            done = merged.merge(self.spark, table, self.settings, force=self._is_red("merged", table))
        notes = {
            "duplicates": done.duplicates.rows,
            "conflicts": done.conflicts.rows,
            "unparsed": done.unparsed,
            "unchanged": done.unchanged,
        }
        return (0 if done.unchanged else streamed.records(merged.folder(table, self.settings))), notes

    def _build_hbase(self, table: Table, route: str) -> tuple[int, dict[str, Any]]:
        how = self.settings.hbase_route or ("spark" if self.settings.lake_uri and route == "stream" else "hfile")
        if route == "bulk" and how == "spark":
            raise ServiceError(
                "ECOM_HBASE_ROUTE: expected hfile, importtsv or thrift on the route bulk, got spark, which takes rows"
                " from the merged tables",
                "choose one of these, or the route stream",
            )
        batches, sample = self._rows_for_hbase(table, route), self._keys_for_hbase(table, route)
        splits = hbase.split_keys(sample, self.settings.regions)
        hbase.create(table, self.settings, self.admin, splits)
        with track(f"hbase/{table.name}", self._rows_of(ROUTES[route][-2], table)) as advance:
            match how:
                case "hfile":
                    rows = bulk_load.load(table, batches, sample, self.settings, self.admin, progress=advance)
                case "spark":
                    rows = spark_load.load(
                        table,
                        merged.read(self.spark, table, self.settings),
                        self.settings,
                        self.admin,
                        progress=advance,
                    )
                case "importtsv":
                    rows = importtsv.load(table, batches, self.settings, self.admin, self.addresses, progress=advance)
                case _:
                    rows = hbase.load(table, batches, self.settings, self.addresses, advance)
        return rows, {"regions": len(splits) + 1}

    def _rows_for_hbase(self, table: Table, route: str) -> Iterable[pa.RecordBatch]:
        if route == "bulk":
            return unique.Deduplicated(table, self.settings)
        return streamed.read_batches(merged.folder(table, self.settings), table.names)

    def _keys_for_hbase(self, table: Table, route: str) -> pa.Array | pa.ChunkedArray:
        """Row keys of a sample of the rows."""
        if route == "bulk":
            keys = unique.sample_keys(table, self.settings)
        else:
            keys = merged.sample_keys(merged.folder(table, self.settings), list(table.hbase.row_key))
        return hbase.row_keys(keys, table)

    def _search_hbase(self, table: Table, route: str, rows: int) -> list[str]:
        """Say which rows are wrong, after a proof has failed."""
        with track(f"search: hbase/{table.name}", 2 * rows) as advance:
            return compare.differences(
                table,
                lambda: self._rows_for_hbase(table, route),
                self._keys_for_hbase(table, route),
                self.settings,
                self.addresses,
                progress=advance,
            )

    def _rows_of(self, layer: str, table: Table) -> int | None:
        """How many rows a layer was last proven to hold, for a progress bar."""
        proof = self.proof(layer, table)
        return proof.measure.rows if proof else None

    def _inputs(self, layer: str, table: Table, route: str) -> str:
        """Names what a layer is made from: equal names, equal content."""
        s = self.settings
        match layer:
            case "expanded":
                told = [_file_state(expand.raw_file(t, s)) for t in TABLES.values()] if s.expand != "none" else []
                parts = [_file_state(expand.raw_file(table, s)), *told, s.expand, json.dumps(table.avsc)]
            case "chunked":
                parts = [self._made_from("expanded", table), s.chunk_bytes]
            case "topic":
                parts = [self._made_from("chunked", table), s.namespace, self.addresses.kafka]
            case "streamed" | "merged":
                return ""  # see ``due``: Spark's checkpoint and Delta's versions know better
            case _:
                source = (
                    self._made_from("expanded", table)
                    if route == "bulk"
                    else merged.version(merged.folder(table, s))
                )  # fmt: skip
                parts = [route, source, s.namespace, self.addresses.hbase_zookeeper]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _made_from(self, layer: str, table: Table) -> str:
        state = self._recall(layer, table, "build")
        if state is None:
            raise FileNotFoundError(f"{layer}/{table.name} has not been made yet; materialise it first")
        return state["inputs"]

    def _exists(self, layer: str, table: Table) -> bool:
        """Whether a layer that would be left as it is, is there."""
        match layer:
            case "expanded":
                return bool(expand.files(table, self.settings))
            case "chunked":
                return (chunk.folder(table, self.settings) / chunk.MANIFEST).exists()
            case "topic":
                return topic.exists(table, self.settings, self.addresses.kafka)
            case _:
                return hbase.exists(table, self.settings, self.addresses)

    # Measuring

    def measure(self, layer: str, table: Table, route: str | None = None) -> Proof:
        """Read a layer of a table back, every row of it.

        Args:
            layer: One of ``LAYERS``.
            table: The table.
            route: For ``hbase``: from which side it was loaded.
        """
        built = self._recall(layer, table, "build") or {}
        route = route or built.get("route") or self.settings.route
        proof: Proof = getattr(self, f"_measure_{layer}")(table, route)
        return replace(proof, build_seconds=built.get("seconds", 0.0))

    def _measure_raw(self, table: Table, route: str) -> Proof:  # noqa: ARG002
        size = expand.raw_file(table, self.settings).stat().st_size
        with track(f"proof: raw/{table.name}", size, "bytes") as advance:
            found = expand.measure_raw(table, self.settings, advance)
        return Proof(
            table.name,
            "raw",
            found.measure,
            {"quarantined": Measure(found.quarantined)},
            last_copy=found.last_copy,
        )

    def _measure_expanded(self, table: Table, route: str) -> Proof:  # noqa: ARG002
        with track(f"proof: expanded/{table.name}", None) as advance:
            found = expand.measure(table, self.settings, advance)
        path = expand.quarantine_file(table, self.settings)
        bad = sum(1 for _ in path.open("rb")) if path.exists() else 0
        return Proof(table.name, "expanded", found.measure, {"quarantined": Measure(bad)}, copies=tuple(found.copies))

    def _measure_chunked(self, table: Table, route: str) -> Proof:  # noqa: ARG002
        with track(f"proof: chunked/{table.name}", None) as advance:
            return Proof(table.name, "chunked", chunk.measure(table, self.settings, advance))

    def _measure_topic(self, table: Table, route: str) -> Proof:  # noqa: ARG002
        with track(f"proof: topic/{table.name}", None) as advance:
            found = topic.measure(table, self.settings, self.addresses.kafka, advance)
        again = topic.replayed(table, self.settings, self.addresses.kafka)
        aside = {"quarantined": Measure(found.bad_rows)} | ({"replayed": again} if again.rows else {})
        return Proof(table.name, "topic", found.measure, aside)

    def _measure_streamed(self, table: Table, route: str) -> Proof:  # noqa: ARG002
        with track(f"proof: streamed/{table.name}", None):
            found = streamed.measure(table, self.settings)
            bad = Measure(streamed.undecoded(table, self.settings))
        return Proof(table.name, "streamed", found, {"quarantined": bad})

    def _measure_merged(self, table: Table, route: str) -> Proof:  # noqa: ARG002
        with track(f"proof: merged/{table.name}", None):
            found = merged.measure(table, self.settings)
            aside = merged.set_aside(self.spark, table, self.settings)
        return Proof(table.name, "merged", found, aside)

    def _measure_hbase(self, table: Table, route: str) -> Proof:
        aside = {}
        if route == "bulk":
            clean = unique.Deduplicated(table, self.settings)
            clean.drain()
            aside = {"duplicates": clean.duplicates, "conflicts": clean.conflicts}
        with track(f"proof: hbase/{table.name}", self._rows_of(ROUTES[route][-2], table)) as advance:
            found = hbase.measure(table, self.settings, self.addresses, advance)
        return Proof(table.name, "hbase", found.measure, aside, problems=tuple(found.problems))

    # Looking on

    def standings(self) -> dict[str, Standing]:
        """How far every table's topic has come and has been read; quick enough for a sensor.

        Raises:
            TopicError: Kafka did not do its part.
            ServiceError: It does not run.
        """
        found = {}
        at = topic.positions(self.settings, self.addresses.kafka)
        for name, table in TABLES.items():
            chunked = self._recall("chunked", table, "build")
            position = at.get(name)
            found[name] = Standing(
                name,
                position,
                due=chunked["rows"] if chunked else None,
                streamed=streamed.records(streamed.folder(table, self.settings)),
                unread=streamed.unread(table, self.settings, position.ends) if position else 0,
            )
        return found

    def quarantine_samples(self, table: Table, rows: int) -> list[dict[str, Any]]:
        """The first unreadable rows of a table: file, line, reason, and the raw text's beginning."""
        path = expand.quarantine_file(table, self.settings)
        if not path.exists():
            return []
        with path.open(encoding="utf-8") as lines:
            bad = [json.loads(line) for line in islice(lines, rows)]
        return [b | {"raw": b["raw"][:200]} for b in bad]

    # Remembering

    def prove(self, layer: str, table: Table, route: str | None = None) -> tuple[Proof, list[str]]:
        """Measure a layer, compare it with the one before, and remember both.

        Returns:
            The proof, and what is wrong (empty if nothing).
        """
        built = self._recall(layer, table, "build") or {}
        route = route or built.get("route") or self.settings.route
        proof = self.measure(layer, table, route)
        path = ROUTES[route]
        at = path.index(layer)
        before = self.proof(path[at - 1] if at else layer, table)
        if not at:
            wrong = report.unchanged(before, proof) if before else list(proof.problems)
        elif before is None:
            wrong = [f"{path[at - 1]}/{table.name} has no proof to compare with; run its check first"]
        else:
            wrong = report.hand_off(before, proof)
        # A raw file that has changed is not to become the measure of the others.
        self.remember(before if before and wrong and not at else proof, wrong)
        if before and wrong and layer == "hbase":
            wrong += self._search_hbase(table, route, before.measure.rows)
            self.remember(proof, wrong)
        sign = "✗" if wrong else "✓"
        note(f"{sign} {layer}/{table.name}: {proof.measure.rows:,} rows proven in {proof.measure.seconds:.1f} s")
        for sentence in wrong:
            note(f"    {sentence}")
        return proof, wrong

    def remember(self, proof: Proof, faults: list[str]) -> None:
        """Keep a proof in the home."""
        table = TABLES[proof.table]
        write_json(self._path(proof.layer, table, "proof"), proof.to_json() | {"faults": faults})

    def proof(self, layer: str, table: Table) -> Proof | None:
        """The last proof of a layer."""
        data = self._recall(layer, table, "proof")
        return Proof.from_json(data) if data else None

    def verdicts(self, route: str | None = None) -> dict[str, Verdict]:
        """Judge the remembered proofs of every table."""
        path = ROUTES[route or self.settings.route]
        return {
            name: report.judge([p for layer in path if (p := self.proof(layer, table))])
            for name, table in TABLES.items()
        }

    def reconcile(self, route: str | None = None, tables: Iterable[str] = TABLES) -> Iterator[tuple[str, Verdict]]:
        """Measure every layer anew, table by table, and judge.

        Yields:
            ``(table, verdict)``.
        """
        route = route or self.settings.route
        for name in tables:
            table = TABLES[name]
            raw = self.proof("raw", table)
            verdict = report.judge(
                [self.measure(layer, table, route) for layer in ROUTES[route]], raw.measure if raw else None
            )
            for proof in verdict.proofs:
                wrong = verdict.faults.get(proof.layer, [])
                # A raw file that has changed is not to become the measure of the others.
                self.remember(raw if raw and wrong and proof.layer == "raw" else proof, wrong)
            yield name, verdict

    def route_used(self) -> str:
        """The route by which HBase was loaded last."""
        states = [s for t in TABLES.values() if (s := self._recall("hbase", t, "build"))]
        return states[0]["route"] if states else self.settings.route

    # Clearing

    def reset(self, layer: str, table: Table) -> list[str]:
        """Delete a layer of a table and all that was made from it, but never the raw files.

        Returns:
            What was deleted.
        """
        gone = []
        for each in LAYERS[LAYERS.index(layer) :]:
            if each != "raw":
                getattr(self, f"_delete_{each}")(table)
                gone.append(f"{each}/{table.name}")
            for kind in ("build", "proof"):
                self._path(each, table, kind).unlink(missing_ok=True)
        return gone

    def _clear_for_rebuild(self, layer: str, table: Table) -> None:
        if layer == "topic":
            raise DamagedLayerError(
                f"topic/{table.name}: its last proof failed, and a topic may have other readers;"
                f" look at `ecom reconcile`, then `ecom reset topic --table {table.name}` and run again"
            )
        getattr(self, f"_delete_{layer}")(table)

    def _delete_expanded(self, table: Table) -> None:
        rmtree(expand.folder(table, self.settings))

    def _delete_chunked(self, table: Table) -> None:
        rmtree(chunk.folder(table, self.settings))

    def _delete_topic(self, table: Table) -> None:
        topic.delete(table, self.settings, self.addresses.kafka)

    def _delete_streamed(self, table: Table) -> None:
        streamed.delete(table, self.settings)

    def _delete_merged(self, table: Table) -> None:
        merged.delete(table, self.settings)

    def _delete_hbase(self, table: Table) -> None:
        hbase.delete(table, self.settings, self.addresses)

    def _path(self, layer: str, table: Table, kind: str) -> Path:
        return self.settings.manifests / layer / f"{table.name}.{kind}.json"

    def _recall(self, layer: str, table: Table, kind: str) -> dict[str, Any] | None:
        return read_json(self._path(layer, table, kind))


def _file_state(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}"
