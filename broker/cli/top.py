"""``broker top``: what lives, what dies next and what is wrong, live in the terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection, duration
from broker.cli.top_view import draw, draw_whole
from broker.durations import parse_duration

if TYPE_CHECKING:
    from broker.client import Client, Overview

_EXAMPLES: Final = """\
Keys: q ends it, r or the space bar looks again at once.

Examples:

  broker top
  broker top --every 5s --server https://broker.example.com
  broker top --once
  broker top --json | jq .unsettled
"""
_TICK_S: Final = 1.0
_LEAST_S: Final = 0.5

app = App(name="top", help_epilogue=_EXAMPLES)


@app.default
def top(
    *,
    every: Annotated[
        str, Parameter(help="How often to look.", validator=duration, metavar="TIME")
    ] = "2s",
    once: Annotated[
        bool, Parameter(help="Look once, and print all of it.", negative="", show_default=False)
    ] = False,
    connection: Connection = DEFAULT,
) -> None:
    """Watch live credentials, what dies next, backends, freezes and approvals."""
    pause_s = max(parse_duration(every) / 1000, _LEAST_S)
    with connection.client() as broker:
        found = broker.get_overview()
        if connection.json:
            output.model(found)
        elif once or not sys.stdin.isatty() or not output.is_screen():
            output.drawn(draw_whole(found, connection.where))
        else:
            _live(broker, found, connection.where, pause_s)


def _live(broker: Client, found: Overview, where: str, pause_s: float) -> None:
    """Draw it again each second, look again each ``pause_s``; what fails is said, and retried."""
    from rich.live import Live

    from broker.cli.approval_watch import PASSING

    console, problem = output.console(), ""
    looked_at = time.monotonic()  # noqa: TID251  for the pause between two looks
    with (
        _keys() as key,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            passed = time.monotonic() - looked_at  # noqa: TID251  as above
            live.update(draw(found, where, console.size, passed, problem), refresh=True)
            pressed = key(min(_TICK_S, max(pause_s - passed, 0.05)))
            if pressed in {"q", "Q", "\x1b"}:
                return
            if passed < pause_s and pressed not in {"r", "R", " "}:
                continue
            try:
                found, problem = broker.get_overview(), ""
                looked_at = time.monotonic()  # noqa: TID251  as above
            except PASSING as error:
                problem = error.detail
                key(pause_s)


class Pressed:
    """Waits for a key."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __call__(self, seconds: float) -> str:
        """Return the key that was pressed within so many seconds, or nothing."""
        ready, _, _ = select.select([self._handle], [], [], seconds)
        return os.read(self._handle, 32).decode(errors="replace")[:1] if ready else ""


@contextlib.contextmanager
def _keys() -> Generator[Pressed]:
    """Read single keys while this lasts, and leave the terminal as it was."""
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        yield Pressed(handle)
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
