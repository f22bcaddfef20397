"""The kinds of values a configuration holds: each checks one value and says what to write."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Strict, ValidationInfo

from broker.config.problems import MAX_SHOWN, Fault, did_you_mean, shown, type_word
from broker.durations import format_duration, parse_duration
from broker.identity.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from enum import StrEnum

T = TypeVar("T")

Many = Annotated[tuple[T, ...], Strict(strict=False)]
"""An array. TOML yields lists, which strict models would refuse for a tuple."""


# ── numbers and durations ────────────────────────────────────────────────────────────────────────


def between(low: int, high: int) -> AfterValidator:
    """Accept integers from ``low`` to ``high``."""

    def check(value: int) -> int:
        if not low <= value <= high:
            raise Fault(f"must be from {low} to {high}")
        return value

    return AfterValidator(check)


Count = Annotated[int, between(1, 1_000_000)]


def _duration(value: object) -> object:
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except ValueError as error:
            # Its text repeats the whole value.
            long = len(value) > MAX_SHOWN
            raise Fault(f"{shown(value)} is not a duration" if long else str(error)) from None
    raise Fault(
        f"must be a duration in quotes, not {type_word(value)}",
        'write a number and a unit, such as "30s", "15m", "1h30m"',
    )


DurationMs = Annotated[int, BeforeValidator(_duration)]
"""A duration as people write it, held in milliseconds."""


def at_most(limit: str) -> AfterValidator:
    """Accept durations up to ``limit``."""

    def check(value: int) -> int:
        if value > parse_duration(limit):
            raise Fault(f"{format_duration(value)} is too long", f'write "{limit}" or less')
        return value

    return AfterValidator(check)


def at_least(limit: str, why: str = "") -> AfterValidator:
    """Accept durations from ``limit`` on; ``why`` shorter ones won't do."""

    def check(value: int) -> int:
        if value < parse_duration(limit):
            raise Fault(f"{format_duration(value)} is too short{why}", f'write "{limit}" or more')
        return value

    return AfterValidator(check)


def _whole_seconds(value: int) -> int:
    if value % 1000:
        raise Fault(f"{format_duration(value)} is not a whole number of seconds", 'such as "30s"')
    return value


WholeSeconds = Annotated[DurationMs, AfterValidator(_whole_seconds)]
"""A duration, in milliseconds still, for a place where only seconds can be told apart."""


def or_off(value: object) -> object:
    """Read ``"off"`` as None: what is written there doesn't happen by itself."""
    return None if value == "off" else value


def _byte_count(value: object) -> object:
    """Sizes are small powers of two or plain numbers; nobody needs fractions of them."""
    match = re.fullmatch(r"([0-9]{1,9})(KiB|MiB)", value) if isinstance(value, str) else None
    if match:
        return int(match[1]) << {"KiB": 10, "MiB": 20}[match[2]]
    if isinstance(value, bool) or not isinstance(value, int):
        raise Fault("is not a size", 'write "64KiB", "1MiB", or a number of bytes')
    return value


ByteCount = Annotated[int, BeforeValidator(_byte_count), between(1024, 64 << 20)]


def _day(value: object) -> object:
    # A time of day is a date to Python.
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise Fault(f"must be a date, not {type_word(value)}", "write it without quotes: 2027-01-31")


Day = Annotated[date, BeforeValidator(_day)]
"""A date, as TOML has it."""


def end_of_day(day: date) -> int:
    """Return when a day ends in UTC, in epoch milliseconds."""
    return int(datetime.combine(day, time.max, UTC).timestamp() * 1000)


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def pattern(regex: str, reason: str, suggestion: str) -> AfterValidator:
    """Accept strings that match as a whole."""

    def check(value: str) -> str:
        if re.fullmatch(regex, value) is None:
            raise Fault(f"{shown(value)} {reason}", suggestion)
        return value

    return AfterValidator(check)


def one_of(allowed: Collection[str], kind: type[StrEnum] | None = None) -> BeforeValidator:
    """Accept one of a few words, as a member of ``kind`` if that is given."""

    def check(value: object) -> object:
        if not isinstance(value, str):
            raise Fault(
                f"must be a string, not {type_word(value)}", f"one of: {', '.join(allowed)}"
            )
        if value not in allowed:
            close = did_you_mean(value, allowed)
            every = f"one of: {', '.join(allowed)}"
            suggestion = f"{close} ({every})" if close.startswith("did") else every
            raise Fault(f"{shown(value)} is not known here", suggestion)
        return kind(value) if kind else value

    return BeforeValidator(check)


def member_of(kind: type[StrEnum]) -> BeforeValidator:
    """Accept the values of an enumeration."""
    return one_of([member.value for member in kind], kind)


def optional_member_of(kind: type[StrEnum]) -> BeforeValidator:
    """Accept the values of an enumeration, and nothing at all."""
    check = cast("Callable[[object], object]", member_of(kind).func)
    return BeforeValidator(lambda value: None if value is None else check(value))


one_line: Final = pattern(
    r"(?=.*\S)[^\x00-\x1f\x7f]{1,1024}",
    "is empty, too long, or holds control characters",
    "write one line of text, of at most 1024 characters",
)
Text = Annotated[str, one_line]

name: Final = pattern(
    r"[a-z0-9][a-z0-9._-]{0,63}",
    "is not a name",
    "use 1 to 64 of a-z, 0-9, dot, underscore and hyphen, the first a letter or a digit",
)
Name = Annotated[str, name]

Effect = Annotated[
    str,
    pattern(
        r"[a-z]+:[a-z0-9._-]+", "is not an effect", 'write verb:object, such as "reads:orders"'
    ),
]

ToolName = Annotated[
    str,
    pattern(
        r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}",
        "is not the name of a tool",
        "use 1 to 128 letters, digits, dot, underscore, hyphen, colon and slash",
    ),
]

Host = Annotated[
    str,
    pattern(
        r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?",
        "is not a host",
        'write host or host:port in lower case, such as "keys.example.com"',
    ),
]

VaultName = Annotated[
    str,
    pattern(
        r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*",
        "can't be used in a Vault path",
        "use letters, digits, dot, underscore, hyphen, and slashes between them",
    ),
]


def _claim_rule(value: object) -> Rule:
    try:
        return Rule.parse(value)
    except ValueError as error:
        raise Fault("is not a rule", str(error)) from None


ClaimRule = Annotated[Rule, BeforeValidator(_claim_rule)]
"""What a claim must be: a value, a list of values, or ``{ match = "pattern" }``."""


def _claim_rules(value: object) -> dict[str, Rule]:
    if not isinstance(value, dict) or not value:
        raise Fault("names no claim", 'such as { repository_id = "74" }')
    table = cast("dict[str, object]", value)
    return {name: _claim_rule(written) for name, written in table.items()}


ClaimRules = Annotated[dict[str, Rule], BeforeValidator(_claim_rules)]
"""Rules by the names of their claims."""


def credential_path(value: str) -> str:
    """Refuse whatever could make a capability reach into Vault itself."""
    segments = value.split("/")
    if re.fullmatch(r"[A-Za-z0-9_./-]+", value) is None or {"", ".", ".."} & set(segments):
        raise Fault(
            f"{shown(value)} is not a path of a secrets engine",
            "use letters, digits, dot, underscore and hyphen between single slashes, "
            'such as "database/creds/orders-read"',
        )
    if segments[0] in {"sys", "auth", "identity", "cubbyhole"}:
        raise Fault(
            f"{shown(value)} is a path of Vault's own, which no capability may reach",
            'name a path of a secrets engine, such as "database/creds/orders-read"',
        )
    return value


CredentialPath = Annotated[str, AfterValidator(credential_path)]


def _rotates(value: str) -> str:
    """Accept what rotates something; a write to another path could do anything there."""
    if not {"rotate-root", "rotate-role"} & set(value.split("/")[1:]):
        raise Fault(
            f"{shown(value)} doesn't rotate anything",
            'name a rotate-root or rotate-role, such as "database/rotate-root/orders"',
        )
    return value


RotationPath = Annotated[CredentialPath, AfterValidator(_rotates)]


def _dsn(value: str) -> str:
    """Accept exactly the two placeholders, so that filling them in can reach nothing else."""
    names = re.findall(r"\{([^{}]*)\}", value)
    if sorted(names) != ["password", "username"] or re.search(
        r"[{}]", re.sub(r"\{\w+\}", "", value)
    ):
        raise Fault(
            "must hold the placeholders {username} and {password}, once each, and no other braces",
            'such as "postgresql://{username}:{password}@db.example:5432/orders"',
        )
    return value


DsnTemplate = Annotated[Text, AfterValidator(_dsn)]


# ── files ────────────────────────────────────────────────────────────────────────────────────────


_RELATIVE: Final = "relative paths are relative to the folder of the configuration file"


def absolute(value: object, info: ValidationInfo) -> Path:
    """Resolve a path against the folder of the configuration file."""
    if not isinstance(value, str | Path) or not str(value):
        raise Fault(
            "is empty" if value == "" else f"must be a path in quotes, not {type_word(value)}",
            _RELATIVE,
        )
    context: dict[str, Path] = info.context or {}
    return context.get("folder", Path()).absolute() / value


def _present(is_there: Callable[[Path], bool], what: str) -> Callable[[Path], Path]:
    def check(path: Path) -> Path:
        name = str(path) if str(path).isprintable() else repr(str(path))
        try:
            if is_there(path):
                return path
            reason = f"{name} is not a {what}" if path.exists() else f"there is no {what} {name}"
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            reason = f"{name} can't be looked at: {why}"
        raise Fault(reason, _RELATIVE)

    return check


present_file: Final = _present(Path.is_file, "file")


def _file(path: Path, info: ValidationInfo) -> Path:
    """Want the file to be there, unless whoever loads is about to write it."""
    context: dict[str, object] = info.context or {}
    return path if context.get("files_may_be_missing") else present_file(path)


ExistingFile = Annotated[Path, BeforeValidator(absolute), AfterValidator(_file)]
ExistingFolder = Annotated[
    Path, BeforeValidator(absolute), AfterValidator(_present(Path.is_dir, "folder"))
]


def _not_a_file(path: Path) -> Path:
    """Accept what is no folder yet: the state folder is made when it is first needed."""
    try:
        in_the_way = path.exists() and not path.is_dir()
    except (OSError, ValueError):
        in_the_way = True
    if in_the_way:
        raise Fault(f"{shown(str(path))} is not a folder", "name a folder; it may not exist yet")
    return path


StateFolder = Annotated[Path, BeforeValidator(absolute), AfterValidator(_not_a_file)]


def _not_a_folder(path: Path) -> Path:
    """Accept what is no file yet: it is made when it is first needed."""
    try:
        in_the_way = path.exists() and not path.is_file()
    except (OSError, ValueError):
        in_the_way = True
    if in_the_way:
        raise Fault(f"{shown(str(path))} is not a file", "name a file; it may not exist yet")
    return path


StateFile = Annotated[Path, BeforeValidator(absolute), AfterValidator(_not_a_folder)]
