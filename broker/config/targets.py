"""``[[targets]]`` and ``[reconcile]``: whose accounts are looked at, and how often."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from broker.config.fields import (
    DurationMs,
    ExistingFile,
    Many,
    Name,
    at_least,
    at_most,
    member_of,
    or_off,
    pattern,
)
from broker.config.problems import Fault
from broker.config.table import Keys, Table, written

if TYPE_CHECKING:
    from collections.abc import Mapping


class TargetKind(StrEnum):
    """What a target is, so how its accounts are listed and ended."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    RABBITMQ = "rabbitmq"
    VALKEY = "valkey"


_KIND_KEYS: Final[Mapping[str, Keys]] = {
    TargetKind.POSTGRESQL: {},
    TargetKind.MYSQL: {"ca_file": False},
    TargetKind.RABBITMQ: {"ca_file": False},
    TargetKind.VALKEY: {},
}
_Accounts = Annotated[
    str,
    pattern(
        r"[A-Za-z0-9._@-]{3}[A-Za-z0-9._@*?-]{0,125}",
        "would take in accounts that aren't the broker's",
        'begin with three characters or more of those that all of them share: "v-token-br*"',
    ),
]


class TargetEntry(Table):
    """``[[targets]]``: a system that credentials are for, asked which accounts it has.

    ``dsn_file`` holds a URL with the user and password to ask with. Accounts that ``accounts``
    matches (``*`` and ``?``) are the broker's, made for ``capabilities``: one of them that nobody
    has is an orphan. With ``lockout`` those that are to be revoked are shut out there at once,
    before Vault ends them.
    """

    name: Name = Field(examples=['"orders"'])
    kind: Annotated[TargetKind, member_of(TargetKind)] = Field(examples=['"postgresql"'])
    dsn_file: ExistingFile = Field(examples=['"secrets/orders-dsn"'])
    accounts: _Accounts = Field(examples=['"v-token-br*"'])
    capabilities: Many[Name] = Field(examples=['["orders-read"]'])
    ca_file: ExistingFile | None = None
    lockout: bool = True

    @field_validator("capabilities")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise Fault("names no capability", "name those whose accounts are made there")
        return value

    @field_validator("ca_file")
    @classmethod
    def _goes_with_kind(cls, value: object, info: ValidationInfo) -> object:
        cls._check_key(value, info, "kind", _KIND_KEYS)
        return value


class ReconcileSection(Table):
    """``[reconcile]``: how often ledger, backends and targets are compared, and what follows.

    What is found is ended only if it was ``shown`` at most so long ago: by hand, or with ``apply``
    by the run before.
    """

    every: Annotated[
        Annotated[DurationMs, at_least("1m"), at_most("7d")] | None, BeforeValidator(or_off)
    ] = written("1h")
    apply: bool = False
    shown: Annotated[DurationMs, at_least("1m"), at_most("1d")] = written("15m")
