"""The calls about reconciling; see ``calls.py``."""

from __future__ import annotations

from datetime import UTC
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
    shown: Reconciliation | None = None,
    backend: str | None = None,
    release: bool = False,
    reason: str | None = None,
) -> Call[Reconciliation]:
    """Compare ledger, backends and targets; with ``apply`` end what a run has shown lately.

    With ``shown``, the report that was looked at, only what is in that one: another run that has
    come in between is a ``Conflict``.

    With ``release``, which needs a reason, a ledger in quarantine issues again whatever is left.
    """
    if release and not reason:
        raise InvalidRequest("a release needs a reason")
    document = {
        "apply": apply or None,
        "shown": _at(shown) if shown is not None else None,
        "backend": backend,
        "release": release or None,
        "reason": reason,
    }
    # What is new to one run counts as shown to the next: applying isn't sent again by itself.
    return one(
        Reconciliation, send_json("POST", "/v1/reconciliations", document, repeatable=not apply)
    )


def last_reconciliation() -> Call[Reconciliation]:
    """Read what the last run found, whoever asked for it."""
    return one(Reconciliation, get("/v1/reconciliations"))


def _at(report: Reconciliation) -> str | None:
    """Write a time as the broker does, to the millisecond."""
    if report.at is None:
        return None
    return report.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
