"""The programs in examples/, run as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.examples.running import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.running import Place

PROGRAMS = sorted(EXAMPLES.glob("*.py"))
LONGEST = 120


def task_ids(place: Place, purpose: str) -> dict[str, str]:
    """The states of tasks with a purpose, by their ids."""
    found = place.ask("task", "list")
    return {task["task_id"]: task["state"] for task in found if task["purpose"] == purpose}


def test_an_agent_loop_is_stopped_on_its_way_out(place: Place) -> None:
    said = place.example("agent_loop.py").splitlines()
    assert said[0] == "send-email: sent to boss@example.com"
    assert said[1] == "customer-lookup: Customer 7: IN"
    assert said[2].startswith("fetch-page: Great gears!")
    assert said[3].startswith("send-email: refused: send-email: ")
    assert "approval" in said[3]
    ((task_id, state),) = task_ids(place, "tell the boss about orders").items()
    assert (said[4], state) == (f"{task_id}: completed", "completed")
    (grant,) = place.ask("grant", "list", "--task", task_id)
    assert grant["state"] == "revoked"
    types = [event["type"] for event in place.ask("audit", "list", "--task", task_id)]
    assert types.count("execution") == 3


def test_an_orchestrator_and_its_agents(place: Place) -> None:
    said = place.example("orchestrator.py").splitlines()
    assert said == [
        "count the orders: 200 orders",
        "explain the returns: failed, the model has no idea",
        "tell the boss: sent 'Orders' to boss@example.com",
    ]
    purposes = ("close the week", "count the orders", "explain the returns", "tell the boss")
    states = [state for purpose in purposes for state in task_ids(place, purpose).values()]
    assert states == ["completed", "completed", "failed", "completed"]
    tasks = [task for purpose in purposes for task in task_ids(place, purpose)]
    grants = [grant for task in tasks for grant in place.ask("grant", "list", "--task", task)]
    assert sorted(grant["capability"] for grant in grants) == ["orders-read", "orders-read"]
    assert {grant["state"] for grant in grants} == {"revoked"}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_each_says_how_it_is_run_and_is_short(program: Path) -> None:
    text = program.read_text("utf-8")
    header = re.match(r'"""(.*?)"""', text, re.DOTALL)
    assert header is not None
    assert f"python examples/{program.name}" in header[1]
    assert 'eval "$(broker dev token orchestrator --env)"' in header[1]
    assert len(text.splitlines()) <= LONGEST
