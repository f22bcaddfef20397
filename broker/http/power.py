"""``/v1/tasks/{id}/power``: what a task and its chain can do now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from broker.catalog import Power
from broker.http.api import TaskId as TaskPath
from broker.http.callers import By
from broker.http.callers import The as TheBroker
from broker.http.openapi import answers
from broker.http.shapes import Answer, Count, TaskId, Words
from broker.oversight import Oversight
from broker.reach import Reach

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)


class Powerful(Answer):
    """A power, and why it is that one; null where nothing is live."""

    power: Power | None
    because: list[Words]


class Exposure(Answer):
    """What it can get at, or has: all three together make it `privileged`."""

    private: bool
    untrusted: bool
    egress: bool


class Trail(Powerful):
    """What was done so far, and the power that decisions see in it."""

    effects: list[Words]
    data_classes: list[Words]
    grants: Count
    calls: Count


class ChainTrail(Trail):
    """What all tasks of a chain have done."""

    root_task_id: TaskId
    tasks: Count


class TaskPower(Powerful):
    """What a task and its chain can do now.

    `usable` are the capabilities of credentials that aren't confirmed dead, and the tools that may
    be called. An agent is told of its own task and those below it alone: its `chain` is null.
    """

    task_id: TaskId
    exposure: Exposure
    usable: list[Words]
    own: Trail
    chain: ChainTrail | None


def reach_of(request: Request) -> Reach:
    """Return the app's way to effective power."""
    oversight: Oversight = request.app.state.oversight
    return oversight.reach


@router.get("/tasks/{task_id}/power", responses=answers(200, TaskPower, 404))
async def show_power(
    broker: TheBroker,
    reach: Annotated[Reach, Depends(reach_of)],
    caller: By,
    task_id: TaskPath,
) -> dict[str, Any]:
    """Show what a task and its chain can do now, taken together, and why that is so much."""
    task = await broker.task(caller, task_id)
    return await reach.of_task(task, whole=caller.task is None)
