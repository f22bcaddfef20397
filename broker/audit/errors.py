"""What can be wrong with the audit log, for whoever writes to it or asks it for a proof.

AuditUnavailable
├── LogBusy           another writer has the folder
├── LogDamaged        what is on disk isn't what was written, or isn't signed by a known key
├── HeadUnreadable    what the ledger keeps as the commit point isn't one
└── LedgerBehindLog   the ledger has forgotten records that a signature covers
NotProvable           the records that a proof needs are not in this folder
InvalidProof          a document doesn't prove what it says
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import AuditUnavailable, InvalidRequest, NotFound

if TYPE_CHECKING:
    from broker.audit.head import Head


class LogBusy(AuditUnavailable):
    """Another process, or an object not closed yet, writes to this folder."""

    code = "audit_log_busy"
    title = "Audit log has another writer"


class LogDamaged(AuditUnavailable):
    """The folder isn't what its writer left; ``broker audit verify`` says where."""

    code = "audit_log_damaged"
    title = "Audit log damaged"


class HeadUnreadable(AuditUnavailable):
    """The commit point in the ledger can't be read."""

    code = "audit_head_unreadable"
    title = "Audit log's commit point unreadable"


class LedgerBehindLog(AuditUnavailable):
    """A signed checkpoint covers more than the ledger remembers: the ledger was set back.

    ``head`` is where the log stands. Commit it in the place of the ledger's, and open again.
    """

    code = "audit_ledger_behind"
    title = "Ledger is behind the audit log"

    def __init__(
        self, detail: str = "", *, head: Head | None = None, retry_after: int | None = None
    ) -> None:
        """``head`` isn't shown to callers."""
        super().__init__(detail, retry_after=retry_after)
        self.head = head


class NotProvable(NotFound):
    """The log doesn't hold what the proof would be of, or not all that it needs."""

    code = "not_provable"
    title = "Not provable from this log"


class InvalidProof(InvalidRequest):
    """The document is no proof of what it says."""

    code = "invalid_proof"
    title = "Invalid proof"
