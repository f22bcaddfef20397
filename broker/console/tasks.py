"""*Tasks*: looking for one, and each as a story: what was wanted, decided, done, issued, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from broker.audit.story import Story, tell
from broker.clock import to_rfc3339
from broker.console.graph import HEIGHT, WIDTH, draw
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.http.api import Cursor, OfTask, Word
from broker.tasks import TaskState
from broker.wire import task_json

if TYPE_CHECKING:
    from broker.console.routing import Visit

pages = Pages()
_ON_A_PAGE: Final = 50
_EVENTS: Final = 500
_READS: Final = 20
"""How often events are read for one story, at most so many at a time."""


@pages.get("/tasks", Right.READ)
async def tasks(
    visit: Here,
    *,
    state: OfTask = "",
    agent: Word = "",
    owner: Word = "",
    capability: Word = "",
    text: Word = "",
    cursor: Cursor = "",
) -> Response:
    """List the tasks that are looked for, newest first."""
    sought = {
        "text": text.strip(),
        "state": state,
        "agent": agent.strip(),
        "owner": owner.strip(),
        "capability": capability.strip(),
    }
    found = await visit.console.broker.tasks(
        visit.caller,
        state=sought["state"],
        agent=sought["agent"],
        owner=sought["owner"],
        capability=sought["capability"],
        text=sought["text"],
        limit=_ON_A_PAGE,
        cursor=cursor,
    )
    said = {name: value for name, value in sought.items() if value}
    following = urlencode({**said, "cursor": found["next"]}) if found["next"] else ""
    return visit.page(
        "tasks.html",
        title="Tasks",
        tasks=found["items"],
        sought=sought,
        filtered=bool(said),
        following=following,
        first=not cursor,
        states=[str(one) for one in TaskState],
        now=to_rfc3339(await visit.console.broker.pipeline.queries.now()),
    )


@pages.get("/tasks/{task_id}", Right.READ)
async def task(visit: Here, task_id: str) -> Response:
    """Tell a task's story, and draw its chain."""
    console, caller = visit.console, visit.caller
    found = await console.broker.task(caller, task_id)
    tree = await console.oversight.trees.of_task(caller, found, whole=True)
    held = await console.broker.grants(
        caller, task_id=task_id, agent="", state="", limit=_EVENTS, cursor=""
    )
    story, more = await _story(visit, task_id)
    live = found.state in (TaskState.ACTIVE, TaskState.PENDING_APPROVAL)
    return visit.page(
        "task.html",
        title=f"Task of {found.agent}",
        task=task_json(found),
        live=live or any(node["grants"] for node in tree["nodes"] if node["task_id"] == task_id),
        tree=tree,
        node=next((n for n in tree["nodes"] if n["task_id"] == task_id), None),
        drawing=draw(tree["nodes"], tree["edges"]),
        box={"width": WIDTH, "height": HEIGHT},
        grants=held["items"],
        story=story,
        lines=[{"principal": "", "grant": "", **line.as_json()} for line in story.lines],
        more=more,
        now=tree["at"],
    )


async def _story(visit: Visit, task_id: str) -> tuple[Story, bool]:
    """Return the story as far as the ledger has it, and whether there is more of it."""
    events: list[dict[str, Any]] = []
    after = ""
    for _ in range(_READS):
        page = await visit.console.broker.operators.events(
            visit.caller, task_id=task_id, after=after, limit=_EVENTS
        )
        events += page["items"]
        after = page["next"] or ""
        if not after:
            break
    return tell(task_id, events), bool(after)
