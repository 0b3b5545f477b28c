"""Checks of data quality that need no server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ecom_assets.core.layer import Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import load
from ecom_assets.dataset.shop import PRODUCT
from ecom_assets.paths import engine, open_home
from ecom_assets.reconcile import quality


def test_a_key_that_is_not_unique_is_seen_on_the_bulk_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a primary key that is too narrow drops nine rows of ten on that path, and all passes."""
    (check,) = (c for c in quality.CHECKS if (c.layer, c.name) == ("hbase", "conflicts"))
    with open_home(load(home=tmp_path)) as at:
        bulk = engine(at, "bulk")
        left = {"duplicates": Measure(), "conflicts": Measure(90)}
        found = Measurement("product", "hbase", Measure(10), left)
        monkeypatch.setattr(bulk, "look_up", lambda *_: found)
        file = at.settings.quarantine / "product.conflicts.jsonl"
        file.parent.mkdir()
        file.write_text(json.dumps({"table": "product", "key": 7, "row": {"id": 7}, "reason": "other values"}) + "\n")
        seen = check.run(bulk, PRODUCT)
        assert not seen.ok
        assert not seen.warn
        assert seen.figures["finding"] == "the key is not unique: 90 of 100 rows share one with another, different row"
        assert [sample["key"] for sample in seen.samples] == ["7"]
        assert check.run(bulk, replace(PRODUCT, conflicts_tolerated=0.9)).ok
        found = Measurement("product", "hbase", Measure(10))
        assert check.run(bulk, PRODUCT).ok, "behind a merged layer nothing is left out"
