"""Policies of an operator's own: on arguments, destinations, sums, counts and times."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.errors import ConfigError
from tests.http.deciding import DecisionWorld, decision_config

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

POLICIES: Final = """
@id("mail-stays-inside")
@advice("Mail goes to example.com alone.")
forbid (principal, action == Action::"call:mail-out", resource) unless {
  context has destination &&
  context.destination.scheme == "smtps" &&
  context.destination.within.contains("example.com") &&
  !context.destination.ip
};

@id("few-copies")
forbid (principal, action == Action::"call:mail-out", resource) when {
  context.arguments has copies && context.arguments.copies > 3
};

@id("light-and-not-to-all")
forbid (principal, action == Action::"call:mail-out", resource) when {
  context.arguments.to.contains("all@example.com") ||
  (context.arguments has weight && context.arguments.weight.greaterThan(decimal("1.5"))) ||
  (context.arguments has urgent && context.arguments.urgent && !(context has intent))
};

@id("a-hundred-in-all")
@advice("The chain may pay 100 in all.")
forbid (principal, action == Action::"call:pay-out", resource) when {
  context.after.amount.greaterThan(decimal("100.0"))
};

@id("three-notes")
forbid (principal, action == Action::"call:note", resource) unless {
  context.chain.calls < 3
};

@id("pages-in-the-past")
forbid (principal, action == Action::"call:web-fetch", resource) when {
  context.time.now > datetime("2001-01-01T00:00:00Z") && context.environment == "testing"
};

@id("overflows")
forbid (principal, action == Action::"call:refund", resource) when {
  context.arguments.order * 9223372036854775807 < 0
};

@id("customers-are-logged")
@log_arguments
permit (principal, action == Action::"call:crm-read", resource);
"""
INSIDE: Final = "smtps://mx.example.com"
COPIES: Final = {"to": ["a@example.com"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.cedar").write_text(POLICIES, "utf-8")
    return tmp_path


@pytest.fixture
async def strict(engines: tuple[DevStack, Config], folder: Path) -> AsyncGenerator[DecisionWorld]:
    config = decision_config(engines[0], policies=folder, policy={"environment": "testing"})
    made = DecisionWorld(engines[0].issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def test_a_call_goes_where_policy_lets_it(strict: DecisionWorld) -> None:
    task = await strict.task()

    for destination, allowed in (
        (INSIDE, True),
        ("SMTPS://MX.EXAMPLE.COM:2465", True),
        ("smtps://example.com", True),
        ("smtp://mx.example.com", False),
        ("mx.example.com", False),
        ("smtps://example.com.evil.example", False),
        ("smtps://evilexample.com", False),
        ("smtps://10.0.0.1", False),
    ):
        found = await strict.decide(task, "mail.send", destination=destination)
        assert found["decision"] is allowed, destination
        if not allowed:
            assert found["context"]["advice"] == ["Mail goes to example.com alone."]
    assert not await strict.allows(task, "mail.send"), "a destination that isn't said is none"
    for odd in ("smtps://mx.example.com@evil.example", "", "smtps://mx.example.com\\@x"):
        found = await strict.decide(task, "mail.send", destination=odd)
        assert found["context"]["reason"] == "destination_not_plain", odd


@pytest.mark.parametrize(
    ("arguments", "about", "allowed"),
    [
        (COPIES, {}, True),
        ({**COPIES, "copies": 3}, {}, True),
        ({**COPIES, "copies": 3.0}, {}, True),
        ({**COPIES, "copies": 4}, {}, False),
        ({**COPIES, "copies": -1}, {}, True),
        ({**COPIES, "weight": 1.5}, {}, True),
        ({**COPIES, "weight": 1.5001}, {}, False),
        ({**COPIES, "weight": 2}, {}, False),
        ({"to": ["a@example.com", "all@example.com"]}, {}, False),
        ({**COPIES, "urgent": False}, {}, True),
        ({**COPIES, "urgent": True}, {}, False),
        ({**COPIES, "urgent": True}, {"intent": "the house is on fire"}, True),
    ],
)
async def test_policies_look_at_arguments_with_their_types(
    strict: DecisionWorld, arguments: dict[str, Any], about: dict[str, Any], *, allowed: bool
) -> None:
    task = await strict.task()
    found = await strict.decide(task, "mail.send", arguments=arguments, destination=INSIDE, **about)
    assert found["decision"] is allowed


@pytest.mark.parametrize(
    ("arguments", "reason", "name"),
    [
        ({**COPIES, "bcc": "x@evil.example"}, "unknown_argument", "bcc"),
        ({"subject": "hello"}, "missing_argument", "to"),
        ({}, "missing_argument", "to"),
        ({"to": "a@example.com"}, "not_a_list_of_strings", "to"),
        ({"to": [["a@example.com"]]}, "not_a_string", "to"),
        ({**COPIES, "copies": True}, "not_an_integer", "copies"),
        ({**COPIES, "copies": "1"}, "not_an_integer", "copies"),
        ({**COPIES, "copies": 1.5}, "not_an_integer", "copies"),
        ({**COPIES, "copies": 2**63}, "not_an_integer", "copies"),
        ({**COPIES, "copies": None}, "not_an_integer", "copies"),
        ({**COPIES, "urgent": 0}, "not_a_boolean", "urgent"),
        ({**COPIES, "weight": 0.00001}, "not_a_number", "weight"),
        ({**COPIES, "weight": "1"}, "not_a_number", "weight"),
        ({**COPIES, "weight": 1e300}, "not_a_number", "weight"),
    ],
)
async def test_what_is_not_declared_is_refused_before_any_policy(
    strict: DecisionWorld, arguments: dict[str, Any], reason: str, name: str
) -> None:
    task = await strict.task()

    found = await strict.decide(task, "mail.send", arguments=arguments, destination=INSIDE)

    assert found["decision"] is False
    assert found["context"]["reason"] == reason
    assert f"argument {name}:" in found["context"]["reason_user"]["en"]
    (event,) = await strict.decisions(task)
    assert event["data"]["notes"] == [f"argument {name}"]
    assert "question" not in event["data"]


@pytest.mark.parametrize("body", ["NaN", "Infinity", "1e999"])
async def test_a_number_that_is_none_is_no_argument(strict: DecisionWorld, body: str) -> None:
    task = await strict.task()
    text = (
        f'{{"subject": {{"type": "task", "id": "{task["task_id"]}"}}, "action": '
        '{"name": "call_tool"}, "resource": {"type": "tool", "id": "pay", "properties": '
        f'{{"arguments": {{"to": "x", "amount": {body}}}}}}}}}'
    )
    answer = await strict.post("/access/v1/evaluation", text.encode(), task=task)
    assert answer.status_code == 400


async def test_amounts_add_up_over_the_chain(strict: DecisionWorld) -> None:
    parent = await strict.task()
    child = await strict.child(parent, "order-clerk")
    other = await strict.task()

    async def pay(task: dict[str, Any], amount: float) -> dict[str, Any]:
        return await strict.decide(task, "pay", arguments={"to": "x", "amount": amount})

    assert (await pay(parent, 60))["decision"]
    refused = await pay(child, 40.0001)
    assert refused["decision"] is False
    assert refused["context"]["advice"] == ["The chain may pay 100 in all."]
    assert (await pay(child, 39.9999))["decision"]
    assert (await pay(parent, 0.0001))["decision"]
    assert not (await pay(child, 0.0001))["decision"]
    assert (await pay(parent, 0))["decision"]
    for amount in (-50, -0.0001, 1e9 + 1):
        assert (await pay(parent, amount))["context"]["reason"] == "amount_out_of_range"
    assert (await pay(other, 100))["decision"], "another chain has its own sum"


async def test_a_sum_stays_exact_however_large(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    task = await deciding.task()
    for one in (deciding, beside) * 5:
        assert await one.allows(task, "pay", arguments={"to": "x", "amount": 10**9})
    for one in (deciding, beside):
        assert await one.allows(task, "pay", arguments={"to": "x", "amount": 0.0001})

    last = (await deciding.decisions(task))[-1]["data"]["question"]["context"]

    assert last["chain"]["amount"]["__extn"]["arg"] == "10000000000.0001"
    assert last["after"]["amount"]["__extn"]["arg"] == "10000000000.0002"


async def test_a_chain_calls_so_often_and_no_more(strict: DecisionWorld) -> None:
    task = await strict.task()
    child = await strict.child(task, "order-clerk")

    found = [await strict.allows(one, "note") for one in (task, child, task, child, task)]

    assert found == [True, True, True, False, False]


async def test_time_and_environment_are_the_brokers(strict: DecisionWorld) -> None:
    task = await strict.task()

    found = await strict.decide(task, "web.fetch")

    assert found["decision"] is False
    (event,) = await strict.decisions(task)
    assert event["data"]["policies"] == ["pages-in-the-past"]


async def test_a_forbid_that_errors_denies(strict: DecisionWorld) -> None:
    """Cedar skips it, and would allow (pitfall 19)."""
    task = await strict.task()

    found = await strict.decide(task, "refund", arguments={"order": 2})

    assert found["decision"] is False
    assert found["context"]["reason"] == "access_denied"
    assert "can't be evaluated" in found["context"]["reason_user"]["en"]
    (event,) = await strict.decisions(task)
    assert event["data"]["reasons"] == "policy_error"
    assert await strict.allows(task, "refund", arguments={"order": 1}), "no overflow, no error"


async def test_policies_may_be_replaced_while_decisions_are_made(
    strict: DecisionWorld, folder: Path
) -> None:
    task = await strict.task()
    names = ["pay", "crm.read"] * 10
    policies = strict.app.pipeline.judge.policies
    seen: set[bool] = set()

    async def ask(tool: str) -> None:
        arguments = {"amount": 0, "to": "x"} if tool == "pay" else {"query": "x"}
        for _ in range(3):
            seen.add(await strict.allows(task, tool, arguments=arguments))

    async def replace() -> None:
        for n in range(6):
            (folder / "more.cedar").write_text(
                f'@id("stop-{n}") forbid (principal, action in Action::"call_tool", resource);'
                if n % 2 == 0
                else "",
                "utf-8",
            )
            assert policies.reload()
            await asyncio.sleep(0)

    await asyncio.gather(replace(), *map(ask, names))

    assert True in seen
    for event in await strict.decisions(task):
        stopped = [name for name in event["data"]["policies"] if name.startswith("stop-")]
        assert bool(stopped) is (event["data"]["effect"] == "deny")
    (folder / "more.cedar").write_text("permit (", "utf-8")
    with pytest.raises(ConfigError, match=r"more\.cedar"):
        policies.reload()
    assert await strict.allows(task, "crm.read"), "what was in force stays in force"
