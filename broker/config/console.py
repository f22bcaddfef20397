"""``[console]``: the pages for people, and who may sign in to them."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  pydantic reads the annotations below
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from broker.config.fields import DurationMs, ExistingFile, Many, Name, Text, at_least, at_most
from broker.config.problems import Fault
from broker.config.table import Table, written


class ConsoleRoles(Table):
    """``[console.roles]``: which groups of the identity provider make somebody what."""

    viewer: Many[Text] = Field(default=(), examples=['["staff"]'])
    approver: Many[Text] = ()
    operator: Many[Text] = ()
    auditor: Many[Text] = ()


class ConsoleSection(Table):
    """``[console]``: pages at ``/console``, for people who sign in by OpenID Connect.

    ``issuer`` names an entry of ``[[identity.issuers]]``; the console is its client ``client_id``,
    with a secret, a private key (``private_key_jwt``), or neither. ``groups_claim`` of the ID token
    lists the groups that ``roles`` maps. A session ends when it was idle for ``idle``, and after
    ``max_session`` in any case; what ends everything asks who hasn't signed in within ``fresh`` to
    do that again. ``link_issuer`` names an issuer whose one-time links sign in as one of its
    principals: for a broker on this machine only, as ``broker dev`` runs one.
    """

    enabled: bool = True
    issuer: Name | None = Field(default=None, examples=['"corp"'])
    client_id: Text | None = Field(default=None, examples=['"broker-console"'])
    client_secret_file: ExistingFile | None = Field(
        default=None, examples=['"secrets/console-secret"']
    )
    client_key_file: ExistingFile | None = Field(
        default=None, examples=['"secrets/console-key.pem"']
    )
    scopes: Many[Text] = ("openid", "profile")
    groups_claim: Text = "groups"
    roles: ConsoleRoles = ConsoleRoles()
    max_session: Annotated[DurationMs, at_least("1m"), at_most("24h")] = written("12h")
    idle: Annotated[DurationMs, at_least("1m")] = written("30m")
    fresh: Annotated[DurationMs, at_least("1m"), at_most("1h")] = written("5m")
    link_issuer: Name | None = None

    @field_validator("client_id")
    @classmethod
    def _with_an_issuer(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "issuer" in info.data and (value is None) != (info.data["issuer"] is None):
            raise Fault(
                "goes with issuer, and that with it",
                'write both, such as issuer = "corp" and client_id = "broker-console"',
            )
        return value

    @field_validator("client_secret_file", "client_key_file")
    @classmethod
    def _of_a_client(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("client_id", "") is None:
            raise Fault("has no use without client_id", "name the client that it is of")
        if value is not None and info.data.get("client_secret_file") is not None:
            raise Fault("has no use beside client_secret_file", "remove one of the two")
        return value

    @field_validator("scopes")
    @classmethod
    def _openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            raise Fault(
                'lacks "openid", without which there is no ID token', 'add "openid" to the list'
            )
        return value

    @field_validator("idle")
    @classmethod
    def _within_max(cls, value: int, info: ValidationInfo) -> int:
        return cls._check_order(value, info, "max_session")
