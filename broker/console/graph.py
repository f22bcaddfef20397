"""A chain as a picture: where its tasks stand, and how the lines between them go.

Roots are on the left, and what was opened below a task to the right of it. The template draws it;
what is in it is text there like anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WIDTH: Final = 236
HEIGHT: Final = 84
_ACROSS: Final = 40
_DOWN: Final = 14
_EDGE: Final = 2
MOST: Final = 60
"""Tasks in one picture; the table below it has them all."""


@dataclass(frozen=True, slots=True)
class Box:
    """A task and where its upper left corner is, in pixels."""

    node: Mapping[str, Any]
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """All of it. ``lines`` are the ``d`` of SVG paths; ``left_out`` tasks are not in it."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]
    left_out: int


def draw(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, str]]) -> Drawing:
    """Place tasks: each in the column of its depth, in the middle of those below it.

    ``nodes`` and ``edges`` are a tree's, those above before those below.
    """
    shown = {node["task_id"]: node for node in nodes[:MOST]}
    below: dict[str, list[str]] = {name: [] for name in shown}
    hung: set[str] = set()
    for edge in edges:
        if edge["from"] in shown and edge["to"] in shown:
            below[edge["from"]].append(edge["to"])
            hung.add(edge["to"])
    rows = _rows([name for name in shown if name not in hung], below)
    top = min((node["depth"] for node in shown.values()), default=0)
    boxes = {
        name: Box(
            node,
            _EDGE + (node["depth"] - top) * (WIDTH + _ACROSS),
            _EDGE + round(rows[name] * (HEIGHT + _DOWN)),
        )
        for name, node in shown.items()
    }
    return Drawing(
        width=max((box.x for box in boxes.values()), default=0) + WIDTH + _EDGE,
        height=max((box.y for box in boxes.values()), default=0) + HEIGHT + _EDGE,
        boxes=tuple(boxes.values()),
        lines=tuple(_line(boxes[a], boxes[b]) for a, under in below.items() for b in under),
        left_out=len(nodes) - len(shown),
    )


def _rows(roots: Sequence[str], below: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Count rows: those with nothing below them take one each, from the top."""
    rows: dict[str, float] = {}
    free = 0
    for name in _from_below(roots, below):
        under = below[name]
        if under:
            rows[name] = (rows[under[0]] + rows[under[-1]]) / 2
        else:
            rows[name], free = free, free + 1
    return rows


def _from_below(names: Sequence[str], below: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name in names:
        yield from _from_below(below[name], below)
        yield name


def _line(above: Box, under: Box) -> str:
    x, y = above.x + WIDTH, above.y + HEIGHT // 2
    to_x, to_y = under.x, under.y + HEIGHT // 2
    middle = (x + to_x) // 2
    return f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"
