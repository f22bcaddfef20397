"""Where a command's result goes: a table for people, or one JSON document for programs.

rich is imported only when a table is drawn. It leaves colours out if NO_COLOR is set or standard
output is no terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO

from broker.cli.text import clean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import Console, RenderableType
    from rich.text import Text
    from rich.tree import Tree

    from broker.client import Page

_STATE_STYLES: Final = {
    "active": "green",
    "approved": "green",
    "pending_approval": "yellow",
    "pending": "yellow",
    "revoking": "yellow",
    "stuck": "bold red",
    "abandoned": "bold red",
    "failed": "red",
    "denied": "red",
}
_POWER_STYLES: Final = {"read": "green", "operate": "yellow", "privileged": "bold red"}
_STATE_COLUMN: Final = "state"
_GAP: Final = 2
_LONGEST_WORD: Final = 20
_PIPE_WIDTH: Final = 200
"""What a table may take where no terminal's width bounds it."""


Part = tuple[str, str]
"""Words, and what they are: ``state``, ``power``, ``alarm``, ``strong``, ``dim`` or nothing."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A thing of a tree, in lines of parts, and what is below it."""

    lines: Sequence[Sequence[Part]]
    below: list[Branch] = field(default_factory=list["Branch"])
    dim: bool = False


def document(value: Mapping[str, Any]) -> None:
    """Print one JSON document; characters that a terminal would obey are escaped."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def model(instance: DataclassInstance, *, reveal: bool = False) -> None:
    """Print one answer of the broker's as a JSON document."""
    from broker.client.decoding import encode

    document(encode(instance, reveal=reveal))


def page_document(page: Page[Any]) -> None:
    """Print a part of a list as a JSON document."""
    from broker.client.decoding import encode

    document({"items": [encode(item) for item in page.items], "next": page.next})


def more(page: Page[Any], option: str = "--cursor") -> None:
    """Say how to go on, if there is more."""
    if page.next is not None:
        note(f"There is more: raise --limit, or go on with {option} {page.next}")


def line(text: str) -> None:
    """Print one line to standard output."""
    sys.stdout.write(clean(text) + "\n")


def text(lines: str) -> None:
    """Print lines as they are, to standard output: of our own making, nobody else's words."""
    sys.stdout.write(lines)


def note(text: str) -> None:
    """Print one line for the person, to standard error, out of a script's way."""
    sys.stderr.write(clean(text) + "\n")


def rows(
    columns: Sequence[str],
    cells: Iterable[Sequence[str | None]],
    *,
    empty: str,
    aside: bool = False,
) -> None:
    """Print a table as wide as it needs and the terminal allows; long cells wrap, none is cut.

    The first column holds ids, which are to be copied, so it never wraps. Where a table can't be
    had without breaking words, each row is a block of lines, a member a line. ``aside`` as
    ``record``.
    """
    stream = sys.stderr if aside else sys.stdout
    screen = console(stream)
    texts = [[clean(text or "") for text in row] for row in cells]
    if not texts:
        note(empty)
        return
    floors = [_floor(name, [row[at] for row in texts], at == 0) for at, name in enumerate(columns)]
    if sum(floors) + _GAP * (len(columns) - 1) > screen.width:
        for at, row in enumerate(texts):
            _print(screen, _block(columns, row, apart=at > 0), stream)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, (column, floor) in enumerate(zip(columns, floors, strict=True)):
        table.add_column(column, overflow="fold", no_wrap=at == 0, min_width=floor)
    for row in texts:
        table.add_row(*(_cell(name, text) for name, text in zip(columns, row, strict=True)))
    _print(screen, table, stream)


def _floor(name: str, texts: Sequence[str], whole: bool) -> int:  # noqa: FBT001  of one column
    """Return how narrow a column may be: as its longest word, or as all of it."""
    if whole:
        return max(map(len, (name, *texts)))
    words = [word for text in texts for word in text.split()]
    return max(len(name), min(max(map(len, words), default=0), _LONGEST_WORD))


def _block(columns: Sequence[str], row: Sequence[str], *, apart: bool) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    first, *rest = zip(columns, row, strict=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rest:
        if text:
            table.add_row(name, _cell(name, text))
    head = Text(first[1] or "-", style="bold", overflow="fold")
    parts: list[RenderableType] = [Text(""), head] if apart else [head]
    return Group(*parts, *([Padding(table, (0, 0, 0, 2))] if table.row_count else []))


def record(pairs: Mapping[str, str | None], *, aside: bool = False) -> None:
    """Print one thing, a member a line; members without a value are left out.

    ``aside`` is for what a person is to see before they are asked: to standard error.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        if value:
            table.add_row(clean(name), _cell(name, value))
    stream = sys.stderr if aside else sys.stdout
    _print(console(stream), table, stream)


def tree(tops: Iterable[Branch]) -> None:
    """Print trees, one below the other; long lines wrap, none is cut."""
    from rich.tree import Tree

    screen = console()
    for top in tops:
        root = Tree(_label(top), guide_style="dim")
        _grow(root, top.below)
        _print(screen, root)


def erase() -> None:
    """Clear the screen for what is drawn again, where there is one."""
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[H\x1b[2J")


def _grow(tree: Tree, branches: Iterable[Branch]) -> None:
    for branch in branches:
        _grow(tree.add(_label(branch)), branch.below)


def _label(branch: Branch) -> Text:
    from rich.text import Text

    lines = [
        Text("  ", style="dim" if branch.dim else "").join(
            Text(clean(words), style=_style(words, kind), overflow="fold") for words, kind in line
        )
        for line in branch.lines
    ]
    return Text("\n", style="dim" if branch.dim else "").join(lines)


def _style(words: str, kind: str) -> str:
    match kind:
        case "state":
            return _STATE_STYLES.get(words, "")
        case "power":
            return _POWER_STYLES.get(words, "")
        case _:
            return {"alarm": "bold red", "strong": "bold"}.get(kind, kind)


def _cell(column: str, value: str) -> Text:
    from rich.text import Text

    return Text(clean(value), style=_STATE_STYLES.get(value, "") if column == _STATE_COLUMN else "")


def _print(screen: Console, what: RenderableType, stream: TextIO | None = None) -> None:
    # Not straight to the terminal: rich would end the program when the reader has gone.
    with screen.capture() as capture:
        screen.print(what)
    (stream or sys.stdout).write("\n".join(text.rstrip() for text in capture.get().split("\n")))


def is_screen() -> bool:
    """Whether standard output is a terminal that can be drawn on."""
    return sys.stdout.isatty() and not console().is_dumb_terminal


def drawn(parts: Iterable[RenderableType]) -> None:
    """Print things of rich's, one below the other."""
    screen = console()
    for part in parts:
        _print(screen, part)


def console(stream: TextIO | None = None) -> Console:
    """Return rich's console on a stream, standard output unless given: as wide as it is."""
    from rich.console import Console

    to = stream or sys.stdout
    free = not to.isatty() and not os.environ.get("COLUMNS")
    return Console(
        file=to,
        highlight=False,
        markup=False,
        emoji=False,
        width=_PIPE_WIDTH if free else None,
    )
