"""The asset graph as a diagram: ``make diagram`` draws docs/architecture.md's from the definitions.

A box is a group of assets (a layer), an arrow means that some asset of one is built from one of the other. A diagram
drawn by hand would be wrong after the next change of the graph; a test verifies that this one is current.
"""

from __future__ import annotations

import re
from collections import defaultdict

import dagster as dg

from ecom_assets.core.settings import ROOT

PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by `make diagram` -->\n", "<!-- until here -->\n"


def mermaid(graph: dg.AssetGraph) -> str:
    """Draw a graph, as Mermaid writes it, in the order in which data flow.

    Args:
        graph: The definitions' graph.
    """
    depth: dict[dg.AssetKey, int] = {}
    members: dict[str, list[dg.AssetKey]] = defaultdict(list)
    arrows: set[tuple[str, str]] = set()
    for key in graph.toposorted_asset_keys:
        parents = graph.get(key).parent_keys
        depth[key] = 1 + max((depth[p] for p in parents), default=0)
        members[_box(graph, key)].append(key)
        arrows |= {(_box(graph, p), _box(graph, key)) for p in parents}
    order = sorted(members, key=lambda box: (min(depth[key] for key in members[box]), box))
    lines = [f'  {box}["{_label(graph, box, members[box])}"]' for box in order]
    lines += [
        f"  {a} --> {b}"
        for a, b in sorted(arrows, key=lambda arrow: (order.index(arrow[0]), order.index(arrow[1])))
        if a != b
    ]
    return "\n".join(["flowchart LR", *lines, ""])


def draw(page: str, graph: dg.AssetGraph) -> str:
    """A page with the diagram between its marks drawn again.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r} around the diagram; put them where it belongs")
    return f"{before}{begin}```mermaid\n{mermaid(graph)}```\n{end}{after}"


def _box(graph: dg.AssetGraph, key: dg.AssetKey) -> str:
    """The box of an asset: its group's, but one of its own for external assets."""
    node = graph.get(key)
    return node.group_name if node.is_materializable else re.sub(r"\W", "_", key.to_user_string())


def _label(graph: dg.AssetGraph, box: str, keys: list[dg.AssetKey]) -> str:
    kinds = sorted({kind for key in keys for kind in graph.get(key).kinds})
    blocking = sum(check.asset_key in keys and graph.get(check).blocking for check in graph.asset_check_keys)
    lines = [f"<b>{box.replace('_', ' ')}</b>", ", ".join(kinds)]
    if graph.get(keys[0]).is_materializable:
        lines += [_counted(len(keys), "asset") + (f", {_counted(blocking, 'check')}" if blocking else "")]
    return "<br/>".join(filter(None, lines))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' if number > 1 else ''}"


if __name__ == "__main__":
    from ecom_assets.definitions import defs

    PAGE.write_text(draw(PAGE.read_text(encoding="utf-8"), defs().resolve_asset_graph()), encoding="utf-8")
    print(f"drew {PAGE}")
