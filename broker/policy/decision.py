"""What policy is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.catalog import Capability, Principal
    from broker.tasks import Task


class Effect(StrEnum):
    """What policy said."""

    ALLOW = "allow"
    DENY = "deny"
    NEEDS_APPROVAL = "needs_approval"


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer and why. ``ttl_ms`` is the longest life policy allows, 0 unless allowed.

    ``reasons`` are stable codes; ``notes`` say what was changed about the request.
    """

    effect: Effect
    reasons: tuple[str, ...]
    ttl_ms: int = 0
    notes: tuple[str, ...] = ()

    def for_audit(self, **about: object) -> dict[str, Any]:
        """Return the decision as the data of an audit event."""
        return {"effect": self.effect, "reasons": ",".join(self.reasons), **about}


@dataclass(frozen=True, slots=True)
class OpenContext:
    """A task somebody wants to open. ``agent`` is None when there is no such agent.

    ``narrowed_to`` is what the caller's token is limited to, None for all that it could have.
    """

    caller: Principal
    agent: Principal | None
    capabilities: tuple[Capability | None, ...]
    ttl_ms: int
    max_ttl_ms: int
    parent: Task | None
    max_depth: int
    narrowed_to: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class IssueContext:
    """A grant somebody wants. ``capability`` is None when the catalogue has none of that name.

    ``bound`` says that the caller's token is bound to a key it proved, ``narrowed_to`` what the
    token is limited to, None for all of the task's.
    ``asked_ttl_ms`` is 0 when the caller left it to the catalogue; ``now_ms`` is epoch
    milliseconds; ``ledger_durable`` says whether the ledger keeps what it was told; ``backlog`` is
    how many credentials of the capability could not be revoked within their budget.
    """

    caller: Principal
    agent: Principal | None
    task: Task
    capability: Capability | None
    asked_ttl_ms: int
    now_ms: int
    ledger_durable: bool
    backlog: int
    backlog_limit: int
    bound: bool = False
    narrowed_to: frozenset[str] | None = None
