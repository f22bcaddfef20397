"""*Audit*: the log, searched, shown, verified and taken along."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Path, Query
from starlette.responses import Response, StreamingResponse

from broker.audit.export import Form, Span
from broker.audit_desk import AuditDesk
from broker.clock import to_rfc3339
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.errors import InvalidRequest, NotFound
from broker.http.shapes import EVENT_ID

pages = Pages()
_PAGE: Final = 50
_SHORT: Final = 160
_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, which RFC 3339 can just say."""
_LOOK_BACK_MS: Final = 3_600_000
"""How far back it is looked where nobody says since when."""
KINDS: Final = (
    *("approval", "audit", "decision", "elevation", "execution", "freeze", "glass", "grant", "key"),
    *("owner", "policy", "principal", "quarantine", "review", "revocation", "signal", "task"),
    "token",
)
"""What types of events begin with, as a help for who searches."""
_NOTICES: Final = {"verified": "Verified just now."}

Moment = Annotated[str, Query(max_length=40)]
Word = Annotated[str, Query(max_length=320)]
EventPath = Annotated[str, Path(pattern=EVENT_ID)]


@pages.get("/audit", Right.AUDIT)
async def events(
    visit: Here,
    kind: Annotated[str, Query(alias="type", pattern=r"^([a-z_]+(\.[a-z_]+)?)?$")] = "",
    principal: Word = "",
    text: Word = "",
    task: Word = "",
    since: Annotated[Moment | None, Query(alias="from")] = None,
    until: Moment = "",
    after: Annotated[str, Query(pattern=f"{EVENT_ID}|^$")] = "",
) -> Response:
    """Search events, oldest first; of the last hour, where nobody says since when."""
    now = await visit.now()
    if since is None:
        since = "" if task else _minutes(_millis(now) - _LOOK_BACK_MS)
    begin, end = _moment("from", since), _moment("until", until)
    found = await visit.console.broker.operators.events(
        visit.caller,
        task_id=task,
        after=after or (f"{begin}-00-0" if begin else ""),
        limit=_PAGE,
        kind=kind,
        principal=principal,
        text=text,
    )
    rows, more = found["items"], found["next"]
    if end and (cut := [row for row in rows if _millis(row["time"]) < end]) != rows:
        rows, more = cut, None
    asked = {"type": kind, "principal": principal, "text": text, "task": task}
    return visit.page(
        "audit.html",
        title="Audit",
        found=summarised(rows),
        next=more,
        asked={**asked, "from": since, "until": until},
        kinds=KINDS,
        now=now,
    )


@pages.get("/audit/events/{event_id}", Right.AUDIT)
async def event(visit: Here, event_id: EventPath) -> Response:
    """Show one event, and all that it says."""
    found = await visit.console.broker.operators.event(visit.caller, event_id)
    return visit.page(
        "event.html", title=found["type"], event=found, whole=json.dumps(found, indent=2)
    )


@pages.get("/audit/log", Right.AUDIT)
async def log(visit: Here, done: str = "") -> Response:
    """Show how the signed log stands, and what verifying it last found."""
    desk: AuditDesk | None = visit.console.parts.audit_desk
    return visit.page(
        "audit_log.html",
        title="The signed log",
        log=await desk.standing(visit.caller) if desk is not None else None,
        notice=_NOTICES.get(done, ""),
        forms=list(Form),
        now=await visit.now(),
    )


@pages.post("/audit/verify", Right.AUDIT)
async def verify(visit: Here) -> Response:
    """Verify it now."""
    await _desk(visit).verify(visit.caller)
    return visit.go("/audit/log", "verified")


@pages.get("/audit/export", Right.AUDIT)
async def export(
    visit: Here,
    form: Form = Form.CLOUDEVENTS,
    since: Annotated[str, Query(alias="from", max_length=40)] = "",
    until: Moment = "",
) -> Response:
    """Hand over what the log has, one JSON document a line."""
    _moment("from", since)
    _moment("until", until)
    span = Span.between(since, until)
    lines = await _desk(visit).export(visit.caller, span, form)
    name = f"audit-{form}.jsonl"
    return StreamingResponse(
        lines,
        media_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def summarised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to events what they say, short enough for a line."""
    return [{**row, "summary": _short(row["data"])} for row in rows]


def _short(data: Any) -> str:  # noqa: ANN401  what an event says
    parts = [f"{n}: {_plain(n, value)}" for n, value in data.items() if value not in ("", None)]
    text = " · ".join(parts)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def _plain(name: str, value: Any) -> str:  # noqa: ANN401  as above
    if name.endswith("_at") and isinstance(value, int) and 0 < value <= _LAST_MS:
        return to_rfc3339(value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _desk(visit: Here) -> AuditDesk:
    desk: AuditDesk | None = visit.console.parts.audit_desk
    if desk is None:
        raise NotFound("This broker keeps no signed log: [audit] enabled is false.")
    return desk


def _moment(field: str, text: str) -> int:
    """Read a time of a form, in UTC, as epoch milliseconds; 0 for none."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        at = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        at = -1
    if at < 0:
        raise InvalidRequest(f"{field}: write a time such as 2026-11-01T09:30, in UTC")
    return at


def _millis(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _minutes(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M}"
