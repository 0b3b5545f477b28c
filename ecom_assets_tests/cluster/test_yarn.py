"""ImportTsv as a job of YARN, on files in HDFS: the servers are the ones that `ecom serve` runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecom_assets.settings import Settings
from ecom_assets_tests.hdfs import Hdfs, hdfs_in
from ecom_assets_tests.integration.test_hfile import (  # noqa: F401  they run here too, with the settings made below
    addresses,
    admin,
    named,
    test_importtsv_ends_in_the_same_cells,
)


@pytest.fixture(scope="module")
def yarn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """YARN, up."""
    with hdfs_in(tmp_path_factory.mktemp("yarn"), yarn=True) as servers:
        yield servers


@pytest.fixture(scope="module")
def settings(settings: Settings, yarn: Hdfs) -> Settings:
    """The session's home, with its lake in HDFS and its jobs on YARN."""
    return settings.model_copy(update={"lake_uri": f"{yarn.uri}/lakes", "yarn": yarn.yarn})
