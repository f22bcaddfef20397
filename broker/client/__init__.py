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
    from broker.client.caller_calls import Offer, WhoAmI
    from broker.client.credential import Credential
    from broker.client.decisions import Execution, ToolDecision
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
    from broker.client.identity import Identity, MintedIdentity, token_file
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
    from broker.client.overview import DryRun, Overview, RevocationPreview
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
    from broker.client.reasons import (
        AlreadyDelivered,
        ApprovalExpired,
        AuditUnavailable,
        BackendRefused,
        BackendUnavailable,
        BindingRequired,
        ConfigInvalid,
        Frozen,
        IdempotencyConflict,
        IdentityMissing,
        IdentityRefused,
        IdentityUnavailable,
        InternalError,
        InvalidAuthorizationDetails,
        InvalidClient,
        InvalidDpopProof,
        InvalidGrant,
        InvalidScope,
        InvalidTarget,
        InvalidToken,
        LedgerNewer,
        LedgerUnavailable,
        NotDeadYet,
        NotRenewable,
        PayloadTooLarge,
        PrincipalSuspended,
        Quarantined,
        QuotaExceeded,
        RequestInProgress,
        SlowDown,
        TaskNotActive,
        UnauthorizedClient,
        UnsupportedGrantType,
        UseDpopNonce,
        WrappingExpired,
        WrappingIntercepted,
    )
    from broker.client.reconciling import Disagreement, Quarantine, Reconciliation
    from broker.client.retrying import Retries
    from broker.client.running import RunningTask
    from broker.client.sync import Client
    from broker.client.task_errors import (
        ApprovalLapsed,
        GrantEnded,
        TaskEnded,
        ToolDenied,
        ToolNeedsApproval,
    )
    from broker.client.tls import Tls
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
    "AlreadyDelivered",
    "Approval",
    "ApprovalDenied",
    "ApprovalExpired",
    "ApprovalLapsed",
    "ApprovalNeed",
    "ApprovalRequired",
    "AsyncClient",
    "AsyncRunningTask",
    "AuditEvent",
    "AuditUnavailable",
    "BackendRefused",
    "BackendUnavailable",
    "BindingRequired",
    "BrokerClientError",
    "Candidate",
    "CapabilityUse",
    "ChainDone",
    "ChainPower",
    "Client",
    "ConfigInvalid",
    "Conflict",
    "ConnectionFailed",
    "Credential",
    "Denied",
    "Disagreement",
    "DryRun",
    "Elevation",
    "Execution",
    "ExplainedDecision",
    "Freeze",
    "Frozen",
    "Grant",
    "GrantCounts",
    "GrantEnded",
    "HeldGrant",
    "IdempotencyConflict",
    "Identity",
    "IdentityMissing",
    "IdentityRefused",
    "IdentityUnavailable",
    "InternalError",
    "InvalidAuthorizationDetails",
    "InvalidClient",
    "InvalidDpopProof",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidScope",
    "InvalidTarget",
    "InvalidToken",
    "IssuedGrant",
    "LedgerNewer",
    "LedgerUnavailable",
    "MintedIdentity",
    "MovedOwner",
    "MovedPrincipal",
    "NotDeadYet",
    "NotFound",
    "NotRenewable",
    "Offer",
    "Overview",
    "Owner",
    "Page",
    "PayloadTooLarge",
    "Policies",
    "Policy",
    "PolicySet",
    "Power",
    "PowerLevel",
    "PowerRange",
    "Principal",
    "PrincipalSuspended",
    "Quarantine",
    "Quarantined",
    "Quota",
    "QuotaExceeded",
    "RateLimited",
    "Receipt",
    "Reconciliation",
    "ReloadedPolicies",
    "RenewedGrant",
    "ReportedSignal",
    "RequestInProgress",
    "Retries",
    "Revocation",
    "RevocationPreview",
    "RotatedKey",
    "RunningTask",
    "Secret",
    "ShownPrincipal",
    "Signal",
    "SigningKey",
    "SlowDown",
    "Task",
    "TaskEnd",
    "TaskEnded",
    "TaskNotActive",
    "TaskPower",
    "TaskTree",
    "Tls",
    "Tool",
    "ToolDecision",
    "ToolDenied",
    "ToolNeedsApproval",
    "TrailPower",
    "TreeNode",
    "Unauthenticated",
    "UnauthorizedClient",
    "Unavailable",
    "UnexpectedAnswer",
    "UnsupportedGrantType",
    "UnusedPower",
    "UseDpopNonce",
    "Vote",
    "WhoAmI",
    "WhoCan",
    "WrappingExpired",
    "WrappingIntercepted",
    "token_file",
    "tool",
]

# Programs that import this and make no call pay nothing for the HTTP library and the models: a name
# is imported when it is used. It is looked for where it may be, lightest first.
_HOMES: Final = (
    "errors",
    "reasons",
    "identity",
    "retrying",
    "tls",
    "credential",
    "approvals",
    "decisions",
    "policy",
    "power",
    "reconciling",
    "tree",
    "models",
    "overview",
    "messages",
    "caller_calls",
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
