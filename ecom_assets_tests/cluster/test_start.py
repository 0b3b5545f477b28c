"""A cluster that cannot start reports why in a sentence, and leaves nothing running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import load
from ecom_assets.servers.process import Record, marked
from ecom_assets.servers.stack import Stack


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Stack]:
    """ZooKeeper, a namenode and a datanode, which is enough to fail."""
    stack = Stack(load(home=tmp_path, profile="cluster"))
    stack.servers = {name: stack.servers[name] for name in ("zookeeper", "namenode", "datanode-1")}
    yield stack
    stack.down(grace=5)


def test_a_server_that_ends_takes_the_others_with_it(few: Stack) -> None:
    """If this fails, half a cluster goes on running that serves nobody."""
    damaged = few.servers["datanode-1"].data / "current" / "VERSION"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("layoutVersion=0\n")
    with pytest.raises(ServiceError, match=r"datanode-1: (ended|runs)(.|\n)*Remedy: "):
        few.up()
    for server in few.servers.values():
        record = Record.read(server.record)
        assert record is None or record.process() is None, server.name
        assert not marked(server.mark), server.name


def test_a_server_that_never_gets_well_takes_the_others_with_it(few: Stack) -> None:
    """If this fails, a start waits for ever, or leaves half a cluster behind."""
    del few.servers["datanode-1"]  # without one the namenode takes no writes, and never will
    few.servers["namenode"].timeout = 8
    with pytest.raises(ServiceError, match=r"namenode: runs \(pid \d+\) but has not answered at \S+ within 8 s"):
        few.up()
    assert not any(marked(server.mark) for server in few.servers.values())
