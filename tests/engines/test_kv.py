"""A secret that was there before, under a grant: delivered once, and never said to be revoked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.catalog import Power
from tests.admin import Admin
from tests.engines.estate import Page, set_up
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

SECRET = "first-password"
PATH = "kv/data/team/geocoder"


@pytest.fixture(scope="module")
def config(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Generator[Config]:
    page = Page("kv.md", "Setting it up", {})
    with set_up(engines, page, tmp_path_factory.mktemp("set-up"), "kv") as made:
        yield made


@pytest.fixture
async def admin(engines: tuple[DevStack, Config], config: Config) -> AsyncGenerator[Admin]:
    """Vault's admin, who puts the secret back afterwards."""
    assert config.capabilities
    made = Admin(engines[0])
    yield made
    await made.vault("POST", PATH, {"data": {"api_key": SECRET}})


async def ask(world: World, task: dict[str, Any]) -> httpx2.Response:
    path = f"/v1/tasks/{task['task_id']}/grants"
    body = {"capability": "geocoder", "intent": "find the streets of the week's orders"}
    return await world.call("orchestrator", "POST", path, body)


async def test_it_is_delivered_and_given_up_with_the_statement_that_it_works_on(
    world: World,
) -> None:
    task = await world.open(capabilities=["geocoder"])
    granted = await world.grant(task, "geocoder")
    assert granted["credential"] == {"type": "kv", "api_key": SECRET}

    await world.complete(task)

    shown = await world.show_grant(granted["grant_id"])
    assert (shown["state"], shown["revocability"]) == ("abandoned", "never")
    assert shown["evidence"] is None
    assert "works at its target until it is changed" in shown["statement"]
    path = f"/v1/grants/{granted['grant_id']}/receipt"
    receipt = (await world.call("operator", "GET", path)).json()
    assert receipt["claims"]["confirmed"] is False
    events = await world.events(task["task_id"])
    assert {e["type"] for e in events} >= {"grant.abandoned"}
    assert not {e["type"] for e in events} & {"grant.revoked"}
    assert SECRET not in json.dumps([shown, receipt, events])
    assert (await world.show_task(task["task_id"]))["closed_at"] is not None


async def test_members_that_are_not_text_are_json(world: World, admin: Admin) -> None:
    nested = {"hosts": ["a", "b"], "limits": {"rps": 5}, "enabled": True}
    await admin.vault("POST", PATH, {"data": nested})
    task = await world.open(capabilities=["geocoder"])

    credential = (await world.grant(task, "geocoder"))["credential"]

    assert credential["hosts"] == "a\nb"
    assert {name: json.loads(credential[name]) for name in ("limits", "enabled")} == {
        name: nested[name] for name in ("limits", "enabled")
    }
    await world.complete(task)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (None, "nothing at"),
        ({}, "nothing in"),
        ({"type": "x", "key": "y"}, "'type'"),
    ],
    ids=["deleted", "empty", "type"],
)
async def test_what_can_not_be_delivered_fails_and_says_why(
    world: World, admin: Admin, written: dict[str, str] | None, why: str
) -> None:
    if written is None:
        await admin.vault("DELETE", PATH)
    else:
        await admin.vault("POST", PATH, {"data": written})
    task = await world.open(capabilities=["geocoder"])

    answer = await ask(world, task)

    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    (failed,) = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert failed.state == "failed"
    assert why in failed.error
    await world.complete(task)


async def test_above_power_read_policy_refuses_it(
    engines: tuple[DevStack, Config], config: Config
) -> None:
    capabilities = tuple(
        c.model_copy(update={"power": Power.OPERATE}) if c.name == "geocoder" else c
        for c in config.capabilities
    )
    world = World(engines[0].issuer, config.model_copy(update={"capabilities": capabilities}))
    try:
        task = await world.open(capabilities=["geocoder"])

        answer = await ask(world, task)

        assert (answer.status_code, answer.json()["code"]) == (403, "access_denied")
        events = await world.events(task["task_id"])
        assert "nothing-unrevocable-above-read" in json.dumps(events), [e["type"] for e in events]
    finally:
        await world.close()
