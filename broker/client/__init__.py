"""The client of the broker, for orchestrators, agents and operators.

    from broker.client import Client

    with Client() as broker:
        task = broker.open_task("report-writer", "nightly report", ["orders-read"], ttl="15m")

It speaks the public HTTP contract and imports none of the server. ``AsyncClient`` has the same
methods to await. Every error is a ``BrokerClientError``.
"""

from broker.client.aio import AsyncClient
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
from broker.client.overview import DryRun, Me, Overview, RevocationPreview
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
from broker.client.sync import Client
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
    "DryRun",
    "Elevation",
    "Execution",
    "ExplainedDecision",
    "Freeze",
    "Grant",
    "GrantCounts",
    "Identity",
    "InvalidRequest",
    "IssuedGrant",
    "Me",
    "MovedOwner",
    "MovedPrincipal",
    "NotFound",
    "Overview",
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
    "RevocationPreview",
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
