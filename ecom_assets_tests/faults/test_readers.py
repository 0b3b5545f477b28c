"""People look rows up while deliveries change them, and HBase is killed: each sees one state, never half of another."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime

import pytest
from typing_extensions import override

from ecom_assets.core.books import Books
from ecom_assets.core.settings import Settings
from ecom_assets.servers.stack import Stack
from ecom_assets.serving.lookup import LookupUnavailableError
from ecom_assets.serving.queries import Queries, Snapshot
from ecom_assets_tests.exports import Shop
from ecom_assets_tests.readers import Reader
from ecom_assets_tests.runs import environment, finish, settings_of, start, wait_for
from ecom_assets_tests.tables import CLICK_STREAM

TEN = 10
SESSIONS = 2
TIMES_A_SECOND = 20


class Marked:
    """A shop whose deliveries write their number into the same ten customers and products, and add to two sessions.

    Args:
        shop: The shop.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop, self.days = shop, 0
        plain = {name: [line for line in lines[1:] if b'"' not in line] for name, lines in shop.lines.items()}
        self.customers, self.products = (plain[name][:TEN] for name in ("customer", "product"))
        place = CLICK_STREAM.names.index("session_id")
        of = [line.split(b",")[place] for line in shop.lines["click_stream"][1:]]
        self.sessions = [session.decode() for session in dict.fromkeys(of)][:SESSIONS]
        self.events = {session: of.count(session.encode()) for session in self.sessions}

    def deliver(self) -> None:
        """Write the next delivery."""
        self.days += 1
        day = self.shop.folder / f"2027-01-{self.days:02}"
        day.mkdir()
        mark = f"v{self.days}".encode()
        for name, column, lines in (
            ("customer", "first_name", self.customers),
            ("product", "productDisplayName", self.products),
        ):
            (day / f"{name}.csv").write_bytes(self.shop.changed(name, column, mark, lines))
        header = self.shop.lines["click_stream"][0]
        example = next(line for line in self.shop.lines["click_stream"][1:] if b'"' not in line)
        added = []
        for session in self.sessions:
            fields = dict(zip(CLICK_STREAM.names, example.rstrip(b"\n").split(b","), strict=False))
            fields |= {"session_id": session.encode(), "event_id": f"marked-{self.days}-{session}".encode()}
            fields["event_metadata"] = b""
            added.append(b",".join(fields[name] for name in CLICK_STREAM.names) + b"\n")
        (day / "click_stream.csv").write_bytes(header + b"".join(added))

    def version(self, asked: Snapshot) -> set[int]:
        """The deliveries that rows of one snapshot are of: one, unless the answer is mixed."""
        found = set()
        for name, column, lines in (
            ("customer", "first_name", self.customers),
            ("product", "productDisplayName", self.products),
        ):
            for line in lines:
                (text,) = asked.row(name, line.split(b",")[0].decode()).table.column(column).to_pylist()
                found.add(int(text[1:]) if text.startswith("v") and text[1:].isdecimal() else 0)
        for session in self.sessions:
            found.add(asked.under("click_stream", session).table.num_rows - self.events[session])
        return found


class Lookups(Reader):
    """Looks the rows up all the time, and notes what is wrong."""

    def __init__(self, settings: Settings, marked: Marked) -> None:
        super().__init__()
        self.queries, self.marked = Queries(settings), marked
        self.away, self.seen = 0, list[int]()

    @override
    def look(self) -> None:
        while not self.stop.wait(1 / TIMES_A_SECOND):
            try:
                asked = self.queries.snapshot()
                versions = self.marked.version(asked)
            except LookupUnavailableError:  # HBase is away, and nobody is answered
                self.away += 1
                continue
            except Exception as error:  # noqa: BLE001  whatever it is, people would see it
                self.wrong.append(repr(error))
                continue
            self.looks += 1
            if versions != {asked.published.delivery}:
                self.wrong.append(f"published {asked.published.delivery}, got rows of {sorted(versions)}")
            self.seen += versions

    @override
    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.queries.close()


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Marked:
    return Marked(Shop(tmp_path_factory.mktemp("exports")))


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, stack: Stack, marked: Marked) -> dict[str, str]:
    """A home with the first files."""
    found = environment(tmp_path_factory.mktemp("home"), stack.addresses(), "marked")
    finish(found | {"ECOM_SOURCE": str(marked.shop.folder)})
    return found


def test_no_reader_sees_half_of_a_delivery(env: dict[str, str], marked: Marked) -> None:
    """If this fails, a page shows a customer of today next to a product of yesterday, or what is not published."""
    with Lookups(settings_of(env), marked) as reader:
        for _ in range(3):
            marked.deliver()
            finish(env)
    assert reader.wrong == []
    assert reader.away == 0
    assert set(reader.seen) == {0, 1, 2, 3}
    assert reader.seen == sorted(reader.seen)
    assert reader.looks > 100


@pytest.mark.parametrize("after", [0.0, 1.0], ids=["at once", "in the middle"])
def test_hbase_killed_under_readers(env: dict[str, str], marked: Marked, stack: Stack, after: float) -> None:
    """If this fails, HBase comes back with half of a delivery, and people are shown it."""
    before, began = marked.days, datetime.now(UTC)

    def merged(books: Books) -> bool:
        found = books.build("merged", "click_stream")
        return found is not None and found.at > began

    with Lookups(settings_of(env), marked) as reader:
        marked.deliver()
        process = start(env, "run", "--json")
        wait_for(merged, settings_of(env), process, 300)
        time.sleep(after)
        (pid,) = [s.pid for s in stack.status() if s.service == "hbase"]
        assert pid
        os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=400)
        stack.up()
        finish(env)
        time.sleep(2)
    assert reader.wrong == []
    assert set(reader.seen) == {before, before + 1}
