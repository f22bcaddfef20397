"""``broker task tree``: a chain as it stands, with what each of its tasks can do and holds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection
from broker.cli.output import Branch
from broker.cli.refusals import UsageError
from broker.cli.text import ago, clipped, plural, span
from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from broker.cli.output import Part
    from broker.client import Approval, ApprovalNeed, Elevation, Grant, TaskTree, TreeNode

_AGAIN_S: Final = 2.0
_PURPOSE: Final = 70
_LIVE: Final = frozenset(("active", "pending_approval"))


def task_tree(
    task: Annotated[str, Parameter(help="The task's id.", metavar="TASK", name="task")],
    /,
    *,
    whole: Annotated[
        bool,
        Parameter(
            help="Its whole chain, from the root; not for agents.", negative="", show_default=False
        ),
    ] = False,
    watch: Annotated[
        bool,
        Parameter(
            help="Draw it again every two seconds, until all of it is dead.",
            negative="",
            show_default=False,
        ),
    ] = False,
    connection: Connection = DEFAULT,
) -> None:
    """Draw a task and all below it."""
    if watch and connection.json:
        raise UsageError("--watch and --json exclude each other")
    while True:
        found = connection.ask(task, lambda broker: broker.task_tree(task, whole=whole))
        if connection.json:
            output.model(found)
            return
        if watch:
            output.erase()
        _draw(found)
        if not watch or not _lives(found):
            return
        sys.stdout.write("\n")
        sys.stdout.flush()
        time.sleep(_AGAIN_S)


def _lives(found: TaskTree) -> bool:
    return any(node.state in _LIVE or node.grants for node in found.nodes)


def _draw(found: TaskTree) -> None:
    if found.chain is not None:
        done = found.chain
        counts = (plural(done.tasks, "task"), plural(done.grants, "grant"))
        output.line(
            f"chain {found.root_task_id}: {', '.join(counts)}, {plural(done.calls, 'call')}"
        )
        touched = [*done.effects, *(f"{name} data" for name in done.data_classes)]
        why = "; ".join(done.power.why)
        output.line(f"for decisions: {done.power.level or 'none'} ({why})")
        output.line(f"it has done: {', '.join(touched) or 'nothing'}")
        output.line("")
    now = found.at.timestamp() if found.at else SystemClock().now()
    # Said only in a chain drawn whole: else it is the one at the top.
    asked = "" if [n.task_id for n in found.nodes[:1]] == [found.task_id] else found.task_id
    branches = {n.task_id: _branch(n, now, asked=n.task_id == asked) for n in found.nodes}
    hung: set[str] = set()
    for edge in found.edges:
        above, below = branches.get(str(edge.get("from"))), branches.get(str(edge.get("to")))
        if above is not None and below is not None:
            above.below.append(below)
            hung.add(str(edge.get("to")))
    output.tree(branch for name, branch in branches.items() if name not in hung)
    if found.truncated:
        output.note(
            f"There is more: only the first {plural(len(found.nodes), 'task')} of it, and not all "
            "that they hold, can be shown, and powers are of what is shown. Ask for a task "
            "further down."
        )


def _branch(node: TreeNode, now: float, *, asked: bool) -> Branch:
    live = node.state in _LIVE
    power = node.power.level
    first: list[Part] = [(node.task_id, "strong" if live else ""), (node.agent, "")]
    first.append((node.state, "state" if live else ""))
    if live:
        first.append((f"ends {ago(node.expires_at, now)}", ""))
    elif node.reason:
        first.append((clipped(node.reason, _PURPOSE), ""))
    first += [("<- this one", "strong")] if asked else []
    can: list[Part] = [(power, "power")] if power else []
    can += [(", ".join(node.effects), "")] if node.effects else []
    can += [(_left(node.budget), "")] if node.budget and live else []
    lines = [first, [(clipped(node.purpose, _PURPOSE), "")], *([can] if can else [])]
    return Branch(lines, [*_held(node, now)], dim=not live and not node.grants)


def _held(node: TreeNode, now: float) -> Iterator[Branch]:
    yield from (Branch([_grant(grant, now)]) for grant in node.grants)
    yield from (Branch([_elevation(elevation, now)]) for elevation in node.elevations)
    yield from (Branch([_approval(approval, now)]) for approval in node.approvals)


def _grant(grant: Grant, now: float) -> list[Part]:
    parts: list[Part] = [(grant.capability, ""), (grant.state, "state")]
    match grant.state:
        case "revoking" | "stuck":
            parts.append((f"for {_since(grant.revoke_requested_at, now)}", ""))
            if grant.attempts and grant.next_attempt_at:
                again = (
                    f"{plural(grant.attempts, 'attempt')}, next {ago(grant.next_attempt_at, now)}"
                )
                parts.append((again, ""))
        case _:
            parts.append((f"dies {ago(grant.expires_at, now)}", ""))
    return [*parts, (grant.grant_id, "dim")]


def _elevation(elevation: Elevation, now: float) -> list[Part]:
    glass = elevation.break_glass
    parts: list[Part] = [("glass broken" if glass else "elevated", "alarm" if glass else "strong")]
    parts += [(elevation.capability, ""), (f"ends {ago(elevation.expires_at, now)}", "")]
    if elevation.heartbeat_due_at:
        parts.append((f"heartbeat due {ago(elevation.heartbeat_due_at, now)}", ""))
    return [*parts, (elevation.elevation_id, "dim")]


def _approval(approval: Approval, now: float) -> list[Part]:
    waits = approval.state == "pending"
    parts: list[Part] = [("waits for approval" if waits else approval.state, "strong")]
    parts.append((approval.capability or approval.action, ""))
    if waits:
        parts += [(_have(need), "") for need in approval.needs]
    return [*parts, (f"expires {ago(approval.expires_at, now)}", ""), (approval.approval_id, "dim")]


def _have(need: ApprovalNeed) -> str:
    said = f"{need.have} of {need.count}"
    return f"{said} of {need.group}" if need.group else said


def _left(budget: Mapping[str, Any]) -> str:
    """Say what is left of each kind that is bounded here."""
    rows = sorted((kind, row) for kind, row in budget.items() if row)
    return ", ".join(f"{kind} {row.get('left')} of {row.get('given')} left" for kind, row in rows)


def _since(moment: datetime | None, now: float) -> str:
    return span(max(0, round(now - moment.timestamp()))) if moment else "-"
