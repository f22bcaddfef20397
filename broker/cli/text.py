"""Words for people: safe to print, and times as people say them.

A purpose, a reason or a name is whatever an agent wrote. Printed as it is, it could move the
cursor, recolour the screen or hide what follows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def clean(text: str) -> str:
    """Return the text with whatever isn't a visible character or a space written as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def ago(moment: datetime | None, now: float) -> str:
    """Say how far away a moment is, in its two largest units: ``in 4m 10s``, ``3h ago``."""
    if moment is None:
        return "-"
    seconds = round(moment.timestamp() - now)
    if seconds == 0:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def span(seconds: int) -> str:
    """Write a length of time in its two largest units: ``4m 10s``."""
    parts: list[str] = []
    rest = seconds
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"


def clipped(text: str, width: int) -> str:
    """Return a text on one line and no longer than ``width``, with a mark where it is cut."""
    one = " ".join(text.split())
    return one if len(one) <= width else one[: width - 1].rstrip() + "…"


def when(moment: datetime | None, now: float) -> str:
    """Write a moment as UTC and as seen from now; a dash if there is none."""
    if moment is None:
        return "-"
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ} ({ago(moment, now)})"


def plural(count: int, noun: str) -> str:
    """Write ``1 grant``, ``2 grants``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
