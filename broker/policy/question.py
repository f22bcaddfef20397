"""What policy is asked: who wants to do what to what, and all that is known at that moment.

A question is plain JSON, so it can be logged with its answer, asked again later with something
changed, and put to another decision point. It never holds a secret; a tool's arguments are in it
only while it is being decided.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from broker.approvals import Yeses
from broker.catalog import Revocability
from broker.clock import to_rfc3339
from broker.policy.schema import CALL
from broker.power import EGRESS, Exposure, exposure, tier
from broker.trail import AMOUNT_SCALE, Signals, Survey, Trail

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.catalog import Capability, Principal
    from broker.tasks import Task
    from broker.trail import Step


class Action(StrEnum):
    """What can be asked for."""

    OPEN_TASK = "open_task"
    DELEGATE = "delegate"
    ISSUE_GRANT = "issue_grant"
    CALL_TOOL = "call_tool"
    ELEVATE = "elevate"
    APPROVE = "approve"
    BREAK_GLASS = "break_glass"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Question:
    """One request, in Cedar's terms. ``resource`` is its type and id; both have their attributes.

    ``action`` is one of ``Action``, or ``call:NAME`` for a tool. ``yeses`` are the human ones to
    exactly this request; Cedar is told how many there are in all.
    """

    action: str
    principal: str
    resource: tuple[str, str]
    principal_attributes: Mapping[str, Any]
    resource_attributes: Mapping[str, Any]
    context: Mapping[str, Any] = field(repr=False)
    yeses: Yeses = field(default_factory=Yeses)

    def as_json(self) -> dict[str, Any]:
        """Return it for the log: everything but a tool's arguments."""
        context = {k: v for k, v in self.context.items() if k != "arguments"}
        groups = {"yeses": dict(self.yeses.groups)} if self.yeses.groups else {}
        return {
            "action": self.action,
            "principal": {"id": self.principal, **self.principal_attributes},
            "resource": {
                "type": self.resource[0],
                "id": self.resource[1],
                **self.resource_attributes,
            },
            "context": context,
            **groups,
        }

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Question:
        """Read one back from ``as_json``."""
        who, what = dict(row["principal"]), dict(row["resource"])
        return cls(
            row["action"],
            who.pop("id"),
            (what.pop("type"), what.pop("id")),
            who,
            what,
            row["context"],
            Yeses(int(row["context"].get("approvals", 0)), row.get("yeses")),
        )

    def breaking_glass(self, caller: str, asker: str) -> Question:
        """Ask whether the glass may be broken for this, which ``asker`` has done."""
        context = {k: v for k, v in self.context.items() if k not in ("arguments", "destination")}
        return replace(
            self,
            action=str(Action.BREAK_GLASS),
            resource=("Capability", self.resource[1]),
            context={**context, "caller": caller, "asker": asker, "break_glass": True},
        )

    def approved(self, count: int) -> Question:
        """Return the same question with so many human yeses, from everybody it takes."""
        return replace(self.with_context(approvals=count), yeses=Yeses(count))

    def with_context(self, **changes: object) -> Question:
        """Return the same question at another moment."""
        return replace(self, context={**self.context, **changes})


@dataclass(frozen=True, slots=True)
class Moment:
    """What every question knows of its own circumstances.

    ``method`` is how the caller's identity was proved, ``bound`` whether its token is bound to a
    key. ``private`` are the data classes that count as private. ``approvals`` are the human yeses
    to exactly this request that there are.
    """

    now_ms: int
    environment: str
    method: str
    bound: bool
    private: frozenset[str]
    signals: Signals = field(default_factory=Signals)
    approvals: Yeses = field(default_factory=Yeses)

    def context(self) -> dict[str, Any]:
        """Return it as part of a question's context."""
        at = datetime.fromtimestamp(self.now_ms / 1000, UTC)
        return {
            "time": {
                "now": _extension("datetime", to_rfc3339(self.now_ms)),
                "hour": at.hour,
                "minute": at.minute,
                "weekday": at.isoweekday(),
            },
            "environment": self.environment,
            "proof": {"bound": self.bound, "method": self.method},
            "approvals": self.approvals.total,
            "risk": self.signals.risk,
            "verdict": self.signals.verdict,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a credential or a tool call is wanted for, beside the capability itself.

    ``elevate`` asks to have it for a while, ``break_glass`` to have it with nobody asked;
    ``elevated`` says that this is so. ``asker`` is the name of who asks, ``caller`` its role.
    """

    caller: str
    asker: str = ""
    ttl_ms: int = 0
    intent: str = ""
    destination: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] | None = None
    elevate: bool = False
    elevated: bool = False
    break_glass: bool = False
    glass_broken: bool = False
    ledger_durable: bool = True

    @property
    def more(self) -> bool:
        """Whether the task is to have what its own list needn't have."""
        return self.elevated or self.elevate or self.break_glass


def using(
    agent: Principal,
    capability: Capability,
    task: Task,
    survey: Survey,
    step: Step,
    use: Use,
    moment: Moment,
) -> Question:
    """Ask for a credential, or for a tool call."""
    is_call = capability.is_tool and not (use.elevate or use.break_glass)
    after = survey.chain.after(step)
    adds = exposure(Trail().after(step), moment.private)
    context: dict[str, Any] = {
        "caller": use.caller,
        "asker": use.asker,
        "task": _task(
            task,
            survey,
            moment,
            capability.name if use.more else "",
        ),
        "chain": {**trail_context(survey.chain, moment.private), "tasks": survey.tasks},
        "after": trail_context(after, moment.private),
        "adds": {
            "effects": sorted(step.effects),
            "data_class": step.data_class,
            **_exposure(adds),
            "amount": _amount(step.amount),
        },
        "power": tier(after, moment.private),
        "elevated": use.elevated,
        "break_glass": use.glass_broken or use.break_glass,
        "ledger_durable": use.ledger_durable,
        "ttl": use.ttl_ms // 1000,
        **moment.context(),
    }
    optional = {
        "intent": use.intent,
        "destination": use.destination,
        "arguments": use.arguments if is_call else None,
    }
    context |= {k: v for k, v in optional.items() if v or (k == "arguments" and v is not None)}
    action = f"{CALL}{capability.name}" if is_call else str(Action.ISSUE_GRANT)
    if use.elevate:
        action = str(Action.ELEVATE)
    if use.break_glass:
        action = str(Action.BREAK_GLASS)
    return Question(
        action,
        agent.name,
        ("Tool" if is_call else "Capability", capability.name),
        _principal(agent),
        {
            "name": capability.name,
            "power": capability.power,
            "backend": capability.backend,
            "data_class": capability.data_class,
            "effects": sorted(capability.effects),
            "instant": capability.revocability is Revocability.INSTANT,
        },
        context,
        moment.approvals,
    )


def opening(  # noqa: PLR0913  all that is known of a task before there is one
    caller: Principal,
    agent: Principal,
    capabilities: Iterable[Capability],
    *,
    purpose: str,
    on_behalf_of: str,
    ttl_ms: int,
    parent: Task | None,
    survey: Survey,
    moment: Moment,
) -> Question:
    """Ask to open a task for an agent; below ``parent`` that is delegating."""
    wanted = list(capabilities)
    context: dict[str, Any] = {
        "capabilities": sorted(c.name for c in wanted),
        "powers": sorted({c.power for c in wanted}),
        "data_classes": sorted({c.data_class for c in wanted}),
        "effects": sorted(frozenset[str]().union(*(c.effects for c in wanted))),
        "purpose": purpose,
        "ttl": ttl_ms // 1000,
        "on_behalf_of": on_behalf_of,
        "depth": parent.depth + 1 if parent else 0,
        "chain": {**trail_context(survey.chain, moment.private), "tasks": survey.tasks},
        **moment.context(),
    }
    if parent is not None:
        context["parent"] = {
            "id": parent.id,
            "agent": parent.agent,
            "purpose": parent.purpose,
            "capabilities": sorted(parent.capabilities),
            "agents": sorted(parent.actors),
            "left": max(parent.expires_at - moment.now_ms, 0) // 1000,
        }
    return Question(
        str(Action.OPEN_TASK if parent is None else Action.DELEGATE),
        caller.name,
        ("Principal", agent.name),
        _principal(caller),
        _principal(agent),
        context,
        moment.approvals,
    )


def operating(caller: Principal, operation: str, selector: str, moment: Moment) -> Question:
    """Ask to do what operators do: ``revoke``, ``freeze``, ``signal`` and so on."""
    context = moment.context()
    if selector:
        context["selector"] = selector
    return Question(
        str(Action.OPERATE),
        caller.name,
        ("Operation", operation),
        _principal(caller),
        {},
        context,
    )


def approving(
    caller: Principal, approval_id: str, about: Mapping[str, str], moment: Moment
) -> Question:
    """Ask to say yes to a request; ``about`` are the attributes of the schema's ``Approval``."""
    return Question(
        str(Action.APPROVE),
        caller.name,
        ("Approval", approval_id),
        _principal(caller),
        about,
        moment.context(),
    )


def _principal(principal: Principal) -> dict[str, Any]:
    return {
        "name": principal.name,
        "role": principal.role,
        "owner": principal.owner,
        "capabilities": sorted(principal.capabilities),
    }


def _task(task: Task, survey: Survey, moment: Moment, elevated_to: str) -> dict[str, Any]:
    return {
        "id": task.id,
        "purpose": task.purpose,
        "on_behalf_of": task.subject,
        "capabilities": sorted({*task.capabilities, *([elevated_to] if elevated_to else [])}),
        "age": max(moment.now_ms - task.created_at, 0) // 1000,
        "left": max(task.expires_at - moment.now_ms, 0) // 1000,
        "depth": task.depth,
        "heartbeat": task.heartbeat_ms > 0,
        "trail": trail_context(survey.task, moment.private),
    }


def trail_context(trail: Trail, private: frozenset[str]) -> dict[str, Any]:
    """Write a trail as the schema's attributes of one."""
    return {
        "effects": sorted(trail.effects),
        "data_classes": sorted(trail.data_classes),
        "ways": sorted(trail.ways),
        "grants": trail.grants,
        "calls": trail.calls,
        "amount": _amount(trail.amount),
        "power": tier(trail, private),
        "way_out": any(way.startswith(EGRESS) for way in trail.ways),
        **_exposure(exposure(trail, private)),
    }


def _exposure(exposed: Exposure) -> dict[str, bool]:
    return {
        "private": exposed.private,
        "untrusted": exposed.untrusted,
        "egress": exposed.egress,
    }


def _amount(ten_thousandths: int) -> dict[str, Any]:
    whole, rest = divmod(abs(ten_thousandths), AMOUNT_SCALE)
    sign = "-" if ten_thousandths < 0 else ""
    return _extension("decimal", f"{sign}{whole}.{rest:04d}")


def _extension(function: str, argument: str) -> dict[str, Any]:
    """Write a value of one of Cedar's extension types."""
    return {"__extn": {"fn": function, "arg": argument}}
