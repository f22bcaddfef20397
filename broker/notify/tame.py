"""Words that agents and others made up, made harmless for whoever reads a message.

A purpose or a reason could mention a whole channel, forge lines, turn the text around, or show a
link to somewhere else where a person is about to click on "approve". What is left of it can be read
and does nothing, in Slack's syntax, in Markdown, in HTML and in plain text.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_TEXT: Final = 500
MAX_WORD: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]*")
_STANDS_FOR: Final = str.maketrans(
    {
        "<": "\u2039",  # tags, and Slack's mentions and links
        ">": "\u203a",
        "@": "\uff20",  # mentions of Discord, Mattermost, Teams
        "`": "'",  # the end of a code span
        "[": "(",  # Markdown's links and images
        "]": ")",
        "\u201c": "'",  # the quotes that we put around it
        "\u201d": "'",
    }
)
_MARKS: Final = 3
"""No letter of any language has more marks above and below it."""


def tame(value: object, limit: int = MAX_TEXT) -> str:
    """Return a text on one line, of at most ``limit`` characters, that nothing obeys."""
    found = str(value)[: 4 * limit]  # what is invisible counts for nothing
    kept = "".join(_visible(found))
    line = " ".join(kept.split()).translate(_STANDS_FOR)
    line = line.replace("://", "(:)//")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quoted(value: object, limit: int = MAX_TEXT) -> str:
    """Return a text as what somebody said: in quotes that it can't end."""
    return f"\u201c{tame(value, limit)}\u201d"


def word(value: object, limit: int = MAX_WORD) -> str:
    """Return a name as it is if it looks like one, and otherwise tamed and in quotes."""
    text = str(value)
    if len(text) <= limit and _NAME.fullmatch(text) and "://" not in text:
        return text
    return quoted(text, limit)


def raw(value: str, limit: int = 2 * MAX_TEXT) -> str:
    """Return a text for programs: as it was, but well-formed and not without end."""
    whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole if len(whole) <= limit else whole[: limit - 1] + "…"


def _visible(text: str) -> list[str]:
    """Leave out what has no shape of its own, or turns the direction of what follows."""
    kept: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category.startswith("M") else 0
        if category[0] == "Z" or char in "\t\n\r":
            kept.append(" ")
        elif category[0] != "C" and marks <= _MARKS:
            kept.append(char)
    return kept
