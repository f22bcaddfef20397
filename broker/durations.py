"""Durations as people write them: ``"90s"``, ``"15m"``, ``"1h30m"``, ``"7d"``."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_PATTERN: Final = re.compile(
    r"(?:(?P<d>\d{1,9})d)?(?:(?P<h>\d{1,9})h)?(?:(?P<m>\d{1,9})m(?!s))?"
    r"(?:(?P<s>\d{1,9})s)?(?:(?P<ms>\d{1,9})ms)?",
    re.ASCII,
)
MAX_MS: Final = 3650 * 86_400_000


def parse_duration(text: str) -> int:
    """Return the milliseconds of a duration like ``"1h30m"``.

    Raises:
        ValueError: not a duration, zero, or over ten years; the message says what to write.
    """
    match = _PATTERN.fullmatch(text) if text else None
    if match is None:
        msg = f"{text!r} is not a duration: write a number and a unit, such as 30s, 15m, 1h30m, 7d"
        raise ValueError(msg)
    total = sum(int(match[unit]) * ms for unit, ms in _UNITS.items() if match[unit])
    if not 0 < total <= MAX_MS:
        msg = f"{text!r} is out of range: a duration is more than zero and at most 3650d"
        raise ValueError(msg)
    return total


def format_duration(milliseconds: int) -> str:
    """Write milliseconds as the shortest exact duration, such as ``"1h30m"``."""
    parts: list[str] = []
    rest = milliseconds
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
