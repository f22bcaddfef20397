"""The client of the broker, for orchestrators, agents and operators.

    from broker.client import Client

    with Client() as broker, broker.task("report-writer", "report", ["orders-read"]) as task:
        orders = task.grant("orders-read")

It speaks the public HTTP contract and imports none of the server. ``AsyncClient`` has the same
methods to await. Every error is a ``BrokerClientError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from broker.client.aio import AsyncClient
    from broker.client.aio_running import AsyncRunningTask
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
    from broker.client.holding import HeldGrant
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
    from broker.client.running import RunningTask
    from broker.client.sync import Client
    from broker.client.task_errors import (
        ApprovalLapsed,
        GrantEnded,
        TaskEnded,
        ToolDenied,
        ToolNeedsApproval,
    )
    from broker.client.tools import Tool, tool
    from broker.client.tree import (
        ChainDone,
        PowerLevel,
        TaskTree,
        TreeNode,
    )
    from broker.secret import Secret

__all__ = [
    "AgentPower",
    "Approval",
    "ApprovalDenied",
    "ApprovalLapsed",
    "ApprovalNeed",
    "ApprovalRequired",
    "AsyncClient",
    "AsyncRunningTask",
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
    "GrantEnded",
    "HeldGrant",
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
    "RunningTask",
    "Secret",
    "ShownPrincipal",
    "Signal",
    "SigningKey",
    "Task",
    "TaskEnd",
    "TaskEnded",
    "TaskPower",
    "TaskTree",
    "Tool",
    "ToolDecision",
    "ToolDenied",
    "ToolNeedsApproval",
    "TrailPower",
    "TreeNode",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "UnusedPower",
    "Vote",
    "WhoCan",
    "token_file",
    "tool",
]

# Programs that import this and make no call pay nothing for the HTTP library and the models: a name
# is imported when it is used. It is looked for where it may be, lightest first.
_HOMES: Final = (
    "errors",
    "environment",
    "credential",
    "approvals",
    "decisions",
    "policy",
    "power",
    "reconciling",
    "tree",
    "models",
    "messages",
    "task_errors",
    "holding",
    "tools",
    "running",
    "aio_running",
    "sync",
    "aio",
)


def __getattr__(name: str) -> Any:  # noqa: ANN401  what it is, the imports above say
    if name in __all__:
        for home in _HOMES:
            found = vars(import_module(f"{__name__}.{home}"))
            if name in found:
                globals()[name] = found[name]
                return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
