"""An exact request, spelled out for whoever has to say yes: no value looks like another.

Pure: what a terminal or a page makes of it is theirs.
"""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Member(NamedTuple):
    """A member of a request. ``text`` is its value as JSON; what can't be seen is escaped there.

    ``odd`` names the letters of either that aren't plain ones, and may look like others;
    ``lasts_ms`` is how long it is, if it is a time.
    """

    name: str
    text: str
    odd: tuple[str, ...]
    lasts_ms: int | None


def spelled(request: Mapping[str, Any]) -> Iterator[Member]:
    """Spell out a request, a member at a time and none left out."""
    for name, value in dict(_flat(request)).items():
        text = json.dumps(value, ensure_ascii=False)
        lasts = value if name.endswith("_ms") and isinstance(value, int) else None
        yield Member(_visible(name), _visible(text), _odd(name + text), lasts)


def _visible(text: str) -> str:
    """Escape what isn't seen, or changes how the rest is seen: control, format, odd spaces."""
    return "".join(char if char == " " or _is_seen(char) else _escaped(char) for char in text)


def _is_seen(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CZ"


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"  # noqa: PLR2004  the last of the first plane


def _odd(text: str) -> tuple[str, ...]:
    found = dict.fromkeys(char for char in text if not char.isascii())
    return tuple(unicodedata.name(char, f"U+{ord(char):04X}").lower() for char in found)


def _flat(members: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in members.items():
        # A name with a dot could pass for a member of another.
        plain = name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)
        if isinstance(value, dict) and value:
            yield from _flat(cast("Mapping[str, Any]", value), f"{above}{plain}.")
        else:
            yield f"{above}{plain}", value
