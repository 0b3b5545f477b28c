"""Rows that change and go, end to end: each store holds what plain Python says, delivery by delivery."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from ecom_assets.core.addresses import Addresses
from ecom_assets_tests.changing import Changing, check
from ecom_assets_tests.runs import ecom, environment, settings_of


def test_each_store_follows_the_deliveries(tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, a customer who moved has two addresses, or one who left is still found."""
    made = Changing(tmp_path, seed=1)
    env = environment(tmp_path / "home", addresses, "changing")
    first = ("--dataset", str(made.declaration), "--source", str(made.source))
    for options in (first, (), ()):
        code, reported, err = ecom(env, "run", "--json", *options)
        assert code == 0, err
        assert reported["ok"]
        check(made, settings_of(env))
        made.deliver()
        made.deliver()
    code, reported, err = ecom(env, "replay", "1..2", "--json")
    assert code == 0, err
    assert reported["ok"]
    replayed = [name for name, layers in reported["tables"].items() if "replayed" in layers["topic"]]
    assert replayed, "rows are there twice, and counted as that"
    check(made, settings_of(env))
    code, reported, err = ecom(env, "reconcile", "--json")
    assert code == 0, err
    code, listed, err = ecom(env, "deliveries", "--json")
    assert code == 0, err
    for name, state in made.states.items():
        accounts = [each["accounts"][name] for each in listed["deliveries"] if name in each["accounts"]]
        assert accounts[-1]["after"]["rows"] == len(state.rows)
        assert all(one["after"] == two["before"] for one, two in pairwise(accounts)), "nothing between two accounts"
