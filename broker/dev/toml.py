"""Writes TOML, for the configuration that ``broker dev`` completes: tomllib only reads."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def dumps(document: Mapping[str, Any]) -> str:
    """Write a document as TOML that reads back the same; deeper tables are written inline."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    # Values first: below a header they would belong to its table.
    tables = {key: value for key, value in document.items() if _headers(key, value)}
    yield from _pairs({key: value for key, value in document.items() if key not in tables})
    for key, value in tables.items():
        for header, table in _headers(key, value):
            yield ""
            yield header
            yield from _pairs(table)


def _headers(key: str, value: object) -> list[tuple[str, dict[str, Any]]]:
    """Return the tables that a value is written as, each below its header; none for the rest."""
    if isinstance(value, dict):
        return [(f"[{_key(key)}]", cast("dict[str, Any]", value))]
    rows = cast("list[object]", value) if isinstance(value, list) else []
    if not all(isinstance(row, dict) for row in rows):
        return []
    return [(f"[[{_key(key)}]]", cast("dict[str, Any]", row)) for row in rows]


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        yield f"{_key(key)} = {_value(value)}"


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "a").replace("_", "a").isalnum()
    return key if bare else _text(key)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(_pairs(cast('dict[str, Any]', value)))} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, cast('list[object]', value)))}]"
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return _text(value) if isinstance(value, str) else str(value).lower()


def _text(text: str) -> str:
    # JSON's strings are TOML's, but for one character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
