"""``[policy]``: where policies are, what they are told, and who else decides."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  pydantic reads the annotations below
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from broker.catalog import Power
from broker.config.addresses import KeysUrl  # noqa: TC001  pydantic reads the annotations below
from broker.config.fields import (
    DurationMs,
    ExistingFile,
    ExistingFolder,
    Many,
    Name,
    at_least,
    at_most,
    member_of,
    optional_member_of,
    or_off,
)
from broker.config.problems import Fault
from broker.config.table import Table, written
from broker.power import PRIVATE

_Often = Annotated[DurationMs, at_least("1s"), at_most("24h")]


class RemoteMode(StrEnum):
    """Whether a decision point elsewhere is asked as well, or alone."""

    BESIDES = "besides"
    INSTEAD = "instead"


class ObserveEntry(Table):
    """Policies that are only tried out: what they would change is written into the log."""

    name: Name = Field(examples=['"stricter-egress"'])
    dir: ExistingFolder = Field(examples=['"policies-next"'])


class RemoteSection(Table):
    """``[policy.remote]``: an AuthZEN 1.0 decision point, such as OPA, Cerbos or Topaz.

    With ``besides`` it is asked about what the policies here allow, and both must; with ``instead``
    it is asked alone. ``token_file`` is sent as a bearer token.
    """

    url: KeysUrl = Field(examples=['"https://pdp.example.com/access/v1/evaluation"'])
    mode: Annotated[RemoteMode, member_of(RemoteMode)] = RemoteMode.BESIDES
    timeout: Annotated[DurationMs, at_most("30s")] = written("1s")
    token_file: ExistingFile | None = None
    ca_file: ExistingFile | None = None


class PolicySection(Table):
    """``[policy]``: ``dir`` holds the operator's ``*.cedar`` files, added to the package's.

    ``environment`` is what policies are told of where this broker stands, ``private_data`` the data
    classes that count as private. The files are looked at every ``reload``, or None: only when
    somebody asks. An allowed tool call is to be reported ``report_within``. ``require_binding`` is
    the power from which on a caller's token must be bound to a key.
    """

    dir: ExistingFolder | None = None
    environment: Name = "production"
    private_data: Many[Name] = tuple(sorted(PRIVATE))
    reload: Annotated[_Often | None, BeforeValidator(or_off)] = written("5s")
    report_within: Annotated[DurationMs, at_least("1s"), at_most("24h")] = written("15m")
    require_binding: Annotated[Power | None, optional_member_of(Power)] = None
    observe: Many[ObserveEntry] = ()
    remote: RemoteSection | None = None

    @field_validator("private_data")
    @classmethod
    def _something_private(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise Fault(
                "names no data class, so nothing would count as private",
                "name some, or remove it for the default",
            )
        return value

    @property
    def private(self) -> frozenset[str]:
        """The data classes that count as private."""
        return frozenset(self.private_data)

    @property
    def watched(self) -> tuple[tuple[str, Path], ...]:
        """Each set that is tried out: its name and its folder."""
        return tuple((entry.name, entry.dir) for entry in self.observe)
