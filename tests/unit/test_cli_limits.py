"""``broker task open`` with limits, and how a task's limits are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_broker import TASK, FakeBroker

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run

OPEN = ("task", "open", "--agent", "payer", "--purpose", "invoices", "--capability", "pay.out")


def test_options_make_the_limits_of_the_request(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/tasks", 201, TASK)
    more = (
        *("--data-class", "internal", "--data-class", "public"),
        *("--effect", "writes:payments", "--delegate-to", "checker"),
        *("--parameter", "pay.out.to=acme", "--parameter", "pay.out.to=a=b"),
        *("--parameter", "pay.out.copies=2", "--parameter", "pay.out.urgent=true"),
        *("--parameter", 'pay.out.ref="7"', "--parameter", "pay.out.ref=[1]"),
        *("--budget", "calls=10", "--budget", "amount=250.00"),
    )
    assert run(*OPEN, *more).code == 0
    assert fake.last.json["limits"] == {
        "data_classes": ["internal", "public"],
        "effects": ["writes:payments"],
        "parameters": {
            "pay.out": {"to": ["acme", "a=b"], "copies": [2], "urgent": [True], "ref": ["7", "[1]"]}
        },
        "delegate_to": ["checker"],
        "budget": {"calls": 10, "amount": "250.00"},
    }


def test_without_them_there_are_none(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/tasks", 201, TASK)
    assert run(*OPEN).code == 0
    assert "limits" not in fake.last.json


@pytest.mark.parametrize(
    "option",
    [
        ("--parameter", "to=acme"),
        ("--parameter", "pay.out.to"),
        ("--parameter", ".to=acme"),
        ("--budget", "calls"),
        ("--budget", "calls=many"),
        ("--budget", "calls=-1"),
        ("--budget", "money=1"),
    ],
)
def test_what_is_no_limit_is_said(run: Run, option: tuple[str, str]) -> None:
    ran = run(*OPEN, *option)
    assert ran.code == 2
    assert option[0] in ran.err


def test_a_tasks_limits_and_what_is_left_are_shown(fake: FakeBroker, run: Run) -> None:
    limits = {
        "data_classes": ["internal"],
        "effects": [],
        "parameters": {"pay.out": {"to": ["acme", 7]}},
        "delegate_to": None,
        "budget": {"calls": 10},
    }
    calls = {"given": 10, "spent": 3, "reserved": 2, "left": 5}
    budget = {"grants": None, "calls": calls, "amount": None}
    fake.on(f"GET /v1/tasks/{TASK['task_id']}", 200, {**TASK, "limits": limits, "budget": budget})
    out = run("task", "show", TASK["task_id"]).out
    assert "internal" in out
    assert 'pay.out.to = "acme" or 7' in out
    assert "calls 5 of 10" in out
    assert "delegates to" not in out
