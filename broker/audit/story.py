"""What happened to a task, told from its events: intent, decisions, grants, executions, the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from broker.audit.record import TYPE_PREFIX
from broker.audit.sentences import Stage, allows_call, sentences
from broker.clock import to_rfc3339
from broker.events import Event

if TYPE_CHECKING:
    from collections.abc import Iterable

Data = Mapping[str, Any]

_ID: Final = re.compile(r"([0-9]+)-[0-9a-f]{2}-([0-9]+)")


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened. ``at`` is epoch milliseconds; ids are empty where there are none.

    ``event`` is the id of the event it is told from. ``text`` has what callers wrote in quotes.
    """

    at: int
    stage: Stage
    text: str
    principal: str
    task: str
    grant: str
    decision: str
    event: str

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON, without what is empty."""
        ids = {name: getattr(self, name) for name in ("principal", "task", "grant", "decision")}
        return {
            "time": to_rfc3339(self.at),
            "stage": self.stage,
            "text": self.text,
            **{name: value for name, value in ids.items() if value},
            "event": self.event,
        }


@dataclass(frozen=True, slots=True)
class Story:
    """A task's story, in the order in which it happened.

    ``live`` are the grants that were issued and aren't confirmed dead, ``unreported`` the decisions
    that allowed a tool call of which nobody said what became of it.
    """

    task: str
    purpose: str
    agent: str
    lines: tuple[Line, ...]
    live: tuple[str, ...]
    unreported: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "task": self.task,
            "purpose": self.purpose,
            "agent": self.agent,
            "lines": [line.as_json() for line in self.lines],
            "live": list(self.live),
            "unreported": list(self.unreported),
        }


def tell(task_id: str, events: Iterable[Event | Data]) -> Story:
    """Tell the story of a task, and of all below it if it is a root.

    ``events`` are the ledger's, CloudEvents from the log, or what the API answers; in any order,
    and those of other tasks are passed over.
    """
    every = [event if isinstance(event, Event) else read_event(event) for event in events]
    ours = sorted((e for e in every if task_id in (e.task_id, e.chain)), key=_order)
    opened: Data = {}
    for event in ours:
        if event.type == "task.opened" and event.task_id == task_id:
            opened = event.data
    return Story(
        task=task_id,
        purpose=str(opened.get("purpose", "")),
        agent=str(opened.get("agent", "")),
        lines=tuple(line for event in ours for line in _lines(event)),
        live=_live(ours),
        unreported=_unreported(ours),
    )


def read_event(row: Data) -> Event:
    """Read a CloudEvent, or an event as the API writes it.

    Raises:
        ValueError: it is neither.
    """
    try:
        cloud = "specversion" in row
        time = datetime.fromisoformat(row["time"])
        return Event(
            id=row["id"],
            at=round(time.timestamp() * 1000),
            type=str(row["type"]).removeprefix(TYPE_PREFIX if cloud else ""),
            task_id=row.get("task" if cloud else "task_id") or "",
            grant_id=row.get("grant" if cloud else "grant_id") or "",
            principal=row.get("principal") or "",
            data=row.get("data") or {},
            chain=row.get("chain") or "",
            decision=row.get("decision") or "",
            trace=row.get("traceparent") or "",
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError("not an event") from None


def _order(event: Event) -> tuple[int, int]:
    """Sort by the place in the shard's stream: all of a chain is in one."""
    match = _ID.fullmatch(event.id)
    return (int(match[1]), int(match[2])) if match else (event.at, 0)


def _lines(event: Event) -> list[Line]:
    decision = _decision(event)
    return [
        Line(
            at=event.at,
            stage=stage,
            text=text,
            principal=event.principal,
            task=event.task_id,
            grant=event.grant_id,
            decision=decision,
            event=event.id,
        )
        for stage, text in sentences(event)
    ]


def _decision(event: Event) -> str:
    """Return the decision that an event is, or is about."""
    own = event.data.get("id") if event.type == "decision" else ""
    return event.decision or str(event.data.get("decision") or own or "")


def _live(events: list[Event]) -> tuple[str, ...]:
    live: dict[str, bool] = {}
    for event in events:
        match event.type:
            case "grant.activated":
                live[event.grant_id] = True
            case "grant.late":  # of a closed one: whoever asked for it revokes it
                live.setdefault(event.grant_id, True)
            case "grant.revoked" | "grant.failed":
                live[event.grant_id] = False
            case _:
                pass
    return tuple(grant for grant, alive in live.items() if alive)


def _unreported(events: list[Event]) -> tuple[str, ...]:
    waiting: dict[str, bool] = {}
    for event in events:
        if event.type == "decision" and allows_call(event):
            waiting[_decision(event)] = True
        elif event.type == "execution":
            waiting[_decision(event)] = False
    return tuple(decision for decision, waits in waiting.items() if waits)
