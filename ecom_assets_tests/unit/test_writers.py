"""Everything that writes to a home's tables holds the home meanwhile, so that nobody deletes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ecom_assets.cli import streaming
from ecom_assets.core import locks
from ecom_assets.core.context import Context
from ecom_assets.core.errors import HomeError
from ecom_assets.core.settings import load
from ecom_assets.hbase import maintenance as hbase_maintenance
from ecom_assets.lake import follow, maintenance
from ecom_assets.paths import HBASE, TOPIC, open_home
from ecom_assets.serving import index, postgres
from ecom_assets_tests.tables import ORDERS


def held(*_: object, **__: object) -> AbstractContextManager[None]:
    """A home that another process holds."""
    raise HomeError("it is held by ecom reset")


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(maintenance.compact_lake, id="maintenance of the lake"),
        pytest.param(hbase_maintenance.compact, id="maintenance of HBase"),
        pytest.param(lambda at: index.build_index(at, ORDERS, HBASE["stream"]), id="index"),
        pytest.param(
            lambda at: postgres.load(at.settings, at.dataset, "postgresql://127.0.0.1:1/none"), id="PostgreSQL"
        ),
        pytest.param(
            lambda at: follow.follow(at, [], TOPIC, interval=1, stop=None, report=print),  # ty: ignore
            id="continuous stream",
        ),
        pytest.param(lambda at: streaming.simulate(home=at.settings.home), id="ecom simulate"),
        pytest.param(lambda at: streaming.stream(home=at.settings.home), id="ecom stream"),
    ],
)
def test_who_writes_holds_the_home(
    work: Callable[[Context], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, `ecom reset` pulls a table away from under what writes to it."""
    monkeypatch.setenv("ECOM_HOME", str(tmp_path))
    (tmp_path / "raw").mkdir()
    monkeypatch.setattr(locks, "shared", held)
    with open_home(load(home=tmp_path)) as at, pytest.raises(HomeError, match="it is held by ecom reset"):
        work(at)
