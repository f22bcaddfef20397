"""``[approvals]`` and ``[elevation]``: who says yes to what, and how long that is good for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from broker.approvals import Group
from broker.config.fields import Count, DurationMs, Many, Name, at_least, at_most
from broker.config.problems import Fault
from broker.config.table import Table, written

_Wait = Annotated[DurationMs, at_least("1s"), at_most("7d")]


class GroupEntry(Table):
    """Operators who approve what a policy's ``@approvers`` names them for.

    While a request has waited for ``escalate_after`` the group ``escalate_to`` is asked as well.
    """

    name: Name = Field(examples=['"security"'])
    members: Many[Name] = Field(examples=['["alice", "bob"]'])
    escalate_to: Name | None = None
    escalate_after: _Wait | None = None

    @field_validator("members")
    @classmethod
    def _somebody(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise Fault(
                "names nobody, so nobody could approve", "name principals with role operator"
            )
        return value

    @field_validator("escalate_after")
    @classmethod
    def _with_a_group(cls, value: int | None, info: ValidationInfo) -> int | None:
        to = info.data.get("escalate_to")
        if to and to == info.data.get("name"):
            raise Fault("leads back to this group", "name another group in escalate_to")
        if (value is None) != (to is None):
            raise Fault(
                "goes with escalate_to, and that with it",
                'write both, such as escalate_to = "leads" and escalate_after = "10m"',
            )
        return value

    def group(self) -> Group:
        """Return it as the rules know it."""
        return Group(
            self.name, frozenset(self.members), self.escalate_to or "", self.escalate_after or 0
        )


class ApprovalsSection(Table):
    """``[approvals]``: a request waits for ``ttl``, and a yes is good for ``use_within``.

    A task may wait for ``max_pending`` at a time.
    """

    ttl: _Wait = written("1h")
    use_within: _Wait = written("15m")
    max_pending: Count = 20
    groups: Many[GroupEntry] = ()


class ElevationSection(Table):
    """``[elevation]``: how long a task may have more. Policies may shorten all of these.

    One asked for without a time lasts ``ttl``, and never longer than ``max_ttl``; a break-glass
    lasts ``break_glass``. It ends when the task is silent for ``heartbeat``.
    """

    max_ttl: Annotated[DurationMs, at_most("24h")] = written("30m")
    ttl: DurationMs = written("10m")
    break_glass: Annotated[DurationMs, at_most("1h")] = written("5m")
    heartbeat: Annotated[DurationMs, at_least("1s"), at_most("1h")] = written("1m")

    @field_validator("ttl")
    @classmethod
    def _within_max(cls, value: int, info: ValidationInfo) -> int:
        return cls._check_order(value, info, "max_ttl")
