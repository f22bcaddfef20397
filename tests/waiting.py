"""The one way tests wait for real servers: ask again until the answer is yes, or time is up."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

WITHIN_S: Final = 30.0
_POLL_S: Final = 0.02


async def wait_until(
    ask: Callable[[], Awaitable[T]], what: str, *, within_s: float = WITHIN_S
) -> T:
    """Return the first answer that is true; fail with the last one when time is up."""
    deadline = time.monotonic() + within_s
    while not (answer := await ask()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}; last: {answer!r}"
        await asyncio.sleep(_POLL_S)
    return answer
