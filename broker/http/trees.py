"""``/v1/tasks/{id}/tree``: a chain as a graph, with what each of its tasks can do and holds."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from broker.catalog import Power
from broker.http.api import TaskId as TaskPath
from broker.http.approval_shapes import Approval, Elevation
from broker.http.callers import By
from broker.http.callers import The as TheBroker
from broker.http.openapi import answers
from broker.http.shapes import AMOUNT, Account, Answer, Count, Grant, TaskId, Time, Words
from broker.oversight import Oversight
from broker.tasks import TaskState
from broker.trees import MOST_TASKS, Trees

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)


class PowerLevel(Answer):
    """A power, and why it is that one; null where nothing is live."""

    level: Power | None
    why: list[Words]


class ChainDone(Answer):
    """What all tasks of a chain have done, and the power that decisions see in it."""

    power: PowerLevel
    effects: list[Words]
    data_classes: list[Words]
    grants: Count
    calls: Count
    amount: Annotated[str, Field(pattern=AMOUNT)]
    tasks: Count


class TreeNode(Answer):
    """A task. Its `power` is what it can do together with all below it.

    `effects` and `data_classes` are what it has done itself. `depth` counts from the chain's root.
    None of its `grants`, `elevations` and `approvals` is over; an approval's `request` is null.
    """

    task_id: TaskId
    parent_task_id: TaskId | None
    state: TaskState
    agent: Words
    owner: Words
    purpose: Words
    capabilities: list[Words]
    created_by: Words
    on_behalf_of: Words
    created_at: Time
    expires_at: Time
    heartbeat_due_at: Time | None
    ended_at: Time | None
    closed_at: Time | None
    reason: Words | None
    budget: Account | None
    depth: Count
    power: PowerLevel
    effects: list[Words]
    data_classes: list[Words]
    grants: list[Grant]
    elevations: list[Elevation]
    approvals: list[Approval]


class TreeEdge(Answer):
    """A task, and one that was opened below it."""

    source: Annotated[TaskId, Field(alias="from")]
    to: TaskId


class TaskTree(Answer):
    """A task and all below it, level by level, with what isn't confirmed dead or over.

    Where it is `truncated` there is more than is shown, and the powers are of what is shown. `at`
    is the moment that countdowns count from. An agent's `chain` is null.
    """

    root_task_id: TaskId
    task_id: TaskId
    at: Time
    chain: ChainDone | None
    nodes: list[TreeNode]
    edges: list[TreeEdge]
    truncated: bool


def trees_of(request: Request) -> Trees:
    """Return the app's way to chains."""
    oversight: Oversight = request.app.state.oversight
    return oversight.trees


@router.get("/tasks/{task_id}/tree", responses=answers(200, TaskTree, 400, 403, 404))
async def show_tree(
    broker: TheBroker,
    trees: Annotated[Trees, Depends(trees_of)],
    caller: By,
    task_id: TaskPath,
    whole: Annotated[bool, Query()] = False,  # noqa: FBT002  its name in the query
    limit: Annotated[int, Query(ge=1, le=MOST_TASKS)] = MOST_TASKS,
) -> dict[str, Any]:
    """Show a task and all below it, or with ``whole`` its chain: power, effects, what is live.

    ``limit`` bounds the tasks, those nearest to the top first.
    """
    task = await broker.task(caller, task_id)
    return await trees.of_task(caller, task, whole=whole, limit=limit)
