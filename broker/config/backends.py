"""Which backends there are: the broker's own, and those of other packages, ``[backends.NAME]``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from pydantic import ConfigDict, Field, ValidationInfo, model_validator

from broker.catalog import TOOL
from broker.config.fields import (
    DurationMs,
    Name,
    absolute,
    at_least,
    at_most,
    one_of,
    present_file,
)
from broker.config.problems import Fault
from broker.config.table import Keys, Table, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_FILE: Final = "_file"
_SECRET: Final = re.compile(r"(.*_)?(password|passphrase|secret|token|api_key|private_key)")

_ISSUED_KEYS: Final[Keys] = dict.fromkeys(("max_live_total", "issue_rate", "model_may_see"), False)
"""What goes with all that is issued."""

_PLUGIN_KEYS: Final[Keys] = {"path": False, "parameters": False, **_ISSUED_KEYS}
"""What goes with a backend of another package."""


class _BackendKeys(dict[str, Keys]):
    """The broker's own backends by name; to any other name another package's keys."""

    def __missing__(self, name: str) -> Keys:
        return _PLUGIN_KEYS


BACKEND_KEYS: Final[Mapping[str, Keys]] = _BackendKeys(
    {
        "vault": {
            "path": True,
            **dict.fromkeys(
                (
                    *("engine", "parameters", "dsn", "rotate", "exclusive"),
                    *("renewable_for", "krl_file"),
                ),
                False,
            ),
            **_ISSUED_KEYS,
        },
        "token": {"resource": True, "scope": False, **_ISSUED_KEYS},
        TOOL: {"tool": False, "arguments": False, "amount": False, "resource": False},
    }
)
"""The broker's own backends, and ``tool`` for what is called and not handed out."""


def known_backend(value: object, info: ValidationInfo) -> object:
    """Accept the broker's own, and those that have a table of their own in the file."""
    context: dict[str, tuple[str, ...]] = info.context or {}
    check = cast(
        "Callable[[object], object]", one_of((*BACKEND_KEYS, *context.get("backends", ()))).func
    )
    return check(value)


class BackendEntry(Table):
    """One backend; keys other than these are its own.

    ``kind`` is the entry point's name, if that isn't the backend's. A call may take ``timeout``.
    """

    model_config = ConfigDict(extra="allow")

    kind: Name | None = Field(None, examples=['"keys"'])
    timeout: Annotated[DurationMs, at_least("1s"), at_most("1m")] = written("10s")

    @model_validator(mode="before")
    @classmethod
    def _secrets_are_in_files(cls, value: object, info: ValidationInfo) -> object:
        """Resolve what names a file, and refuse what would be a secret in this one."""
        if not isinstance(value, dict):  # refused itself
            return value
        table = cast("dict[str, Any]", value)
        return {key: _option(key, item, info) for key, item in table.items()}

    @property
    def options(self) -> dict[str, Any]:
        """Its own keys; those that end in ``_file`` are absolute paths."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def secret_files(self) -> list[Path]:
        """The files that may hold secrets."""
        return [item for key, item in self.options.items() if key.endswith(_FILE)]


def _names_in(value: object) -> Iterator[str]:
    """Return the keys of the tables in a value, however deep."""
    if isinstance(value, dict):
        for key, inside in cast("dict[str, object]", value).items():
            yield key
            yield from _names_in(inside)
    elif isinstance(value, list):
        for inside in cast("list[object]", value):
            yield from _names_in(inside)


def _option(key: str, value: object, info: ValidationInfo) -> object:
    for name in (key, *_names_in(value)):
        if _SECRET.fullmatch(name.lower().replace("-", "_")):
            raise Fault(
                f"{name} would be a secret in this file",
                f"write it to a file of its own, and name that in [backends.NAME]: {name}{_FILE}",
            )
    if not key.endswith(_FILE):
        return value
    try:
        context: dict[str, object] = info.context or {}
        path = absolute(value, info)
        return path if context.get("files_may_be_missing") else present_file(path)
    except Fault as fault:
        raise Fault(f"{key} {fault.reason}", fault.suggestion) from None
