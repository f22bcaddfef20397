"""What each tool does: a few lines over the client's call of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from broker.client import InvalidRequest, NotFound, errors
from broker.durations import parse_duration
from broker.mcp import shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.client import Task
    from broker.mcp.party import Party

VOUCHER_TTL: Final = "5m"
"""How long a voucher waits for its agent: models think slowly. The broker has 10m at most."""


async def whoami(party: Party, _: shapes.Nothing) -> shapes.Me:
    """Say who this agent is."""
    me = await party.client.whoami()
    return shapes.Me(
        principal=me.principal,
        role=me.role,
        owner=me.owner,
        acts_for=party.agent,
        presented_to=me.presented_to,
        tasks=list(party.tasks),
    )


async def list_capabilities(party: Party, ask: shapes.OfTask) -> shapes.Offers:
    """List what may be asked for."""
    task_id = party.task(ask.task_id)
    page = await party.client.list_capabilities(task_id)
    offers = [
        shapes.Offer(
            name=offer.name,
            kind=cast("Any", offer.kind),
            power=offer.power,
            data_class=offer.data_class,
            effects=list(offer.effects),
            ttl=offer.ttl,
            max_ttl=offer.max_ttl,
            model_may_see=offer.model_may_see,
            tool=offer.tool,
            arguments=None if offer.arguments is None else dict(offer.arguments),
        )
        for offer in page.items
    ]
    return shapes.Offers(task_id=task_id, capabilities=offers)


async def open_task(party: Party, ask: shapes.OpenTask) -> shapes.TaskState:
    """Open a task; under a task of the agent's own it is a part of that."""
    parent = party.task_id
    if ask.parent_task_id is not None:
        parent = party.task(ask.parent_task_id)
    agent = ask.agent or party.agent
    if agent is None:
        msg = "Name the agent that it is for: an agent passes parts of its task on to others."
        raise InvalidRequest(msg, code="agent_needed")
    if party.agent is not None and agent != party.agent:
        msg = f"This server opens tasks for {party.agent!r} alone: leave agent out."
        raise InvalidRequest(msg, code="agent_not_served")
    task = await party.client.open_task(
        agent,
        ask.purpose,
        ask.capabilities,
        ttl=ask.ttl,
        parent_task_id=parent,
        heartbeat=party.heartbeat,
    )
    party.opened[task.task_id] = silence_of(task)
    party.news.set()
    return state_of(task)


async def request_credential(party: Party, ask: shapes.RequestCredential) -> shapes.Credential:
    """Ask for a credential; it comes as a voucher, or in plain where the operator allows that."""
    task_id = party.task(ask.task_id)
    plain = ask.form == "plaintext"
    issued = await party.client.request_grant(
        task_id,
        ask.capability,
        ttl=ask.ttl,
        parameters=ask.parameters,
        intent=ask.intent,
        delivery="inline" if plain else "voucher",
        wrap_ttl=None if plain else VOUCHER_TTL,
    )
    found = issued.credential.reveal()
    return shapes.Credential(
        state="issued",
        capability=ask.capability,
        grant_id=issued.grant_id,
        voucher=None if plain else found["voucher"],
        redeem_by=None if plain else found.get("expires_at"),
        expires_at=issued.expires_at,
        plaintext=found if plain else None,
        notes=list(issued.notes),
    )


async def check_tool_call(party: Party, ask: shapes.CheckToolCall) -> shapes.Decision:
    """Ask whether a call may be made."""
    decision = await party.client.check_tool_call(
        party.task(ask.task_id),
        ask.tool,
        ask.arguments,
        destination=ask.destination,
        effects=ask.effects,
        intent=ask.intent,
    )
    about = decision.context
    asked: Mapping[str, Any] = about.get("access_request") or {}
    words: Mapping[str, Any] = about.get("reason_user") or {}
    approval = None
    if asked.get("id"):
        approval = shapes.Approval(
            approval_id=str(asked["id"]),
            state=str(asked.get("status", "pending")),
            link=await party.link(str(asked["id"])),
            expires_at=asked.get("expires_at"),
        )
    return shapes.Decision(
        allowed=decision.decision,
        decision_id=decision.decision_id,
        reason=about.get("reason"),
        reason_text=words.get("en"),
        advice=[str(line) for line in about.get("advice") or ()],
        approval=approval,
    )


async def report_execution(party: Party, ask: shapes.ReportExecution) -> shapes.Reported:
    """Say what became of a call."""
    closed = await party.client.report_execution(
        party.task(ask.task_id),
        ask.decision_id,
        ask.outcome,
        took=ask.took,
        result_digest=ask.result_digest,
        error_type=ask.error_type,
        effects=ask.effects,
    )
    return shapes.Reported(
        task_id=closed.task_id, decision_id=closed.decision_id, outcome=closed.outcome
    )


async def request_approval(party: Party, ask: shapes.RequestApproval) -> shapes.Approved:
    """Look at an approval, or ask that the task has a capability for a while.

    Raises:
        ApprovalRequired: nobody has answered yet.
    """
    if (ask.approval_id is None) == (ask.capability is None):
        msg = "Give approval_id, or capability and intent: one of the two."
        raise InvalidRequest(msg, code="invalid_arguments")
    task_id = party.task(ask.task_id)
    if ask.approval_id is not None:
        return await _standing(party, ask.approval_id)
    if ask.intent is None or ask.capability is None:
        raise InvalidRequest("Say in intent why it is needed.", code="invalid_arguments")
    given = await party.client.elevate(task_id, ask.capability, intent=ask.intent, ttl=ask.ttl)
    return shapes.Approved(
        state=given.state, elevation_id=given.elevation_id, expires_at=given.expires_at
    )


async def _standing(party: Party, approval_id: str) -> shapes.Approved:
    found = await party.client.get_approval(approval_id)
    if party.confined and found.task_id not in party.tasks:
        raise NotFound("There is no such approval here.")
    if found.state == "pending":
        until = found.expires_at.isoformat() if found.expires_at else None
        extra = {"approval_id": approval_id, "expires_at": until}
        raise errors.ApprovalRequired("Nobody has answered yet.", extra=extra)
    approval = shapes.Approval(
        approval_id=approval_id,
        state=found.state,
        link=await party.link(approval_id),
        expires_at=found.expires_at,
    )
    return shapes.Approved(state=found.state, approval=approval, expires_at=found.expires_at)


async def complete_task(party: Party, ask: shapes.CompleteTask) -> shapes.Ended:
    """End a task; all that was issued under it is revoked."""
    task_id = party.task(ask.task_id)
    end = await party.client.complete(task_id, ask.outcome, summary=ask.summary)
    party.opened.pop(task_id, None)
    return shapes.Ended(
        task_id=task_id, state=end.state, revoked=end.grants.revoked, revoking=end.grants.revoking
    )


def state_of(task: Task) -> shapes.TaskState:
    """Write a task as models read it."""
    return shapes.TaskState(
        task_id=task.task_id,
        state=task.state,
        agent=task.agent,
        purpose=task.purpose,
        capabilities=list(task.capabilities),
        expires_at=task.expires_at,
        parent_task_id=task.parent_task_id,
        notes=list(task.notes),
    )


def silence_of(task: Task) -> float | None:
    """Return the seconds after which silence ends a task, None if it may be silent."""
    return parse_duration(task.heartbeat) / 1000 if task.heartbeat else None
