"""The calls of those who look; see ``calls.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.client.building import Duration, duration, one, path_to, selected
from broker.client.messages import get, send_json
from broker.client.models import AuditEvent
from broker.client.overview import DryRun, Overview, RevocationPreview

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.client.messages import Call


def get_overview() -> Call[Overview]:
    """Read what lives, what dies next and what is wrong; for operators and auditors."""
    return one(Overview, get("/v1/overview"))


def preview_revocation(selector: Mapping[str, str | bool]) -> Call[RevocationPreview]:
    """Read what ``revoke`` would end with this selector, without ending it.

    Asked again after ``revoke``, it says what isn't confirmed dead yet.
    """
    document = {"selector": selected(selector)}
    return one(
        RevocationPreview, send_json("POST", "/v1/revocations/preview", document, repeatable=True)
    )


def dry_run(  # noqa: PLR0913  the members of the request
    capability: str,
    *,
    task_id: str | None = None,
    agent: str | None = None,
    ttl: Duration | None = None,
    parameters: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    destination: str | None = None,
    effects: Sequence[str] = (),
    intent: str | None = None,
) -> Call[DryRun]:
    """Read what policy would decide of a credential or a tool call; nothing is done about it.

    It is asked for by the agent of ``task_id``, or by ``agent`` in a plain task for just that.
    """
    document = {
        "capability": capability,
        "task_id": task_id,
        "agent": agent,
        "ttl": duration(ttl),
        "parameters": dict(parameters) if parameters else None,
        "arguments": dict(arguments) if arguments else None,
        "destination": destination,
        "effects": list(effects) or None,
        "intent": intent,
    }
    return one(DryRun, send_json("POST", "/v1/policy/dry-run", document, repeatable=True))


def get_audit_event(event_id: str) -> Call[AuditEvent]:
    """Read one event of the log."""
    return one(AuditEvent, get(path_to("/v1/audit/events", event_id)))
