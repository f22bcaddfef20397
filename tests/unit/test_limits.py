"""Rules about a task's limits: who may be delegated to, and what it may use within them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from broker.catalog import Capability, Power, Principal
from broker.identity.models import Role
from broker.policy import OpenContext, UseContext, decide_call, decide_issue, decide_open
from broker.tasks import Task, TaskState
from broker.wire import OpenTask
from broker.wire_limits import MAX_LIMITS, AskLimits

HOUR = 3_600_000
PAY = Capability(
    "pay",
    Power.OPERATE,
    "tool",
    HOUR,
    HOUR,
    data_class="internal",
    effects=frozenset(["writes:payments"]),
    arguments={"to": ("string", False)},
)
READ = Capability("read", Power.READ, "token", HOUR, HOUR, data_class="public")
NAMES = frozenset(["pay", "read"])
WRITER = Principal(name="writer", role=Role.AGENT, owner="o", capabilities=NAMES)
CLERK = Principal(name="clerk", role=Role.AGENT, owner="o", capabilities=NAMES)
BOSS = Principal(name="boss", role=Role.ORCHESTRATOR, owner="o")
TASK = Task(
    id="tsk_1",
    state=TaskState.ACTIVE,
    agent="writer",
    owner="o",
    created_by="boss",
    orchestrator="boss",
    subject="boss",
    purpose="p",
    capabilities=("pay", "read"),
    parent_id="",
    root_id="tsk_1",
    actors=("writer",),
    depth=0,
    created_at=0,
    expires_at=HOUR,
)


def limited(**limits: Any) -> Task:
    return replace(TASK, limits=AskLimits.model_validate(limits).model_dump_json(exclude_none=True))


def opened(parent: Task = TASK, **changes: Any) -> tuple[str, tuple[str, ...]]:
    row: dict[str, Any] = {
        "caller": WRITER,
        "agent": CLERK,
        "capabilities": (PAY,),
        "ttl_ms": 1000,
        "max_ttl_ms": HOUR,
        "parent": parent,
        "max_depth": 3,
    }
    decision = decide_open(OpenContext(**{**row, **changes}))
    return ("" if decision.allowed else decision.reasons[0]), decision.notes


def used(task: Task, capability: Capability = PAY, **changes: Any) -> str:
    row: dict[str, Any] = {
        "caller": WRITER,
        "agent": WRITER,
        "task": task,
        "capability": capability,
        "asked_ttl_ms": 0,
        "now_ms": 0,
    }
    decide = decide_call if capability.is_tool else decide_issue
    decision = decide(UseContext(**{**row, **changes}))
    return "" if decision.allowed else decision.reasons[0]


@pytest.mark.parametrize("caller", [WRITER, BOSS])
def test_below_a_task_are_only_those_that_it_names(caller: Principal) -> None:
    assert opened(limited(delegate_to=["clerk"]), caller=caller)[0] == ""
    assert opened(limited(delegate_to=["other"]), caller=caller)[0] == "delegate_not_named"
    assert opened(limited(delegate_to=[]), caller=caller)[0] == "delegate_not_named"


def test_an_agent_opens_children_only_for_those_it_may_delegate_to() -> None:
    assert opened(caller=replace(WRITER, delegates_to=frozenset(["clerk"])))[0] == ""
    assert opened(caller=replace(WRITER, delegates_to=frozenset()))[0] == "delegate_not_named"
    both = replace(WRITER, delegates_to=frozenset(["clerk"]))
    assert opened(limited(delegate_to=["writer"]), caller=both)[0] == "delegate_not_named"


def test_a_circle_is_refused_unless_the_configuration_allows_it() -> None:
    assert opened(agent=WRITER)[0] == "chain_has_a_cycle"
    assert opened(agent=WRITER, cycles=True)[0] == ""
    deep = replace(TASK, depth=3)
    assert opened(deep, agent=WRITER, cycles=True)[0] == "chain_too_deep"


@pytest.mark.parametrize(
    ("have", "ask", "part"),
    [
        ({"data_classes": ["public"]}, {"data_classes": ["public", "internal"]}, "data_classes"),
        ({"effects": []}, {"effects": ["writes:payments"]}, "effects"),
        ({"delegate_to": ["clerk"]}, {"delegate_to": ["boss"]}, "delegate_to"),
        (
            {"parameters": {"pay": {"to": ["acme"]}}},
            {"parameters": {"pay": {"to": ["acme", "evil"]}}},
            "parameters.pay.to",
        ),
    ],
)
def test_to_ask_for_more_is_refused_and_the_part_named(
    have: dict[str, Any], ask: dict[str, Any], part: str
) -> None:
    assert opened(limited(**have), limits=ask) == ("more_than_parent", (part,))
    assert opened(limited(**have), limits=have)[0] == ""
    assert opened(limited(**have))[0] == ""
    assert opened(limits=ask)[0] == "", "where nothing is limited, any limit is less"


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({}, ""),
        ({"data_classes": ["internal"]}, ""),
        ({"data_classes": ["public"]}, "data_class_outside_limits"),
        ({"data_classes": []}, "data_class_outside_limits"),
        ({"effects": ["writes:payments", "reads:orders"]}, ""),
        ({"effects": ["reads:orders"]}, "effect_outside_limits"),
        ({"parameters": {"pay": {"to": ["acme"]}}}, ""),
        ({"parameters": {"pay": {"to": ["other"]}}}, "parameter_outside_limits"),
        ({"parameters": {"read": {"to": ["other"]}}}, ""),
    ],
)
def test_a_call_stays_within_its_tasks_limits(limits: dict[str, Any], why: str) -> None:
    assert used(limited(**limits), given={"to": "acme"}) == why


def test_effects_that_the_request_adds_count_too() -> None:
    task = limited(effects=["writes:payments"])
    assert used(task, effects=frozenset(["writes:payments"])) == ""
    assert used(task, effects=frozenset(["egress:internet"])) == "effect_outside_limits"


def test_a_credential_stays_within_them_likewise() -> None:
    assert used(limited(data_classes=["public"], effects=[]), READ) == ""
    assert used(limited(data_classes=["internal"]), READ) == "data_class_outside_limits"
    task = limited(parameters={"read": {"scope": ["a"]}})
    assert used(task, READ, given={"scope": "a"}) == ""
    assert used(task, READ) == "parameter_outside_limits"


def test_too_little_left_is_refused() -> None:
    assert used(TASK, short_of="calls") == "budget_exhausted"
    assert used(TASK, READ, short_of="grants") == "budget_exhausted"


ASK = {"agent": "a", "purpose": "p", "capabilities": ["pay"]}


def test_a_whole_number_may_be_written_as_json_lets_it() -> None:
    asked = OpenTask.model_validate({**ASK, "limits": {"budget": {"calls": 3.0}}})
    assert asked.limits is not None
    assert asked.limits.budget is not None
    assert asked.limits.budget.rows() == {"calls": {"given": "3"}}


@pytest.mark.parametrize(
    "limits",
    [
        {"data_classes": "public"},
        {"data_class": ["public"]},
        {"effects": ["no effect"]},
        {"parameters": {}},
        {"parameters": {"pay": {}}},
        {"parameters": {"pay": {"to": "acme"}}},
        {"parameters": {"pay": {"to": [None]}}},
        {"parameters": {"pay": {"to": [["acme"]]}}},
        {"parameters": {"pay": {"to": [float("nan")]}}},
        {"parameters": {"pay": {"to": [2**64]}}},
        {"parameters": {"pay": {"to": ["\ud800"]}}},
        {"parameters": {"pay": {"no name": ["acme"]}}},
        {"parameters": {"pay": {"to": ["x" * 1000 for _ in range(MAX_LIMITS // 1000 + 1)]}}},
        {"budget": {"calls": -1}},
        {"budget": {"calls": 1.5}},
        {"budget": {"calls": True}},
        {"budget": {"calls": "10"}},
        {"budget": {"amount": 10}},
        {"budget": {"amount": "1e3"}},
        {"budget": {"amount": "-1"}},
        {"budget": {"amount": "0.00001"}},
        {"budget": {"amount": "10000000000"}},
        {"budget": {"money": 1}},
    ],
)
def test_limits_that_are_none_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OpenTask.model_validate({**ASK, "limits": limits})
