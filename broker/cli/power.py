"""``broker task power`` and ``broker agent unused``: what can be done, and what never was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection, duration
from broker.cli.text import ago, plural, when
from broker.cli.watching import watchable
from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.client import AgentPower, CapabilityUse, ShownPrincipal, TaskPower, TrailPower

_EXPOSURES: Final = {"private": "private data", "untrusted": "untrusted input", "egress": "way out"}


@watchable
def task_power(
    task: Annotated[str, Parameter(help="The task's id.", metavar="TASK", name="task")],
    /,
    *,
    connection: Connection = DEFAULT,
) -> None:
    """Show what a task and its chain can do now."""
    found = connection.ask(task, lambda broker: broker.get_task_power(task))
    if connection.json:
        output.model(found)
        return
    output.record(_lines(found))


def _lines(found: TaskPower) -> Mapping[str, str | None]:
    exposed = [words for name, words in _EXPOSURES.items() if found.exposure.get(name)]
    chain = found.chain
    return {
        "task": found.task_id,
        "power": found.power or "none",
        "because": "; ".join(found.because),
        "exposed to": ", ".join(exposed),
        "usable": ", ".join(found.usable),
        "it has done": _done(found.own),
        "its chain": chain.root_task_id if chain else None,
        "tasks": str(chain.tasks) if chain else None,
        "they have done": _done(chain) if chain else None,
        "for decisions": chain.power if chain else found.own.power,
    }


def _done(trail: TrailPower) -> str:
    touched = [*trail.effects, *(f"{name} data" for name in trail.data_classes)]
    counts = f"{plural(trail.grants, 'grant')}, {plural(trail.calls, 'call')}"
    return f"{counts}: {', '.join(touched) or 'no effects'}"


@watchable
def unused(
    *,
    since: Annotated[
        str, Parameter(help="How far back to look.", validator=duration, metavar="TIME")
    ] = "30d",
    everybody: Annotated[
        bool,
        Parameter(
            name="--all", help="Agents that used everything, too.", negative="", show_default=False
        ),
    ] = False,
    connection: Connection = DEFAULT,
) -> None:
    """List agents that are allowed what they didn't use."""
    with connection.client() as broker:
        report = broker.unused_power(since=since, everybody=everybody)
        items = [*report.items]
        cursor = report.next
        while cursor is not None:
            more = broker.unused_power(since=since, everybody=everybody, cursor=cursor)
            items += more.items
            cursor = more.next if more.next != cursor else None
    if connection.json:
        from broker.client.decoding import encode

        output.document({**encode(report), "items": [encode(row) for row in items], "next": None})
        return
    output.rows(
        ("agent", "owner", "unused", "enough", "power allowed", "power used"),
        (_row(agent) for agent in items),
        empty="Every agent has used all that it is allowed.",
    )
    known = when(report.recorded_since, SystemClock().now()) if report.recorded_since else "never"
    output.note(f"Uses are recorded since: {known}")


def _row(agent: AgentPower) -> tuple[str | None, ...]:
    return (
        agent.agent,
        agent.owner,
        ", ".join(f"{row.capability}{'?' if row.too_new else ''}" for row in agent.unused),
        ", ".join(agent.least) or "nothing",
        agent.power.allowed,
        agent.power.used or "none",
    )


def of_principal(principal: ShownPrincipal, now: float) -> Mapping[str, str | None]:
    """Return what ``broker agent show`` says of an agent's power and use."""
    power = principal.effective_power
    if power is None:
        return {}
    granted = {row.capability for row in principal.granted}
    used = {row.capability for row in principal.used}
    return {
        "effective power": power.power or "none",
        "because": "; ".join(power.because),
        "used": ", ".join(_uses(principal.used, now)),
        "not used": ", ".join(sorted(granted - used)),
    }


def _uses(rows: Iterable[CapabilityUse], now: float) -> Iterable[str]:
    return (f"{row.capability} ({ago(row.last_used_at, now)})" for row in rows)
