"""Structured logs to standard error, one line an event, never a secret.

Of an exception only its type and where it was raised are written: messages and local variables of
code that handles credentials can hold them.

A line written while a request is served, or a sweep goes on, has its ``trace_id`` and ``span_id``.
Ids are ``task``, ``grant`` and ``decision``, as in audit events and spans.
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from broker import tracing

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger


class _Lines(structlog.PrintLogger):
    """Writes lines. One that can't be written is lost, and whoever wanted to write it goes on.

    Where standard error is a file on a full disk, or a pipe that nobody reads any more, a sweep or
    the process would end of it otherwise.
    """

    def msg(self, message: str) -> None:
        """Write a line."""
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def configure(*, json: bool, level: str = "info") -> None:
    """Send the broker's log lines to standard error, as JSON or for a person to read."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _trace_ids,
            _exception_places,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        # Looked up anew each time: whoever redirects standard error means our lines too.
        logger_factory=lambda *_: _Lines(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Any:  # noqa: ANN401  structlog types its loggers as Any
    """Return a logger whose lines carry ``module=name``."""
    return structlog.get_logger(module=name)


def _trace_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.update(tracing.ids())
    return event


def _exception_places(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
        event["exception"] = f"{type(error).__name__} at {places}"
    return event


# Safe from the first line on: what structlog does unasked prints local variables.
configure(json=False)
