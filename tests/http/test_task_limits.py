"""A task's limits and budgets over HTTP: shown, inherited, never widened, and kept to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.dev.config import ORDERS_API
from tests.chain_world import ChainWorld, chain_config
from tests.http.deciding import PAY
from tests.http.parties import assert_oauth_error, assert_problem, exchange_form

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

KEEPS = """\
@id("the-editor-keeps-it")
@keep_budget
permit (principal, action == Action::"delegate", resource == Principal::"editor");
"""
CONFIGURED = {"report-writer": {"delegates_to": ["order-clerk", "editor"]}}


@pytest.fixture
async def links(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[ChainWorld]:
    (tmp_path / "keeps.cedar").write_text(KEEPS)
    config = chain_config(engines[0], policies=tmp_path, principals=CONFIGURED)
    made = ChainWorld(engines[0].issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def beside(engines: tuple[DevStack, Config], links: ChainWorld) -> AsyncGenerator[ChainWorld]:
    made = ChainWorld(engines[0].issuer, links.config)
    yield made
    await made.close()


async def shown(links: ChainWorld, task: dict[str, Any]) -> dict[str, Any]:
    return await links.show_task(task["task_id"])


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_root_is_limited_to_what_it_asks_for_and_says_so(links: ChainWorld) -> None:
    free = await links.root()
    assert free["limits"] == dict.fromkeys(
        ("data_classes", "effects", "parameters", "delegate_to", "budget")
    )
    assert free["budget"] is None

    limits = {
        "data_classes": ["internal", "public"],
        "effects": ["writes:payments"],
        "parameters": {"pay-out": {"to": ["acme", 7, True, 0.5]}},
        "delegate_to": ["order-clerk"],
        "budget": {"calls": 3, "amount": "25.5"},
    }
    task = await links.root(limits=limits)

    allowed = task["limits"]["parameters"]["pay-out"]["to"]
    assert sorted(map(repr, allowed)) == ["'acme'", "0.5", "7", "True"]
    assert task["limits"]["data_classes"] == ["internal", "public"]
    assert task["limits"]["budget"] == {
        "grants": None,
        "calls": 3,
        "amount": "25.5000",
    }
    assert task["budget"]["calls"] == {"given": 3, "spent": 0, "reserved": 0, "left": 3}
    assert (await shown(links, task))["limits"] == task["limits"]


async def test_a_call_outside_the_limits_is_denied_and_told_why(links: ChainWorld) -> None:
    task = await links.root(
        limits={
            "data_classes": ["internal", "public"],
            "effects": ["writes:payments", "ingests:untrusted"],
            "parameters": {"pay-out": {"to": ["acme"]}},
        }
    )

    assert await links.why(task, "pay") == ""
    assert await links.why(task, "web.fetch") == ""
    assert await links.why(task, "crm.read") == "data_class_outside_limits"
    assert await links.why(task, "refund") == "effect_outside_limits"
    evil = {**PAY, "to": "evil"}
    assert await links.why(task, "pay", arguments=evil) == "parameter_outside_limits"
    outward = await links.why(task, "pay", effects=["egress:internet"])
    assert outward == "effect_outside_limits"
    decisions = await links.decisions(task)
    assert {d["data"]["reasons"] for d in decisions if d["data"]["effect"] == "deny"} == {
        "data_class_outside_limits",
        "effect_outside_limits",
        "parameter_outside_limits",
    }


async def test_a_credential_outside_the_limits_is_refused(links: ChainWorld) -> None:
    task = await links.root(
        limits={
            "effects": ["reads:orders"],
            "parameters": {"orders-api": {"scope": ["orders.read"]}},
        }
    )
    path = f"/v1/tasks/{task['task_id']}/grants"

    egress = await links.post(path, {"capability": "uplink"}, task=task)
    bare = await links.post(path, {"capability": "orders-api"}, task=task)

    body = assert_problem(egress, 403, "access_denied")
    assert body["reason"] == "effect_outside_limits"
    assert assert_problem(bare, 403, "access_denied")["reason"] == "parameter_outside_limits"


async def test_a_child_inherits_and_its_own_only_narrow(links: ChainWorld) -> None:
    root = await links.root(limits={"data_classes": ["internal", "public"]})
    child = await links.linked(root, "order-clerk", limits={"effects": ["writes:payments"]})
    below = await links.linked(child, "editor", limits={"data_classes": ["internal"]})

    assert below["limits"]["data_classes"] == ["internal"]
    assert below["limits"]["effects"] == ["writes:payments"]
    assert await links.why(below, "pay") == ""
    assert await links.why(below, "web.fetch") == "data_class_outside_limits"


@pytest.mark.parametrize("by", ["", "orchestrator"])
@pytest.mark.parametrize(
    ("part", "limits"),
    [
        ("data_classes", {"data_classes": ["public", "confidential"]}),
        ("effects", {"effects": ["egress:internet"]}),
        ("parameters.pay-out.to", {"parameters": {"pay-out": {"to": ["evil"]}}}),
        ("delegate_to", {"delegate_to": ["translator"]}),
    ],
)
async def test_to_ask_for_more_than_the_parent_has_is_refused_and_named(
    links: ChainWorld, by: str, part: str, limits: dict[str, Any]
) -> None:
    root = await links.root(
        limits={
            "data_classes": ["public"],
            "effects": ["writes:payments"],
            "parameters": {"pay-out": {"to": ["acme"]}},
            "delegate_to": ["order-clerk", "editor"],
        }
    )

    answer = await links.link(root, "order-clerk", by=by, limits=limits)

    body = assert_problem(answer, 403, "access_denied")
    assert body["reason"] == "more_than_parent"
    assert part in body["detail"]


async def test_parameters_of_what_the_task_does_not_have_are_a_bad_request(
    links: ChainWorld,
) -> None:
    ask = {
        "agent": "report-writer",
        "purpose": "p",
        "capabilities": ["note"],
        "limits": {"parameters": {"pay-out": {"to": ["acme"]}}},
    }
    answer = await links.post("/v1/tasks", ask, by="orchestrator")
    assert assert_problem(answer, 400, "invalid_request")["field"] == "limits.parameters"


async def test_below_a_task_are_only_those_that_it_or_its_agent_names(links: ChainWorld) -> None:
    root = await links.root(limits={"delegate_to": ["order-clerk", "checker"]})

    assert (await links.link(root, "order-clerk")).status_code == 201
    for agent, by in (("checker", ""), ("editor", ""), ("editor", "orchestrator")):
        body = assert_problem(await links.link(root, agent, by=by), 403, "access_denied")
        assert body["reason"] == "delegate_not_named"


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────


async def test_calls_and_amounts_are_denied_once_the_budget_is_used_up(links: ChainWorld) -> None:
    task = await links.root(limits={"budget": {"calls": 3, "amount": "25"}})

    assert await links.why(task, "pay") == ""
    assert await links.why(task, "pay") == ""
    assert await links.why(task, "pay") == "budget_exhausted"  # of 25, 20 are spent
    assert await links.why(task, "note") == ""
    assert await links.why(task, "note") == "budget_exhausted"
    left = (await shown(links, task))["budget"]
    assert (left["calls"]["left"], left["amount"]["left"]) == (0, "5.0000")


async def test_credentials_are_refused_before_anything_is_minted(links: ChainWorld) -> None:
    task = await links.root(limits={"budget": {"grants": 1}})
    await links.grant(task, "orders-api")
    path = f"/v1/tasks/{task['task_id']}/grants"

    answer = await links.post(path, {"capability": "orders-api"}, task=task)

    body = assert_problem(answer, 429, "quota_exceeded")
    assert body["reason"] == "budget_exhausted"
    events = await links.events(task["task_id"])
    assert sum(event["type"] == "grant.reserved" for event in events) == 1
    refused = [e for e in events if e["type"] == "decision" and e["data"]["effect"] == "deny"]
    assert [e["data"]["reasons"] for e in refused] == ["budget_exhausted"]


async def test_a_child_has_its_own_reserved_and_gives_the_rest_back(links: ChainWorld) -> None:
    root = await links.root(limits={"budget": {"calls": 10}})
    child = await links.linked(root, "order-clerk", limits={"budget": {"calls": 6}})
    more = await links.link(root, "order-clerk", limits={"budget": {"calls": 5}})
    assert assert_problem(more, 429, "quota_exceeded")["reason"] == "budget_exhausted"
    assert await links.why(child, "note") == ""

    await links.complete(child)

    standing = (await shown(links, root))["budget"]["calls"]
    assert standing == {"given": 10, "spent": 1, "reserved": 0, "left": 9}


async def test_a_policy_may_let_a_child_keep_what_it_was_given(links: ChainWorld) -> None:
    root = await links.root(limits={"budget": {"calls": 10}})
    kept = await links.linked(root, "editor", limits={"budget": {"calls": 6}})

    await links.complete(kept)

    standing = (await shown(links, root))["budget"]["calls"]
    assert standing == {"given": 10, "spent": 6, "reserved": 0, "left": 4}


async def test_of_fifty_calls_at_two_replicas_the_budget_lets_through_its_number(
    links: ChainWorld, beside: ChainWorld
) -> None:
    root = await links.root(limits={"budget": {"calls": 7}})
    tasks = [root, await links.linked(root, "order-clerk"), await links.linked(root, "editor")]

    async def ask(i: int) -> str:
        return await (links, beside)[i % 2].why(tasks[i % 3], "note")

    reasons = await asyncio.gather(*map(ask, range(50)))

    assert reasons.count("") == 7
    assert set(reasons) == {"", "budget_exhausted"}
    assert (await shown(links, root))["budget"]["calls"]["spent"] == 7


async def test_the_token_endpoint_keeps_to_a_budget_and_to_limits_as_well(
    links: ChainWorld,
) -> None:
    """A token for another resource server is a credential like any other."""
    spent = await links.root(limits={"budget": {"grants": 0}})
    form = exchange_form(links, "report-writer", spent["task_id"])
    answer = await links.http.post("/oauth/token", data={**form, "resource": ORDERS_API})
    assert answer.status_code == 429, answer.text

    limited = await links.root(limits={"data_classes": ["nothing"]})
    form = exchange_form(links, "report-writer", limited["task_id"])
    answer = await links.http.post("/oauth/token", data={**form, "resource": ORDERS_API})
    assert_oauth_error(answer, "invalid_target")
