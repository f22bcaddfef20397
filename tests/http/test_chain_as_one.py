"""A chain is one: its tokens and its log say all of it, and what it does is summed up."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.chain_world import AGENTS, ChainWorld, chain_config
from tests.http.parties import assert_problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

SUMS = """\
@id("five-calls-in-all")
forbid (principal, action in Action::"call_tool", resource == Tool::"note")
when { context.after.calls > 5 };

@id("fifty-in-all")
forbid (principal, action in Action::"call_tool", resource == Tool::"pay-out")
when { context.after.amount.greaterThan(decimal("50.0")) };

@id("two-credentials-in-all")
forbid (principal, action == Action::"issue_grant", resource)
when { context.after.grants > 2 };

@id("a-chain-that-pays-reads-no-web")
forbid (principal, action in Action::"call_tool", resource == Tool::"web-fetch")
when { context.power != "read" };
"""


@pytest.fixture
async def links(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[ChainWorld]:
    (tmp_path / "sums.cedar").write_text(SUMS)
    made = ChainWorld(engines[0].issuer, chain_config(engines[0], policies=tmp_path))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def circular(engines: tuple[DevStack, Config]) -> AsyncGenerator[ChainWorld]:
    config = chain_config(engines[0], tasks={"cycles": True, "max_depth": 4})
    made = ChainWorld(engines[0].issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


def nested(agents: tuple[str, ...]) -> dict[str, Any]:
    """The act claim of a chain, given from its root on: the newest is outermost."""
    act: dict[str, Any] = {}
    for name in agents:
        act = {"sub": name, "act": act} if act else {"sub": name}
    return act


async def introspected(links: ChainWorld, token: str) -> dict[str, Any]:
    headers = await links.headers("operator")
    answer = await links.http.post("/oauth/introspect", data={"token": token}, headers=headers)
    return answer.json()


async def family(links: ChainWorld) -> list[dict[str, Any]]:
    """A root, two children of it, and a grandchild of the second."""
    root = await links.root()
    one = await links.linked(root, "order-clerk")
    other = await links.linked(root, "editor")
    return [root, one, other, await links.linked(other, "checker")]


# ── who acts ─────────────────────────────────────────────────────────────────────────────────────


async def test_tokens_of_a_deep_chain_name_all_of_it_the_newest_outermost(
    links: ChainWorld,
) -> None:
    tasks = await links.chain(*AGENTS)
    assert len(tasks) == 5

    for depth, task in enumerate(tasks, 1):
        token = await links.token(task["agent"], task["task_id"])
        said = await introspected(links, token)
        assert said["act"] == nested(AGENTS[:depth])
        assert (said["sub"], said["txn"]) == ("orchestrator", tasks[0]["task_id"])
    issued = (await links.grant(tasks[-1], "orders-api"))["credential"]["access_token"]
    assert (await introspected(links, issued))["act"] == nested(AGENTS)


async def test_the_log_of_a_deep_chain_says_each_link_and_its_purpose(links: ChainWorld) -> None:
    tasks = await links.chain(*AGENTS)

    for above, task in pairwise(tasks):
        events = await links.events(task["task_id"])
        opened = next(e for e in events if e["type"] == "task.opened")
        assert opened["data"]["parent"] == above["task_id"]
        assert opened["data"]["purpose"] == f"a part for {task['agent']}"
        assert opened["principal"] == above["agent"]
        assert opened["chain"] == tasks[0]["task_id"]
        asked = next(e for e in events if e["type"] == "decision")["data"]["question"]
        assert asked["context"]["parent"]["agents"] == sorted(AGENTS[: AGENTS.index(task["agent"])])
        assert asked["context"]["purpose"] == task["purpose"]


async def test_where_circles_are_allowed_an_agent_is_in_a_chain_twice(circular: ChainWorld) -> None:
    root = await circular.root()
    child = await circular.linked(root, "order-clerk")
    back = await circular.linked(child, "report-writer")
    itself = await circular.linked(back, "report-writer")

    token = await circular.token("report-writer", itself["task_id"])
    names = ("report-writer", "order-clerk", "report-writer", "report-writer")
    assert (await introspected(circular, token))["act"] == nested(names)
    # It is still one with a bottom.
    last = await circular.linked(itself, "report-writer")
    answer = await circular.link(last, "order-clerk")
    assert assert_problem(answer, 403, "access_denied")["reason"] == "chain_too_deep"
    await circular.complete(root)
    assert (await circular.show_task(last["task_id"]))["state"] == "cancelled"


# ── what it does ─────────────────────────────────────────────────────────────────────────────────


async def test_calls_of_root_children_siblings_and_grandchildren_count_together(
    links: ChainWorld,
) -> None:
    tasks = await family(links)
    for task in (*tasks, tasks[1]):
        assert await links.why(task, "note") == ""
    for task in tasks:  # harmless alone
        assert await links.why(task, "note") == "access_denied"
    assert await links.why(await links.root(), "note") == "", "another chain is another"


async def test_amounts_add_up_whoever_of_the_chain_pays(links: ChainWorld) -> None:
    root, one, other, below = await family(links)
    for task, amount in ((root, 20), (below, 20), (one, 10)):
        assert await links.why(task, "pay", arguments={"to": "a", "amount": amount}) == ""
    penny = {"to": "a", "amount": 0.0001}
    assert await links.why(other, "pay", arguments=penny) == "access_denied"


async def test_credentials_count_together_also_after_those_who_had_them_are_gone(
    links: ChainWorld,
) -> None:
    root, one, other, below = await family(links)
    await links.grant(one, "orders-api")
    await links.grant(below, "orders-api")
    await links.complete(one)
    await links.complete(other)

    path = f"/v1/tasks/{root['task_id']}/grants"
    answer = await links.post(path, {"capability": "orders-api"}, task=root)

    assert_problem(answer, 403, "access_denied")


async def test_the_power_of_a_chain_is_that_of_all_of_it(links: ChainWorld) -> None:
    root, one, _, below = await family(links)
    assert await links.why(root, "web.fetch") == ""
    assert await links.why(below, "pay") == ""
    for task in (root, one, below):
        assert await links.why(task, "web.fetch") == "access_denied"


async def test_one_reads_another_takes_in_and_the_third_may_not_send(links: ChainWorld) -> None:
    root, one, other, below = await family(links)
    assert await links.why(below, "web.fetch") == ""
    assert await links.why(one, "crm.read") == ""
    for task in (root, one, other, below):
        assert await links.why(task, "mail.send") == "approval_required"


async def test_budgets_are_of_the_whole_chain(links: ChainWorld) -> None:
    root = await links.root(limits={"budget": {"calls": 3}})
    one = await links.linked(root, "order-clerk")
    below = await links.linked(await links.linked(root, "editor"), "checker")
    for task in (root, one, below):
        assert await links.why(task, "note") == ""
    for task in (root, one, below):
        assert await links.why(task, "note") == "budget_exhausted"
