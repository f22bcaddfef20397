"""Problems in a configuration file: where each is, why, and what to write instead.

Rules raise ``Fault``, which knows no place. Here faults, and the errors of the models themselves,
get the line and the key they belong to, and all of them become one ``ConfigError``. The value
that was refused is never shown unless the rule itself put it into its text: it may be a secret
that was written where a file name belongs.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel

from broker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Loc = tuple[str | int, ...]
"""The way to a value: table and key names, and indexes into arrays."""


MAX_SHOWN: Final = 80
"""As much of a value as an error text repeats."""


class Fault(ValueError):
    """What is wrong with a value, and what to write instead."""

    def __init__(self, reason: str, suggestion: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault and its place in the file."""

    file: str
    line: int
    key: str
    reason: str
    suggestion: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        hint = f"\n    {self.suggestion}" if self.suggestion else ""
        return f"{self.file}:{self.line}: {key}{self.reason}{hint}"


def config_error(path: Path, text: str, faults: Iterable[tuple[Loc, Fault]]) -> ConfigError:
    """Put every fault in its place; the error's ``problems`` hold the same for programs."""
    lines = key_lines(text)
    problems = [
        Problem(str(path), _line_of(loc, lines), dotted(loc), fault.reason, fault.suggestion)
        for loc, fault in faults
    ]
    problems.sort(key=lambda problem: problem.line)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    detail = "\n".join([f"{path} has {count}:", *map(str, problems)])
    return ConfigError(detail, problems=[asdict(problem) for problem in problems])


def dotted(loc: Loc) -> str:
    """Write the way to a key as TOML does, with indexes: ``principals[1].identity.issuer``."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if bare else json.dumps(part))
    return text


def did_you_mean(written: str, allowed: Collection[str], noun: str = "allowed here") -> str:
    """Suggest the one name that was probably meant, or list them all."""
    close = difflib.get_close_matches(written.lower(), allowed, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"{noun}: {', '.join(allowed)}" if allowed else f"{noun}: none"


def shown(value: str) -> str:
    """Quote a value for an error text, on one line and not too long."""
    return repr(value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 1] + "…")


# ── where ────────────────────────────────────────────────────────────────────────────────────────

_STATEMENT: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*(\[\[?)?")
_KEY: Final = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*(\.)?""")
_VALUE_PART: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
    r"|\#[^\n]*"
    r"|[^\"'\#\n\[\]{}]+"
    r"|.",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Loc, int]:
    """Return the line of every table and key of a TOML text, which has to be valid.

    ``tomllib`` tells no places. Inline tables and arrays are one value: what is in them has the
    line of their key.
    """
    text = text.replace("\r\n", "\n")
    breaks = [match.start() for match in re.finditer("\n", text)]
    lines: dict[Loc, int] = {}
    tables: dict[Loc, int] = {}  # how many elements each array of tables has so far
    table: Loc = ()
    position = 0
    while (start := _STATEMENT.match(text, position)) and start.end() < len(text):
        keys, position = _read_keys(text, start.end())
        line = bisect_left(breaks, position) + 1
        if not keys:
            break  # not valid TOML; tomllib has said so already
        if start[1]:
            table = _enter(keys, tables, is_array=start[1] == "[[")
            lines[table] = line
            position = max(position, text.find("]", position) + len(start[1]))
        else:
            position = _skip_value(text, position)
        loc = table if start[1] else (*table, *keys)
        for length in range(1, len(loc) + 1):
            lines.setdefault(loc[:length], line)
    return lines


def _read_keys(text: str, position: int) -> tuple[Loc, int]:
    """Read a key, dotted or not, and return its parts and where it ends."""
    keys: list[str] = []
    while match := _KEY.match(text, position):
        position = match.end()
        keys.extend(tomllib.loads(f"{match[1]} = 0"))  # unquoted, its escapes resolved
        if not match[2]:
            break
    return tuple(keys), position


def _enter(keys: Loc, tables: dict[Loc, int], *, is_array: bool) -> Loc:
    """Return the way to the table a header opens: the last element of each array on it."""
    loc: Loc = ()
    for number, key in enumerate(keys, start=1):
        loc = (*loc, key)
        if is_array and number == len(keys):
            tables[loc] = tables.get(loc, 0) + 1
        if loc in tables:
            loc = (*loc, tables[loc] - 1)
    return loc


def _skip_value(text: str, position: int) -> int:
    """Return where the value ends: at the line break outside of strings and brackets."""
    depth = 0
    while part := _VALUE_PART.match(text, position):
        if part[0] == "\n" and depth == 0:
            break
        depth += (part[0] in "[{") - (part[0] in "]}")
        position = part.end()
    return position


def _line_of(loc: Loc, lines: dict[Loc, int]) -> int:
    """Return the line of a key, or of the innermost table around it that is written."""
    return next((lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in lines), 1)


# ── why, and what to write ───────────────────────────────────────────────────────────────────────

_TYPES: Final = {
    "string_type": ("a string", 'write it in quotes, such as "text"'),
    "int_type": ("an integer", "write digits only, without quotes"),
    "bool_type": ("true or false", "write true or false, without quotes"),
    "tuple_type": ("an array", "write it in brackets; an array of tables as [[{key}]]"),
    "dict_type": ("a table", "write a table for each: [{key}.NAME]"),
    "model_type": ("a table", "write {header} on a line of its own and its keys below"),
}

UNNAMED: Final = "is not a value that can be used here"
"""For errors of pydantic that have no words here. A test looks for such."""


def model_faults(error: ValidationError, root: type[BaseModel]) -> Iterator[tuple[Loc, Fault]]:
    """Put the errors of a model in our words; ``root`` is the model of the whole file."""
    for details in error.errors(include_url=False):
        yield details["loc"], _fault(details, root)


def _fault(details: ErrorDetails, root: type[BaseModel]) -> Fault:
    kind, loc = details["type"], details["loc"]
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, Fault):
        return cause
    if kind == "missing":
        return _missing(loc, root)
    if kind == "extra_forbidden":
        noun = "section" if len(loc) == 1 else "key"
        allowed = _model_at(loc[:-1], root).model_fields
        return Fault(f"unknown {noun}", did_you_mean(str(loc[-1]), allowed))
    if kind in _TYPES:
        noun, suggestion = _TYPES[kind]
        key = dotted(tuple(part for part in loc if isinstance(part, str)))
        header = f"[{key}]" if isinstance(loc[-1], str) else f"[[{key}]]"
        return Fault(
            f"must be {noun}, not {type_word(details['input'])}",
            suggestion.format(key=key, header=header),
        )
    return Fault(UNNAMED)


def _missing(loc: Loc, root: type[BaseModel]) -> Fault:
    key = str(loc[-1])
    model = _model_at(loc, root)
    if model is not _model_at(loc[:-1], root) and len(loc) == 1:
        needed = [name for name, field in model.model_fields.items() if field.is_required()]
        return Fault("this section is missing", f"add [{key}] with {', '.join(needed)}")
    return Fault("is missing", how_to_write(_model_at(loc[:-1], root), key))


def how_to_write(model: type[BaseModel], key: str) -> str:
    """Return a line to add to the file, made of the example the field carries."""
    examples = model.model_fields[key].examples or ["…"]
    return f"add {key} = {examples[0]}"


def _model_at(loc: Loc, root: type[BaseModel]) -> type[BaseModel]:
    """Return the model of the innermost table on the way to a value."""
    model = root
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  any type expression
    """Return the model in an annotation such as ``Section``, ``Section | None``, an array of it."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def type_word(value: object) -> str:
    """Name the type of a TOML value in plain words."""
    words: tuple[tuple[type, str], ...] = (
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a number"),
        (str, "a string"),
        (list, "an array"),
        (dict, "a table"),
    )
    return next((word for kind, word in words if isinstance(value, kind)), "a date or time")
