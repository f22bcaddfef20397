"""``--watch``: what a command shows, shown again and again, until interrupted."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json as jsonlib
import shutil
import sys
import time
from collections.abc import Callable, Generator
from typing import Annotated, Any, Final, ParamSpec, TextIO, cast

from cyclopts import Group, Parameter

from broker.cli import output
from broker.cli.refusals import UsageError
from broker.durations import parse_duration

P = ParamSpec("P")
EVERY_S: Final = 2.0
_LEAST_S: Final = 0.2
Watch = Annotated[
    bool | str,
    Parameter(
        name="--watch",
        negative="",
        show_default=False,
        metavar="[TIME]",
        help="Show it again every two seconds, or every TIME, until Ctrl-C. With --json one "
        "document a line, whenever it has changed.",
        group=Group("Connection", sort_key=30),
    ),
]


def watchable(command: Callable[P, None]) -> Callable[P, None]:
    """Give a command that only shows something an option to show it again and again."""
    shown = inspect.signature(command)

    @functools.wraps(command)
    def again(*args: P.args, **kwargs: P.kwargs) -> None:
        options = cast("dict[str, Any]", kwargs)
        watch = options.pop("watch", False)
        if watch is False:
            command(*args, **kwargs)
            return
        connection = options.get("connection")
        pause_s = every(watch)
        watch_it(
            lambda: command(*args, **kwargs), pause_s, json=bool(connection and connection.json)
        )

    option = inspect.Parameter(
        "watch", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Watch
    )
    more = [*shown.parameters.values(), option]
    vars(again)["__signature__"] = shown.replace(parameters=more)
    again.__annotations__ = {**command.__annotations__, "watch": Watch}
    return again


def every(watch: bool | str) -> float:  # noqa: FBT001  the option's value
    """Return how many seconds to leave between two looks.

    Raises:
        UsageError: what was given is no time.
    """
    if watch is True:
        return EVERY_S
    try:
        return max(parse_duration(str(watch)) / 1000, _LEAST_S)
    except ValueError:
        said = "--watch takes a time, such as 5s, or nothing: give it last"
        raise UsageError(said) from None


def watch_it(show: Callable[[], None], pause_s: float, *, json: bool) -> None:
    """Show something until interrupted; what fails after a first look may not fail again."""
    from broker.cli.approval_watch import PASSING

    last, terminal = "", sys.stdout.isatty()
    while True:
        frame = _Frame(sys.stdout)
        try:
            with _drawn(frame):
                show()
        except PASSING as error:
            if not last:
                raise
            output.note(f"{error.detail.rstrip('.')}. Trying again every {pause_s:g}s")
        else:
            text = frame.getvalue()
            if json:
                text = jsonlib.dumps(jsonlib.loads(text), separators=(",", ":")) + "\n"
            if not json or text != last:
                _draw(text, terminal=terminal and not json, first=not last)
            last = text
        time.sleep(pause_s)


class _Frame(io.StringIO):
    """What is to be shown next; it looks like where it will be shown."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextlib.contextmanager
def _drawn(frame: _Frame) -> Generator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(frame))
        if sys.stderr.isatty() and frame.isatty():  # notes would scroll the screen away
            stack.enter_context(contextlib.redirect_stderr(frame))
        yield


def _draw(text: str, *, terminal: bool, first: bool) -> None:
    if terminal:
        lines, most = text.splitlines(), shutil.get_terminal_size().lines - 1
        if len(lines) > most > 1:
            left = len(lines) - most + 1
            lines = [*lines[: most - 1], f"… {left} more lines: make the window higher"]
        output.erase()
        text = "".join(f"{line}\n" for line in lines)
    elif not first:
        sys.stdout.write("" if text.startswith("{") else "\n")
    sys.stdout.write(text)
    sys.stdout.flush()
