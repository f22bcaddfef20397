"""Signals that would end us, as exceptions: what was begun is ended first."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Generator

_ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """We were told to end."""

    def __init__(self, number: int) -> None:
        """``number`` is the signal's."""
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells have it."""
        return 128 + self.number


@contextmanager
def interruptible() -> Generator[None]:
    """Raise ``Interrupted`` at a signal that would have ended us; what is ignored stays so."""
    before = {n: signal.getsignal(n) for n in _ENDING}
    kept = {n: handler for n, handler in before.items() if handler is not signal.SIG_IGN}
    for number in kept:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _raise(number: int, _: object) -> NoReturn:
    raise Interrupted(number)
