"""``make demo``: the whole life of a credential, on real servers, told on the terminal.

Each claim is checked; the first that isn't true ends the demo with exit code 1. Everything runs on
throw-away data, and nothing of it is left.
"""

from __future__ import annotations

import signal
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final, NoReturn

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from broker.client import BrokerClientError
from broker.clock import SystemClock
from broker.dev import demo_story
from broker.dev.demo_broker import DemoBroker, DemoFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from rich.console import RenderableType

    from broker.client import AuditEvent

_WIDTH: Final = 80
_INDENT: Final = 4


class Terminal:
    """Tells the story in at most 80 columns; rich leaves out colours where they don't belong."""

    def __init__(self) -> None:
        """Write to standard output."""
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._console.width = min(self._console.width, _WIDTH)
        self._steps = 0
        self._column = 0

    def step(self, title: str) -> None:
        """Start the next step."""
        self._steps += 1
        self._console.print()
        self._console.print(Text(f"{self._steps:2}. {title}", style="bold"))

    def say(self, text: str) -> None:
        """Tell something."""
        self._show(Text(text, style="dim"))

    def facts(self, pairs: dict[str, str]) -> None:
        """Show names and values."""
        table = Table.grid(padding=(0, 2))
        for name, value in pairs.items():
            table.add_row(Text(name, style="dim"), Text(value, style="cyan", overflow="fold"))
        self._show(table)

    def part(self, text: str, *, last: bool = False) -> None:
        """Show a part of a line, at once."""
        if self._column + len(text) >= self._console.width:
            self._console.print()
            self._column = 0
        before = " " * (_INDENT if self._column == 0 else 1)
        self._console.print(Text(before + text, style="dim"), end="\n" if last else "")
        self._column = 0 if last else self._column + len(before + text)
        self._console.file.flush()

    def passed(self, claim: str) -> None:
        """Show a claim that was checked and is true."""
        table = Table.grid(padding=(0, 1))
        table.add_row(Text("✓", style="green"), Text(claim))
        self._show(table)

    def failed(self, failure: DemoFailed) -> None:
        """Show a claim that isn't true."""
        self._end_line()
        self._show(Text(f"✗ {failure.claim}", style="bold red"))
        self.facts({"expected": str(failure.expected), "found": str(failure.found)})

    def log(self, events: Sequence[AuditEvent]) -> None:
        """Show audit events, with the time since the first."""
        table = Table.grid(padding=(0, 2))
        first = next((event.time for event in events if event.time), None)
        for event in events:
            since = (event.time - first).total_seconds() if event.time and first else 0.0
            about = event.grant_id or event.task_id or ""
            table.add_row(
                Text(f"+{since:.3f} s", style="dim"),
                Text(event.type),
                Text(event.principal or ""),
                Text(about, style="dim", overflow="fold"),
            )
        self._show(table)

    def end(self, text: str, style: str) -> None:
        """Say how it went."""
        self._end_line()
        self._console.print()
        self._console.print(Text(text, style=style))

    def _end_line(self) -> None:
        if self._column:
            self._console.print()
            self._column = 0

    def _show(self, what: RenderableType) -> None:
        with self._console.capture() as capture:
            self._console.print(Padding(what, (0, 0, 0, _INDENT)))
        # rich fills every line with blanks.
        self._console.file.write("\n".join(map(str.rstrip, capture.get().split("\n"))))
        self._console.file.flush()


def tell(broker: DemoBroker, screen: Terminal) -> int:
    """Play every step; return how many claims were checked."""
    story = demo_story.Story(broker, screen)
    screen.step("A broker starts, with real servers: Valkey, OpenBao, PostgreSQL")
    began = SystemClock().monotonic()
    broker.start()
    took = SystemClock().monotonic() - began
    screen.facts({"broker": broker.places["url"], "ready after": f"{took:.1f} s"})
    first = demo_story.whole_life(story)
    demo_story.dies_by_itself(story)
    demo_story.token(story)
    demo_story.tool_calls(story)
    demo_story.crash(story)
    demo_story.revoke_all(story)
    demo_story.audit(story, first)
    demo_story.signed_log(story)
    return story.claims


def main() -> int:
    """Run the demo; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without UTF-8 gets escapes
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _end)
    screen = Terminal()
    began = SystemClock().monotonic()
    try:
        with DemoBroker() as broker:
            claims = tell(broker, screen)
    except DemoFailed as failure:
        screen.failed(failure)
        screen.end("The demo failed.", "bold red")
        return 1
    except BrokerClientError as error:
        screen.failed(DemoFailed("the broker answers", expected="an answer", found=error.detail))
        screen.end("The demo failed.", "bold red")
        return 1
    except KeyboardInterrupt:
        screen.end("Interrupted; everything was stopped and removed.", "bold yellow")
        return 128 + signal.SIGINT
    took = SystemClock().monotonic() - began
    screen.end(f"All {claims} claims were checked and are true ({took:.0f} s).", "bold green")
    screen.say("Everything was stopped and removed. To try it yourself: make dev")
    return 0


def _end(_: int, __: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
