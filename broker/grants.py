"""A grant: one credential, issued under one task."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class GrantState(StrEnum):
    """Where a grant is in its life."""

    PENDING = "pending"
    ACTIVE = "active"
    REVOKING = "revoking"
    STUCK = "stuck"
    REVOKED = "revoked"
    FAILED = "failed"
    ABANDONED = "abandoned"


G = GrantState

GRANT_MOVES: Final[dict[GrantState, frozenset[GrantState]]] = {
    # The backend answered: active; it refused: failed; nobody knows what it did: revoking.
    G.PENDING: frozenset({G.ACTIVE, G.FAILED, G.REVOKING}),
    G.ACTIVE: frozenset({G.REVOKING}),
    G.REVOKING: frozenset({G.REVOKED, G.STUCK, G.ABANDONED}),
    # Stuck is alarmed and still retried. It is never an end.
    G.STUCK: frozenset({G.REVOKING, G.ABANDONED}),
    G.REVOKED: frozenset(),
    G.FAILED: frozenset(),
    # An end that isn't death: nobody confirms that it works no more, and that is on record.
    G.ABANDONED: frozenset(),
}
"""Every legal move. The ledger's scripts are given this table and refuse any other."""

DEAD: Final = frozenset(state for state, moves in GRANT_MOVES.items() if not moves)
WAITING: Final = frozenset({G.REVOKING, G.STUCK})
"""Unwanted, and not confirmed dead."""
LIVE: Final = frozenset(GRANT_MOVES) - DEAD


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as the ledger holds it; never the secret. Times are epoch milliseconds.

    ``handle`` names what can kill the credential even when ``lease`` was never learnt: for Vault
    the nonce of the task token it was minted with. ``lease`` is the backend's own id.
    ``account`` is what the target knows it by, such as a user name or a serial number; it isn't
    secret. ``lives_until`` is how long the backend lets it live, unless it is renewed there.
    ``revocability`` says whether it can be ended before that, as its capability said when it was
    issued; ``dies_at`` is set only for what can't be revoked at the target: when it ends by itself.
    ``parameters`` is what was asked of the capability, ``cnf`` the key the credential is bound to
    (RFC 7800), ``via`` the ids of the tokens it was asked with: it ends with any of them.
    ``decision_id`` is the decision that it was issued by, ``method`` how the identity of the one
    who asked was proved. ``approvals`` are the human yeses it was issued with, by group (empty for
    all), given by ``approval_id``; with ``elevation_id`` it ends.
    ``asker`` asked for it, if that wasn't the agent.
    ``replaces`` is the grant that it was rotated from, ``replaced_by`` the one it was rotated to.
    ``wrapping`` is about the wrapping token it was delivered in: the token's ``digest``, when that
    ``ends_at``, when the broker ``opened_at`` it for the task's agent, and until then our ``share``
    of the token where it was split (``vouchers.py``).
    ``revoke_at`` is when revocation was asked for, ``ended_at`` when death was confirmed, by
    ``evidence``; of an abandoned one that is the statement of who gave it up.
    """

    id: str
    state: GrantState
    task_id: str
    agent: str
    orchestrator: str
    capability: str
    backend: str
    power: str
    path: str
    handle: str
    created_at: int
    expires_at: int
    lease: str = ""
    revoke_at: int = 0
    ended_at: int = 0
    dies_at: int = 0
    lives_until: int = 0
    account: str = ""
    revocability: str = ""
    evidence: str = ""
    attempts: int = 0
    due_at: int = 0
    reason: str = ""
    error: str = ""
    intent: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cnf: Mapping[str, str] = field(default_factory=dict[str, str])
    via: tuple[str, ...] = ()
    decision_id: str = ""
    method: str = ""
    approval_id: str = ""
    approvals: Mapping[str, int] = field(default_factory=dict[str, int])
    elevation_id: str = ""
    asker: str = ""
    replaces: str = ""
    replaced_by: str = ""
    wrapping: Mapping[str, Any] = field(default_factory=dict[str, Any])
