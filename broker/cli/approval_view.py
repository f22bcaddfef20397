"""An approval in words: in a table, in a line, and with all that somebody says yes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.cli import output
from broker.cli.text import ago, plural, span, when
from broker.clock import SystemClock
from broker.spelled import spelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.client import Approval, ApprovalNeed

_VERBS: Final = {
    "call_tool": "call ",
    "elevate": "elevation to ",
    "delegate": "delegation to ",
    "open_task": "a task of ",
}


def what(approval: Approval) -> str:
    """Write what is asked for: ``elevation to deploy (privileged)``."""
    power = f" ({approval.power})" if approval.power else ""
    verb = _VERBS.get(approval.action, "")
    return f"{verb}{approval.capability or approval.agent}{power}"


def who(approval: Approval) -> str:
    """Write for whom, and who asks if that is somebody else."""
    agent, asks = approval.agent, approval.requester
    return f"{agent}, asked by {asks}" if asks and asks != agent else agent


def votes(approval: Approval) -> str:
    """Write the yeses so far of those needed: ``1/2``, or ``1/2 security, 0/1 platform``."""
    return ", ".join(
        f"{n.have}/{n.count}" + (f" {n.group}" if n.group else "") for n in approval.needs
    )


def deciders(approval: Approval) -> str:
    """Write who has to say yes: ``2 of group security (1 so far)``."""
    needs = " and ".join(map(_decider, approval.needs)) or "nobody"
    others = ", ".join(approval.escalated_to)
    return f"{needs}; group {others} may stand in" if others else needs


def outcome(approval: Approval) -> str:
    """Write how it stands, in words for a line."""
    match approval.state:
        case "pending":
            return f"pending, {votes(approval)} said yes"
        case "approved":
            return "approved: the same request goes ahead, once"
        case "used":
            return f"used for {approval.used_by}" if approval.used_by else "used"
        case state:
            return f"{state} ({approval.reason})" if approval.reason else state


def show(approval: Approval, *, aside: bool = False) -> None:
    """Print all that there is to know about it; ``aside`` to somebody who is about to be asked."""
    now = SystemClock().now()
    decision = approval.decision_id
    denied = approval.state == "denied"
    said = {
        f"yes by {vote.by}": f"{vote.reason or '-'} ({ago(vote.at, now)})"
        for vote in approval.votes
        if not denied
    }
    output.record(
        {
            "approval": approval.approval_id,
            "state": approval.state,
            "reason": approval.reason,
            "who asks": who(approval),
            "owner": approval.owner,
            "on behalf of": approval.on_behalf_of,
            "asks for": what(approval),
            "task": approval.task_id,
            "purpose": approval.purpose,
            "intent": approval.intent,
            "who decides": deciders(approval),
            **(said or {f"vote of {v.by}": v.reason for v in approval.votes}),
            "policy": ", ".join(approval.policies),
            "decision": f"{decision} (broker policy explain {decision})" if decision else None,
            "asked": when(approval.created_at, now),
            "ends": when(approval.expires_at, now) if not approval.ended_at else None,
            "answers repeats until": when(approval.expires_at, now) if denied else None,
            "ended": when(approval.ended_at, now) if approval.ended_at else None,
            "used by": approval.used_by,
            "digest": approval.digest,
        },
        aside=aside,
    )
    say = output.note if aside else output.line
    for line in exactly(approval.request):
        say(line)


def exactly(request: Mapping[str, Any] | None) -> Iterator[str]:
    """Write the exact request, a member a line and none left out, each value as JSON has it.

    So no value looks like another: text is in quotes, and letters that aren't plain ones, which may
    look like others, are named in a line of their own.
    """
    if request is None:
        return
    yield "exactly this is asked for:"
    members = list(spelled(request))
    width = max((len(member.name) for member in members), default=0)
    for name, text, odd, lasts_ms in members:
        yield f"  {name:{width}}  {text}{_lasts(lasts_ms)}"
        if odd:
            yield f"  {'':{width}}  not plain letters: {', '.join(odd)}"


def _lasts(ms: int | None) -> str:
    if ms is None:
        return ""
    return f" ({span(ms // 1000)})" if ms else " (as the capability has it)"


def _decider(need: ApprovalNeed) -> str:
    whom = f"{need.count} of group {need.group}" if need.group else plural(need.count, "operator")
    return f"{whom} ({need.have} so far)"
