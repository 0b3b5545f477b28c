"""ImportTsv as a job of YARN, on files in HDFS: the servers are the ones that `ecom serve` runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.settings import Settings
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.servers import probes
from ecom_assets_tests.hdfs import HOST, Hdfs, hdfs_in
from ecom_assets_tests.integration import test_hfile

addresses, admin, named = test_hfile.addresses, test_hfile.admin, test_hfile.named


@pytest.fixture(scope="session")
def yarn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """YARN, up."""
    with hdfs_in(tmp_path_factory.mktemp("yarn"), yarn=True) as servers:
        yield servers


@pytest.fixture(scope="session")
def settings(settings: Settings, yarn: Hdfs) -> Settings:
    """The session's home, with its lake in HDFS and its jobs on YARN."""
    return settings.model_copy(update={"lake_uri": f"{yarn.uri}/lakes", "yarn": yarn.yarn})


def test_importtsv_as_a_job_of_yarn(
    settings: Settings,
    addresses: Addresses,
    admin: HBaseAdmin,
    named: Callable[[str], str],
) -> None:
    """If this fails, those who have YARN get no files, wrong ones, or a job that ran in the flow's process."""
    test_hfile.test_importtsv_ends_in_the_same_cells(settings, addresses, admin, named)
    (job,) = json.loads(probes.fetch(HOST, 8088, "/ws/v1/cluster/apps"))["apps"]["app"]
    assert (job["applicationType"], job["finalStatus"]) == ("MAPREDUCE", "SUCCEEDED")
