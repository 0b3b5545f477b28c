"""One real stack for all integration tests of a session, or of each worker of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis
from pyspark.sql import SparkSession
from typing_extensions import override
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.settings import Settings, load
from ecom_assets.core.spark import spark_session
from ecom_assets.dataset.model import Table
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.hdfs import Hdfs, hdfs_in
from ecom_assets_tests.shop import open_shop, settings_for
from ecom_assets_tests.topics import MakeTopic, Topic

# How long an example takes depends on what else the machine does.
hypothesis.register_profile("untimed", deadline=None)
hypothesis.load_profile("untimed")

SHOP = {"test_checks.py", "test_dashboard.py", "test_serving.py"}
"""Files whose tests start from the fixture ``shop``."""


STACKS = 2
"""Workers that may have a stack: with three, two cores and their memory do not suffice."""


class ByStack(LoadFileScheduling):
    """The tests of a file run on one worker, and so do all that start from ``shop``: it takes a minute to build.

    Further workers than those with a stack take tests that need none, while the others wait for servers.
    """

    @override
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "shop" if file.rpartition("/")[2] in SHOP else file

    @override
    def _reschedule(self, node: WorkerController) -> None:
        if self._has_stack(node) or self._next_scope(stack=False):
            super()._reschedule(node)
        elif not node.shutting_down:
            node.shutdown()

    @override
    def _assign_work_unit(self, node: WorkerController) -> None:
        if scope := self._next_scope(stack=self._has_stack(node)):
            self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _has_stack(self, node: WorkerController) -> bool:
        return int(node.gateway.id.removeprefix("gw")) < STACKS

    def _next_scope(self, *, stack: bool) -> str | None:
        """The next tests that need a stack, or that need none."""
        return next((scope for scope in self.workqueue if ("/unit/" not in scope) == stack), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByStack:
    """Distribute tests over the workers."""
    return ByStack(config, log)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of the session's own."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def settings(home: Path) -> Settings:
    """The settings of that home."""
    return load(home=home, class_archives=False)  # a minute less at the end


@pytest.fixture(scope="session")
def stack(settings: Settings) -> Iterator[Stack]:
    """The stack, up; down again when the session ends, however it ends."""
    stack = Stack(settings)
    try:
        stack.up()
        yield stack
    finally:
        stack.down(grace=5)


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """A namenode and a datanode, for lakes; tests must leave them running."""
    with hdfs_in(tmp_path_factory.mktemp("hdfs")) as servers:
        yield servers


@pytest.fixture
def addresses(stack: Stack) -> Addresses:
    """Where the servers are now; asked anew for each test."""
    return stack.addresses()


@pytest.fixture(scope="session")
def shop(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A small shop, published; tests must leave it as it is, or publish what it held."""
    settings = settings_for(tmp_path_factory.mktemp("shop"), stack.addresses(), "shop")
    open_shop(settings)
    return settings


@pytest.fixture(scope="module")
def spark(stack: Stack) -> Iterator[SparkSession]:
    """A session for the tests of a module."""
    with spark_session(stack.addresses().spark) as session:
        yield session


@pytest.fixture(scope="module")
def make_topic(
    settings: Settings, stack: Stack, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> MakeTopic:
    """Makes an empty topic, with a lake of its own."""

    def make(table: Table) -> Topic:
        home = tmp_path_factory.mktemp("lake")
        own = settings.model_copy(update={"home": home, "namespace": home.name})
        return Topic(table, own, stack.addresses(), lambda: spark)

    return make
