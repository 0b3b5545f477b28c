"""What of a table's declaration is built into each layer: a corrected key must be noticed where it matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ecom_assets.core.context import Context
from ecom_assets.core.layer import Layer
from ecom_assets.core.settings import load
from ecom_assets.dataset.model import Table
from ecom_assets.paths import EXPANDED, HBASE, MERGED, TOPIC
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, SHOP

LAYOUT = CLICK_STREAM.hbase
KEY = replace(CLICK_STREAM, primary_key=("session_id",))
ENTITY = replace(CLICK_STREAM, topic_key=("event_id",))
DOMAINS = replace(CLICK_STREAM, domains={"event_id": "event"})
ROW_KEY = replace(CLICK_STREAM, hbase=replace(LAYOUT, row_key=(*LAYOUT.row_key, "event_name"), forms=("text",) * 4))
FORMS = replace(CLICK_STREAM, hbase=replace(LAYOUT, forms=("fixed", "text", "text"), widths={"session_id": 36}))
FAMILIES = replace(CLICK_STREAM, hbase=replace(LAYOUT, families={"all": tuple(CLICK_STREAM.names)}))


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Context]:
    with Context(load(home=tmp_path), SHOP, lambda: pytest.fail("no server is needed")) as at:
        yield at


@pytest.mark.parametrize(
    ("layer", "changed"),
    [
        pytest.param(EXPANDED, KEY, id="expanded, by whose primary key the bulk path chooses rows"),
        pytest.param(EXPANDED, DOMAINS, id="expanded, whose copies have renewed keys"),
        pytest.param(TOPIC, ENTITY, id="topic"),
        pytest.param(MERGED, KEY, id="merged"),
        pytest.param(HBASE["stream"], ROW_KEY, id="row key"),
        pytest.param(HBASE["stream"], FORMS, id="form of a row key's part"),
        pytest.param(HBASE["bulk"], ROW_KEY, id="row key on the bulk path"),
        pytest.param(HBASE["bulk"], FAMILIES, id="families"),
    ],
)
def test_a_corrected_declaration_is_noticed(layer: Layer, changed: Table, at: Context) -> None:
    """If this fails, a corrected key changes nothing on a home that is there, and nobody is informed."""
    assert layer.declaration(at, replace(CLICK_STREAM)) == layer.declaration(at, CLICK_STREAM)
    assert layer.declaration(at, changed) != layer.declaration(at, CLICK_STREAM)


def test_a_home_from_before_keeps_what_is_the_same(at: Context) -> None:
    """If this fails, an update asks people to build tables again that would be the same."""
    assert set(EXPANDED.declaration(at, CUSTOMER)) == {"schema", "keys", "primary_key"}
    assert set(EXPANDED.declaration(at, CLICK_STREAM)) == {"schema", "keys", "primary_key", "key sizes"}
    assert set(HBASE["stream"].declaration(at, CUSTOMER)) == {"families", "row_key"}
