"""Every call of the API, as a function that says what to send and how to read the answer.

Nothing is sent from here: ``Client`` and ``AsyncClient`` turn each function into a method of the
same name and arguments. A time to live is a text like ``"15m"`` or a ``timedelta``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from broker.client.building import (
    Duration,
    duration,
    keyed,
    one,
    page,
    path_to,
    plain,
    selected,
)
from broker.client.errors import InvalidRequest
from broker.client.messages import Call, PageCall, Request, Response, get, send_form, send_json
from broker.client.models import (
    AuditEvent,
    Freeze,
    Grant,
    MovedOwner,
    MovedPrincipal,
    Owner,
    Principal,
    ReportedSignal,
    Revocation,
    RotatedKey,
    ShownPrincipal,
    Signal,
    SigningKey,
    Task,
    TaskEnd,
)
from broker.client.power import TaskPower, UnusedPower
from broker.client.tree import TaskTree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.secret import Secret

Outcome = Literal["completed", "failed", "cancelled"]
Verdict = Literal["clean", "suspicious", "compromised"]


def open_task(  # noqa: PLR0913  the members of the request
    agent: str,
    purpose: str,
    capabilities: Sequence[str],
    *,
    ttl: Duration | None = None,
    parent_task_id: str | None = None,
    on_behalf_of: Secret | str | None = None,
    context: Mapping[str, Any] | None = None,
    heartbeat: Duration | None = None,
    limits: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Call[Task]:
    """Open a task for an agent; it may be granted the capabilities until it ends.

    ``on_behalf_of`` is a JWT that proves the person it runs for. ``limits`` may have
    ``data_classes``, ``effects``, ``parameters`` (values by capability and name), ``delegate_to``
    and a ``budget`` of ``grants``, ``calls`` and ``amount`` (a decimal as text).

    The same ``idempotency_key`` never opens a second task; one is made up unless given, so a lost
    answer can be asked for again.
    """
    if isinstance(capabilities, str):
        raise InvalidRequest("capabilities is a list of names, not one text")
    document = {
        "agent": agent,
        "purpose": purpose,
        "capabilities": list(capabilities),
        "ttl": duration(ttl),
        "parent_task_id": parent_task_id,
        "on_behalf_of": plain(on_behalf_of),
        "context": None if context is None else dict(context),
        "heartbeat": duration(heartbeat),
        "limits": None if limits is None else dict(limits),
    }
    request = send_json("POST", "/v1/tasks", document, repeatable=True)
    return one(Task, keyed(request, idempotency_key))


def list_tasks(
    *,
    state: str | None = None,
    agent: str | None = None,
    owner: str | None = None,
    capability: str | None = None,
    text: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> PageCall[Task]:
    """Read one page of the tasks that the caller may see; ``limit`` is the page's size.

    ``text`` is looked for in their purpose, names and ids.
    """
    query: dict[str, object] = {"state": state, "agent": agent, "owner": owner}
    query |= {"capability": capability, "text": text, "cursor": cursor, "limit": limit}
    return page(Task, "/v1/tasks", query)


def get_task(task_id: str) -> Call[Task]:
    """Read one task."""
    return one(Task, get(path_to("/v1/tasks", task_id)))


def get_task_power(task_id: str) -> Call[TaskPower]:
    """Read what a task and its chain can do now, taken together, and why."""
    return one(TaskPower, get(path_to("/v1/tasks", task_id, "power")))


def task_tree(task_id: str, *, whole: bool = False, limit: int | None = None) -> Call[TaskTree]:
    """Read a task and all below it as a graph, or its ``whole`` chain: power, effects, grants.

    ``limit`` bounds the tasks, those nearest to the top first.
    """
    query: dict[str, object] = {"whole": "true" if whole else None, "limit": limit}
    return one(TaskTree, get(path_to("/v1/tasks", task_id, "tree"), query))


def heartbeat(task_id: str) -> Call[Task]:
    """Say that the task is still being worked on."""
    request = send_json("POST", path_to("/v1/tasks", task_id, "heartbeat"), {}, repeatable=True)
    return one(Task, request)


def complete(
    task_id: str, outcome: Outcome = "completed", *, summary: str | None = None
) -> Call[TaskEnd]:
    """End a task, and with it every credential under it."""
    document = {"outcome": outcome, "summary": summary}
    path = path_to("/v1/tasks", task_id, "complete")
    return one(TaskEnd, send_json("POST", path, document, repeatable=True))


def list_grants(
    *,
    task_id: str | None = None,
    agent: str | None = None,
    state: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> PageCall[Grant]:
    """Read one page of the grants that the caller may see; ``limit`` is the page's size."""
    query = {"task_id": task_id, "agent": agent, "state": state, "cursor": cursor, "limit": limit}
    return page(Grant, "/v1/grants", query)


def get_grant(grant_id: str) -> Call[Grant]:
    """Read one grant."""
    return one(Grant, get(path_to("/v1/grants", grant_id)))


def revoke_grant(grant_id: str) -> Call[Grant]:
    """Revoke one grant: ``revoked`` only once its death is confirmed. Again is no error."""
    request = Request("DELETE", path_to("/v1/grants", grant_id), repeatable=True)
    return one(Grant, request)


def revoke(
    selector: Mapping[str, str | bool], reason: str, *, freeze: bool = False
) -> Call[Revocation]:
    """Revoke all that the selector matches; with ``freeze`` also issue nothing more of it.

    A selector has exactly one member: ``grant_id``, ``task_id``, ``agent``, ``owner``,
    ``capability``, ``backend``, or ``all`` with the value True.
    """
    document = {"selector": selected(selector), "reason": reason, "freeze": freeze or None}
    return one(Revocation, send_json("POST", "/v1/revocations", document))


def freeze(selector: Mapping[str, str | bool], reason: str) -> Call[dict[str, Any]]:
    """Issue nothing more that the selector matches; what is live stays."""
    document = {"selector": selected(selector), "reason": reason}
    return Call(send_json("POST", "/v1/freezes", document), Response.mapping)


def thaw(selector: Mapping[str, str | bool], reason: str) -> Call[dict[str, Any]]:
    """Lift the freeze with exactly this selector."""
    document = {"selector": selected(selector), "reason": reason}
    return Call(send_json("DELETE", "/v1/freezes", document), Response.mapping)


def list_freezes(*, cursor: str | None = None, limit: int | None = None) -> PageCall[Freeze]:
    """Read one page of the freezes in force."""
    return page(Freeze, "/v1/freezes", {"cursor": cursor, "limit": limit})


def report_signal(
    selector: Mapping[str, str | bool],
    reason: str,
    *,
    risk: int | None = None,
    verdict: Verdict | None = None,
    ttl: Duration | None = None,
) -> Call[ReportedSignal]:
    """Report a risk (0 to 100), a verdict or both of a ``task_id``, an ``agent`` or an ``owner``.

    It takes the place of what was reported of them before. Live grants that policy doesn't allow
    any more are revoked at once.
    """
    if risk is None and verdict is None:
        raise InvalidRequest("a signal says a risk, a verdict, or both")
    document = {
        "selector": selected(selector),
        "risk": risk,
        "verdict": verdict,
        "reason": reason,
        "ttl": duration(ttl),
    }
    return one(ReportedSignal, send_json("POST", "/v1/signals", document, repeatable=True))


def clear_signal(selector: Mapping[str, str | bool], reason: str) -> Call[dict[str, Any]]:
    """Take back what is reported; what was revoked stays so."""
    document = {"selector": selected(selector), "reason": reason}
    return Call(send_json("DELETE", "/v1/signals", document), Response.mapping)


def list_signals(*, cursor: str | None = None, limit: int | None = None) -> PageCall[Signal]:
    """Read one page of what is reported and counts now, by selector."""
    return page(Signal, "/v1/signals", {"cursor": cursor, "limit": limit})


def unused_power(
    *,
    since: Duration | None = None,
    everybody: bool = False,
    cursor: str | None = None,
    limit: int | None = None,
) -> Call[UnusedPower]:
    """Read which agents are allowed what they didn't use lately, and what would have been enough.

    ``since`` is how far back, ``"30d"`` unless given; with ``everybody`` the other agents as well.
    """
    query: dict[str, object] = {"since": duration(since), "all": "true" if everybody else None}
    query |= {"cursor": cursor, "limit": limit}
    return one(UnusedPower, get("/v1/reports/unused-power", query))


def list_keys() -> PageCall[SigningKey]:
    """Read the broker's signing keys, newest first; all on one page."""
    return page(SigningKey, "/v1/keys", {})


def rotate_keys(*, reason: str | None = None, now: bool = False) -> Call[RotatedKey]:
    """Make the next signing key; it signs once it has been published for a while.

    With ``now``, which needs a reason, it signs at once, and every token signed so far is dead: the
    caller's too.
    """
    if now and not reason:
        raise InvalidRequest("a rotation with now needs a reason")
    document = {"reason": reason, "now": now or None}
    return one(RotatedKey, send_json("POST", "/v1/keys/rotate", document))


def list_principals(
    *,
    role: str | None = None,
    owner: str | None = None,
    state: str | None = None,
    due: bool = False,
    cursor: str | None = None,
    limit: int | None = None,
) -> PageCall[Principal]:
    """Read one page of the principals, by name; with ``due`` those that it is time to review."""
    query: dict[str, object] = {"role": role, "owner": owner, "state": state}
    query |= {"due": "true" if due else None, "cursor": cursor, "limit": limit}
    return page(Principal, "/v1/principals", query)


def get_principal(name: str) -> Call[ShownPrincipal]:
    """Read one principal; of an agent also what it can do now, and what it has used."""
    return one(ShownPrincipal, get(path_to("/v1/principals", name)))


def add_principal(  # noqa: PLR0913  the members of the request
    name: str,
    owner: str,
    purpose: str,
    identity: Mapping[str, Any],
    *,
    role: str = "agent",
    capabilities: Sequence[str] = (),
    resource: str | None = None,
    max_ttl: Duration | None = None,
    delegates_to: Sequence[str] | None = None,
    review_by: str | None = None,
) -> Call[Principal]:
    """Register an agent, an orchestrator or a resource server; again is no error.

    ``identity`` is ``{"issuer": …, "subject": …, "claims": …}`` or ``{"jwks": …}``, ``review_by`` a
    date such as ``2027-06-30``.
    """
    document = {
        "name": name,
        "role": role,
        "owner": owner,
        "purpose": purpose,
        "identity": dict(identity),
        "capabilities": list(capabilities) or None,
        "resource": resource,
        "max_ttl": duration(max_ttl),
        "delegates_to": None if delegates_to is None else list(delegates_to),
        "review_by": review_by,
    }
    return one(Principal, send_json("POST", "/v1/principals", document, repeatable=True))


def suspend_principal(name: str, reason: str) -> Call[MovedPrincipal]:
    """Stop a principal: all it has is revoked, and nothing more is issued to it."""
    return _moved(name, "suspend", reason)


def resume_principal(name: str, reason: str) -> Call[MovedPrincipal]:
    """Let a suspended principal work again; what was revoked stays so."""
    return _moved(name, "resume", reason)


def retire_principal(name: str, reason: str) -> Call[MovedPrincipal]:
    """As suspending, for good: the name is never anybody else's."""
    return _moved(name, "retire", reason)


def review_principal(name: str, next_review: str, *, note: str | None = None) -> Call[Principal]:
    """Note that somebody looked at a principal, and the date to look again."""
    document = {"next": next_review, "note": note}
    path = path_to("/v1/principals", name, "review")
    return one(Principal, send_json("POST", path, document, repeatable=True))


def list_owners() -> PageCall[Owner]:
    """Read all owners, by name, and what is theirs; all on one page."""
    return page(Owner, "/v1/owners", {})


def retire_owner(owner: str, reason: str, *, hand_over_to: str | None = None) -> Call[MovedOwner]:
    """Note that an owner left: all of theirs stops and is revoked, or is handed over."""
    document = {"owner": owner, "reason": reason, "hand_over_to": hand_over_to}
    return one(MovedOwner, send_json("POST", "/v1/owners/retire", document, repeatable=True))


def reinstate_owner(owner: str, reason: str) -> Call[Owner]:
    """Note that an owner is back: what is still theirs may work again."""
    document = {"owner": owner, "reason": reason}
    return one(Owner, send_json("POST", "/v1/owners/reinstate", document, repeatable=True))


def audit_events(
    *,
    task_id: str | None = None,
    kind: str | None = None,
    principal: str | None = None,
    text: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> PageCall[AuditEvent]:
    """Read one page of the log, from the event that follows ``after``.

    ``kind`` is a type, such as ``grant.revoked``, or its first word; ``text`` is looked for in all
    that an event says. Where few match a page may be short, or empty, and have a ``next``.
    """
    # The log only grows, so its cursor is a place in it: `next` goes back in as `after`.
    query: dict[str, object] = {"task_id": task_id, "type": kind, "principal": principal}
    query |= {"text": text, "after": after, "limit": limit}
    return page(AuditEvent, "/v1/audit/events", query, cursor_name="after")


def introspect(token: Secret | str) -> Call[dict[str, Any]]:
    """Ask what a token of the broker's stands for (RFC 7662); ``active`` says if it is valid."""
    return Call(send_form("/oauth/introspect", {"token": plain(token)}), Response.mapping)


def _moved(name: str, how: str, reason: str) -> Call[MovedPrincipal]:
    path = path_to("/v1/principals", name, how)
    return one(MovedPrincipal, send_json("POST", path, {"reason": reason}, repeatable=True))
