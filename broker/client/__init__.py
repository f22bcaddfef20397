"""The client of the broker, for orchestrators, agents and operators.

    from broker.client import Client

    with Client() as broker:
        task = broker.open_task("report-writer", "nightly report", ["orders-read"], ttl="15m")

It speaks the public HTTP contract and imports none of the server. ``AsyncClient`` has the same
methods to await. Every error is a ``BrokerClientError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from broker.client.approvals import Approval, ApprovalNeed, Elevation, Vote
from broker.client.credential import Credential
from broker.client.decisions import Execution, ToolDecision
from broker.client.environment import Identity, token_file
from broker.client.errors import (
    ApprovalDenied,
    ApprovalRequired,
    BrokerClientError,
    Conflict,
    ConnectionFailed,
    Denied,
    InvalidRequest,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
)
from broker.client.messages import Page
from broker.client.models import (
    AuditEvent,
    Freeze,
    Grant,
    GrantCounts,
    IssuedGrant,
    MovedOwner,
    MovedPrincipal,
    Owner,
    Principal,
    Quota,
    Receipt,
    RenewedGrant,
    ReportedSignal,
    Revocation,
    RotatedKey,
    ShownPrincipal,
    Signal,
    SigningKey,
    Task,
    TaskEnd,
)
from broker.client.policy import (
    Candidate,
    ExplainedDecision,
    Policies,
    Policy,
    PolicySet,
    ReloadedPolicies,
    WhoCan,
)
from broker.client.power import (
    AgentPower,
    CapabilityUse,
    ChainPower,
    Power,
    PowerRange,
    TaskPower,
    TrailPower,
    UnusedPower,
)
from broker.client.reconciling import Disagreement, Quarantine, Reconciliation
from broker.client.tree import (
    ChainDone,
    PowerLevel,
    TaskTree,
    TreeNode,
)
from broker.secret import Secret

if TYPE_CHECKING:
    from broker.client.aio import AsyncClient
    from broker.client.sync import Client

__all__ = [
    "AgentPower",
    "Approval",
    "ApprovalDenied",
    "ApprovalNeed",
    "ApprovalRequired",
    "AsyncClient",
    "AuditEvent",
    "BrokerClientError",
    "Candidate",
    "CapabilityUse",
    "ChainDone",
    "ChainPower",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Credential",
    "Denied",
    "Disagreement",
    "Elevation",
    "Execution",
    "ExplainedDecision",
    "Freeze",
    "Grant",
    "GrantCounts",
    "Identity",
    "InvalidRequest",
    "IssuedGrant",
    "MovedOwner",
    "MovedPrincipal",
    "NotFound",
    "Owner",
    "Page",
    "Policies",
    "Policy",
    "PolicySet",
    "Power",
    "PowerLevel",
    "PowerRange",
    "Principal",
    "Quarantine",
    "Quota",
    "RateLimited",
    "Receipt",
    "Reconciliation",
    "ReloadedPolicies",
    "RenewedGrant",
    "ReportedSignal",
    "Revocation",
    "RotatedKey",
    "Secret",
    "ShownPrincipal",
    "Signal",
    "SigningKey",
    "Task",
    "TaskEnd",
    "TaskPower",
    "TaskTree",
    "ToolDecision",
    "TrailPower",
    "TreeNode",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "UnusedPower",
    "Vote",
    "WhoCan",
    "token_file",
]

# These import the HTTP library and asyncio, most of the time it would take: imported when used.
_LATE: Final = {"AsyncClient": "broker.client.aio", "Client": "broker.client.sync"}


def __getattr__(name: str) -> Any:  # noqa: ANN401  what it is, the imports above say
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_LATE[name]), name)
    globals()[name] = found
    return found
