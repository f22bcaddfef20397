"""The calls about reconciling; see ``calls.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.client.building import one
from broker.client.errors import InvalidRequest
from broker.client.messages import get, send_json
from broker.client.reconciling import Reconciliation

if TYPE_CHECKING:
    from broker.client.messages import Call


def reconcile(
    *,
    apply: bool = False,
    backend: str | None = None,
    release: bool = False,
    reason: str | None = None,
) -> Call[Reconciliation]:
    """Compare ledger, backends and targets; with ``apply`` end what a run has shown lately.

    With ``release``, which needs a reason, a ledger in quarantine issues again whatever is left.
    """
    if release and not reason:
        raise InvalidRequest("a release needs a reason")
    document = {
        "apply": apply or None,
        "backend": backend,
        "release": release or None,
        "reason": reason,
    }
    # Sent again after a lost answer it finds less, or the same.
    return one(Reconciliation, send_json("POST", "/v1/reconciliations", document, repeatable=True))


def last_reconciliation() -> Call[Reconciliation]:
    """Read what the last run found, whoever asked for it."""
    return one(Reconciliation, get("/v1/reconciliations"))
