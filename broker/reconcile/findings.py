"""What ledger, backends and targets can disagree on, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """Which disagreement it is."""

    ORPHAN_TOKEN = "orphan_token"
    """A task's token lives, and the ledger knows no such token, or its task is closed."""
    RESURRECTED_LEASE = "resurrected_lease"
    """A lease lives whose grant was confirmed dead."""
    UNCLAIMED_LEASE = "unclaimed_lease"
    """A lease of a path of ours lives, and no grant has it."""
    LEASE_GONE = "lease_gone"
    """A grant is active, and its lease is gone."""
    ORPHAN_ACCOUNT = "orphan_account"
    """One of our accounts is at the target, and no live grant has it."""
    ACCOUNT_GONE = "account_gone"
    """A grant is active, and its account is not at the target."""


class Action(StrEnum):
    """What applying does."""

    REVOKE_TOKEN = "revoke_token"
    REVOKE_LEASE = "revoke_lease"
    REVOKE_GRANT = "revoke_grant"
    END_ACCOUNT = "end_account"
    NONE = "none"
    """It is only shown: whose it is can't be known."""


class Outcome(StrEnum):
    """What became of a finding."""

    SHOWN = "shown"
    NEW = "new"
    """Applying was asked for, but no run before has shown it: the next may act on it."""
    DONE = "done"
    UNDER_WAY = "under_way"
    """It is being revoked, and not confirmed dead yet."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement. ``place`` is a backend or a target, ``subject`` what it is about there.

    ``subject`` is the handle of a token, the id of a lease, or the name of an account; the grant's
    id where the grant is what will be ended. ``lost`` says that a ledger which had not been set
    back would know it. An accessor could end its token, so it isn't shown.
    """

    kind: Kind
    place: str
    subject: str
    evidence: str
    action: Action
    task_id: str = ""
    grant_id: str = ""
    accessor: str = field(default="", repr=False)
    lost: bool = False

    @property
    def key(self) -> str:
        """What tells it from all others, in this run and the next."""
        return f"{self.kind}|{self.place}|{self.subject}"
