"""Asking before a tool call, and saying afterwards what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from broker.client.building import Duration, duration, one, path_to
from broker.client.messages import send_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.client.messages import Call

_mapping = dict[str, Any]
Executed = Literal["succeeded", "failed", "not_executed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDecision:
    """Whether a call may be made. ``context`` has its ``decision_id``, and why not, or what for."""

    decision: bool
    context: Mapping[str, Any] = field(default_factory=_mapping)
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)

    @property
    def decision_id(self) -> str:
        """What its execution is reported under."""
        return str(self.context.get("decision_id", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A decision that is closed."""

    task_id: str
    decision_id: str
    outcome: str
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


def check_tool_call(
    task_id: str,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    destination: str | None = None,
    effects: Sequence[str] = (),
    intent: str | None = None,
) -> Call[ToolDecision]:
    """Ask whether a task may call a tool now, before each call. A denial is an answer.

    An allowed call is to be reported: ``report_execution``. ``destination`` is the URL or host it
    goes to, ``effects`` are those it will have beyond the catalogue's.
    """
    about = {
        "arguments": dict(arguments or {}),
        "destination": destination,
        "effects": list(effects) or None,
        "intent": intent,
    }
    document = {
        "subject": {"type": "task", "id": task_id},
        "action": {"name": "call_tool"},
        "resource": {"type": "tool", "id": tool},
        "context": {name: value for name, value in about.items() if value is not None},
    }
    # Asked again after a lost answer it would be another decision, and another call to count.
    return one(ToolDecision, send_json("POST", "/access/v1/evaluation", document))


def report_execution(
    task_id: str,
    decision_id: str,
    outcome: Executed,
    *,
    took: Duration | None = None,
    result_digest: str | None = None,
    error_type: str | None = None,
    effects: Sequence[str] = (),
) -> Call[Execution]:
    """Say what became of an allowed call: it closes the decision."""
    document = {
        "decision_id": decision_id,
        "outcome": outcome,
        "duration": duration(took),
        "result_digest": result_digest,
        "error_type": error_type,
        "effects": list(effects),
    }
    path = path_to("/v1/tasks", task_id, "executions")
    return one(Execution, send_json("POST", path, document))
