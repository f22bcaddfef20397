"""``may_act`` of tokens of ours (RFC 8693 section 4.4); dropping an actor launders nothing.

Pitfall 15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.chain_world import ChainWorld, chain_config
from tests.http.front_door import ACCESS_TOKEN
from tests.http.parties import assert_oauth_error, details
from tests.world import EXCHANGE, JWT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.register_world import RegisterWorld

CONFIGURED: dict[str, dict[str, list[str]]] = {
    "order-clerk": {"delegates_to": ["editor", "checker"]},
    "translator": {"delegates_to": []},
}


@pytest.fixture
async def links(engines: tuple[DevStack, Config]) -> AsyncGenerator[ChainWorld]:
    made = ChainWorld(engines[0].issuer, chain_config(engines[0], principals=CONFIGURED))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def swap(links: ChainWorld, subject: str, **changes: str) -> httpx2.Response:
    form = {
        "grant_type": EXCHANGE,
        "subject_token": subject,
        "subject_token_type": ACCESS_TOKEN,
        **changes,
    }
    return await links.http.post("/oauth/token", data=form)


async def by_actor(links: ChainWorld, subject: str, task: dict[str, Any]) -> httpx2.Response:
    """A task's agent acts by another's token."""
    return await swap(
        links,
        subject,
        actor_token=links.identity(task["agent"]),
        actor_token_type=JWT,
        authorization_details=details(task["task_id"]),
    )


async def claims(links: ChainWorld, token: str) -> dict[str, Any]:
    headers = await links.headers("operator")
    answer = await links.http.post("/oauth/introspect", data={"token": token}, headers=headers)
    assert answer.json()["active"], answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("agent", "limits", "named"),
    [
        ("report-writer", {}, None),
        ("report-writer", {"delegate_to": ["editor"]}, {"sub": "editor"}),
        ("report-writer", {"delegate_to": ["b", "a"]}, {"agents": ["a", "b"]}),
        ("order-clerk", {}, {"agents": ["checker", "editor"]}),
        ("order-clerk", {"delegate_to": ["checker", "other"]}, {"sub": "checker"}),
        ("translator", {}, {"agents": []}),
    ],
)
async def test_an_agents_token_says_who_may_act_for_it(
    links: ChainWorld, agent: str, limits: dict[str, Any], named: dict[str, Any] | None
) -> None:
    task = await links.root(agent=agent, limits=limits)
    said = await claims(links, await links.token(agent, task["task_id"]))
    assert said.get("may_act") == named
    assert said["act"] == {"sub": agent}


async def test_an_orchestrators_token_has_none(links: ChainWorld) -> None:
    assert "may_act" not in await claims(links, await links.token("orchestrator"))


async def test_15_only_who_is_named_acts_by_a_token_of_ours(links: ChainWorld) -> None:
    root = await links.root()
    token = await links.token("report-writer", root["task_id"])
    narrow = await links.root(limits={"delegate_to": ["editor"]})
    narrowed = await links.token("report-writer", narrow["task_id"])
    editor = await links.linked(narrow, "editor")
    clerk = await links.linked(root, "order-clerk")

    assert (await by_actor(links, token, clerk)).status_code == 200
    body = (await by_actor(links, narrowed, editor)).json()
    assert (await claims(links, body["access_token"]))["act"]["sub"] == "editor"


async def test_15_who_is_not_named_is_refused_though_its_task_is_below(links: ChainWorld) -> None:
    root = await links.root(agent="order-clerk")
    token = await links.token("order-clerk", root["task_id"])
    below = await links.linked(root, "translator", by="orchestrator")

    answer = await by_actor(links, token, below)

    assert "may_act" in assert_oauth_error(answer, "invalid_request")
    # With its own identity it gets its own token all the same: nobody's but its own.
    assert (await links.exchange("translator", below["task_id"])).status_code == 200


async def test_15_dropping_the_actor_token_launders_nothing(links: ChainWorld) -> None:
    """What is had by an agent's token alone is that agent's: its chain, its task, its may_act."""
    root = await links.root()
    parent = await links.linked(root, "order-clerk")
    child = await links.linked(parent, "editor")
    token = await links.token("order-clerk", parent["task_id"])

    again = (await swap(links, token)).json()["access_token"]
    said = await claims(links, again)

    assert said["act"] == {"sub": "order-clerk", "act": {"sub": "report-writer"}}
    assert said["may_act"] == {"agents": ["checker", "editor"]}
    assert said["authorization_details"][0]["task_id"] == parent["task_id"]
    for other in (child, root):  # nor does it become another's
        answer = await swap(links, token, authorization_details=details(other["task_id"]))
        assert_oauth_error(answer, "invalid_authorization_details")
    assert (await by_actor(links, again, child)).status_code == 200
    not_named = await links.linked(parent, "checker")
    stranger = await links.linked(root, "translator")
    assert (await by_actor(links, again, not_named)).status_code == 200
    assert_oauth_error(await by_actor(links, again, stranger), "invalid_request")


async def test_an_exchanged_token_never_has_a_wider_may_act(links: ChainWorld) -> None:
    task = await links.root(agent="order-clerk", limits={"delegate_to": ["editor"]})
    token = await links.token("order-clerk", task["task_id"])
    for _ in range(3):
        token = (await swap(links, token)).json()["access_token"]
        assert (await claims(links, token))["may_act"] == {"sub": "editor"}


async def test_15_introspection_says_act_and_may_act(links: ChainWorld) -> None:
    tasks = await links.chain("report-writer", "order-clerk", "editor")
    token = await links.token("order-clerk", tasks[1]["task_id"])
    said = await claims(links, token)
    assert said["act"] == {"sub": "order-clerk", "act": {"sub": "report-writer"}}
    assert said["may_act"] == {"agents": ["checker", "editor"]}


async def test_an_agent_is_added_with_those_it_may_delegate_to(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    asks: list[tuple[str, dict[str, Any], list[str] | None]] = [
        ("any", {}, None),
        ("none", {"delegates_to": []}, []),
        ("some", {"delegates_to": ["order-clerk", "none"]}, ["none", "order-clerk"]),
    ]
    for name, given, shown in asks:
        assert (await here.add(name, **given))["delegates_to"] == shown
        assert (await there.shown(name))["delegates_to"] == shown
        assert (await here.add(name, **given))["delegates_to"] == shown, "again is no error"
