"""From a template and its values to a page. What is in the values is text, never markup."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from broker.console.assets import Assets

_SECOND: Final = 1000
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class Templates:
    """The templates of the package. A name that has no value is an error, not nothing."""

    def __init__(self, base: str, assets: Assets) -> None:
        """``base`` is the console's own path, which every link starts with."""
        self._environment: Any = Environment(
            loader=PackageLoader("broker.console"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"base": base, "asset": assets.url}
        self._environment.filters |= {
            "at": at,
            "clock": clock_time,
            "span": span,
            "millis": millis,
            "clip": clip,
            "json": as_json,
        }

    def render(self, name: str, values: dict[str, Any]) -> str:
        """Return a page, or a part of one."""
        return self._environment.get_template(name).render(values)


def at(text: str) -> int:
    """Read a time as the broker's answers write it, in epoch milliseconds."""
    return int(datetime.fromisoformat(text).timestamp() * _SECOND)


def clock_time(text: str) -> str:
    """Write such a time for people: ``2026-01-31 12:00:00 UTC``."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(ms: int) -> str:
    """Write how long something is in its two largest units: ``4m 12s``; nothing is negative."""
    left, parts = max(0, ms) // _SECOND, list[str]()
    for size, unit in _UNITS:
        if left >= size or (unit == "s" and not parts) or parts:
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts[:2])


def millis(ms: int) -> str:
    """Write a short time: ``84 ms``, ``1.4 s``, ``3m 20s``."""
    if ms < _SECOND:
        return f"{ms} ms"
    return f"{ms / _SECOND:.1f} s" if ms < 60 * _SECOND else span(ms)


def clip(text: str, most: int) -> str:
    """Shorten a text to ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def as_json(value: object) -> str:
    """Write a value as JSON, for reading."""
    return json.dumps(value, ensure_ascii=False)
