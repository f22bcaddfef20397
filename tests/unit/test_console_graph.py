"""Where the tasks of a chain are drawn."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.console.graph import HEIGHT, MOST, WIDTH, draw


def tree(parents: list[int]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """A tree of which each task after the first is below an earlier one, level by level."""
    depths = [0]
    for n, parent in enumerate(parents, 1):
        depths.append(depths[parent % n] + 1)
    nodes = [{"task_id": str(n), "depth": depth} for n, depth in enumerate(depths)]
    edges = [{"from": str(p % n), "to": str(n)} for n, p in enumerate(parents, 1)]
    return sorted(nodes, key=lambda node: node["depth"]), edges


@given(st.lists(st.integers(0, 100), max_size=80))
def test_no_two_boxes_meet_and_lines_are_between_what_is_drawn(parents: list[int]) -> None:
    nodes, edges = tree(parents)
    drawing = draw(nodes, edges)
    assert len(drawing.boxes) + drawing.left_out == len(nodes)
    assert len(drawing.boxes) <= MOST
    shown = {box.node["task_id"] for box in drawing.boxes}
    assert len(drawing.lines) == sum({e["from"], e["to"]} <= shown for e in edges)
    for box in drawing.boxes:
        assert 0 <= box.x <= drawing.width - WIDTH
        assert 0 <= box.y <= drawing.height - HEIGHT
    columns: dict[int, list[int]] = {}
    for box in drawing.boxes:
        columns.setdefault(box.x, []).append(box.y)
    for rows in map(sorted, columns.values()):
        assert all(b - a >= HEIGHT for a, b in pairwise(rows))


def test_a_part_of_a_chain_begins_at_the_left() -> None:
    (box,) = draw([{"task_id": "x", "depth": 3}], [{"from": "gone", "to": "x"}]).boxes
    assert box.x < WIDTH
    assert draw([], []).boxes == ()
