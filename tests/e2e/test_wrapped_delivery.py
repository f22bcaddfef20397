"""Wrapped delivery, at the real Vault and database: who carries it can't read it unnoticed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest

from broker.audit.record import TYPE_PREFIX
from broker.backends.bootstrap import broker_policy
from broker.backends.vault_api import VaultForbidden
from broker.notify.news import Kind, Severity, news_of
from tests.admin import Admin
from tests.http.parties import assert_problem
from tests.waiting import wait_until
from tests.world import EXCHANGE, JWT, World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack

NOWHERE: Final = "http://127.0.0.1:1"


class Carrier:
    """Somebody between the orchestrator and its agent, who reaches Vault."""

    def __init__(self, config: Config) -> None:
        assert config.vault is not None
        self._address = config.vault.address

    async def vault(self, path: str, token: str, **more: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            headers = {"X-Vault-Token": token, **more.pop("headers", {})}
            return await http.post(f"{self._address}/v1/{path}", headers=headers, **more)

    async def open(self, token: str) -> dict[str, Any]:
        """Spend a wrapping token."""
        answer = await self.vault("sys/wrapping/unwrap", token)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def is_there(self, token: str) -> bool:
        answer = await self.vault("sys/wrapping/lookup", "", json={"token": token})
        return answer.status_code == 200


@pytest.fixture
def carrier(engines: tuple[DevStack, Config]) -> Carrier:
    return Carrier(engines[1])


async def wrapped(
    world: World, task: dict[str, Any], capability: str = "orders-read", **fields: Any
) -> dict[str, Any]:
    """Ask for a wrapped credential as the orchestrator, who is to pass it on."""
    path = f"/v1/tasks/{task['task_id']}/grants"
    ask = {"capability": capability, "delivery": "wrapped", **fields}
    answer = await world.call("orchestrator", "POST", path, ask)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def unwrap(world: World, grant: dict[str, Any], token: str = "") -> httpx2.Response:
    """Open it as the task's agent."""
    return await world.call(
        grant["agent"],
        "POST",
        f"/v1/grants/{grant['grant_id']}/unwrap",
        {"token": token or grant["credential"]["token"]},
        task_id=grant["task_id"],
    )


async def assert_intercepted(world: World, grant: dict[str, Any], answer: httpx2.Response) -> None:
    problem = assert_problem(answer, 409, "wrapping_intercepted")
    assert problem["grant_id"] == grant["grant_id"]
    shown = await world.show_grant(grant["grant_id"])
    assert (shown["state"], shown["reason"]) == ("revoked", "intercepted")


async def alarms(world: World, grant: dict[str, Any]) -> list[dict[str, Any]]:
    events = await world.events(grant["task_id"])
    return [event for event in events if event["type"] == "grant.intercepted"]


async def test_it_is_opened_once_for_the_tasks_own_agent_and_works(world: World) -> None:
    grant = await wrapped(world, await world.open())

    about = grant["credential"]
    assert set(about) == {
        *("type", "token", "creation_path", "creation_time", "expires_at", "unwrap_url")
    }
    assert (about["type"], about["creation_path"]) == ("wrapped", "sys/wrapping/wrap")
    for name in ("orchestrator", "operator"):
        path = f"/v1/grants/{grant['grant_id']}/unwrap"
        refused = await world.call(name, "POST", path, {"token": about["token"]})
        assert_problem(refused, 403, "access_denied")
    opened = await unwrap(world, grant)
    assert opened.status_code == 200, opened.text
    assert opened.headers["cache-control"] == "no-store"
    assert opened.json()["credential"]["type"] == "database"
    assert await logs_in(opened.json()["credential"])
    again = await unwrap(world, grant)
    assert_problem(again, 409, "credential_already_delivered")
    assert await logs_in(opened.json()["credential"])
    assert await alarms(world, grant) == []


async def test_a_token_that_was_narrowed_neither_opens_it_nor_has_it_revoked(
    world: World,
) -> None:
    task = await world.open(capabilities=["orders-read", "orders-api"])
    grant = await wrapped(world, task)
    detail = {"type": "broker_task", "task_id": task["task_id"], "capabilities": ["orders-api"]}
    form = {
        "grant_type": EXCHANGE,
        "subject_token": world.identity("report-writer"),
        "subject_token_type": JWT,
        "resource": world.config.broker.issuer,
        "authorization_details": json.dumps([detail]),
    }
    narrow = (await world.http.post("/oauth/token", data=form)).json()["access_token"]
    path = f"/v1/grants/{grant['grant_id']}/unwrap"
    headers = {"Authorization": f"Bearer {narrow}"}

    for token in (grant["credential"]["token"], "s.of-somebody-else"):
        answer = await world.http.post(path, json={"token": token}, headers=headers)
        assert_problem(answer, 403, "access_denied")

    assert (await unwrap(world, grant)).status_code == 200


async def test_the_ledger_holds_neither_the_token_nor_what_is_in_it(
    world: World, carrier: Carrier
) -> None:
    grant = await wrapped(world, await world.open())

    token = grant["credential"]["token"]
    content = await carrier.open(token)
    tables = await world.app.connection.command("KEYS", "*")
    held = b"".join([await world.app.connection.command("DUMP", key) for key in tables])
    assert grant["grant_id"].encode() in held
    for secret in (token, content["password"]):
        assert secret.encode() not in held


async def test_an_agent_that_reaches_vault_may_open_it_there(
    world: World, carrier: Carrier
) -> None:
    grant = await wrapped(world, await world.open())

    content = await carrier.open(grant["credential"]["token"])

    assert content["grant_id"] == grant["grant_id"]
    assert content["type"] == "database"
    assert await logs_in(content)
    assert not await carrier.is_there(grant["credential"]["token"])


async def test_opened_by_another_it_is_revoked_at_once_and_that_is_an_alarm(
    world: World, carrier: Carrier
) -> None:
    grant = await wrapped(world, await world.open())
    stolen = await carrier.open(grant["credential"]["token"])
    assert await logs_in(stolen)

    answer = await unwrap(world, grant)

    await assert_intercepted(world, grant, answer)
    assert not await logs_in(stolen)
    [alarm] = await alarms(world, grant)
    assert alarm["data"]["how"] == "spent"
    event = {
        "type": f"{TYPE_PREFIX}{alarm['type']}",
        "data": alarm["data"],
        "task": grant["task_id"],
    }
    news = news_of(event, issuer=world.config.broker.issuer)
    assert news is not None
    assert (news.kind, news.severity) == (Kind.INTERCEPTED, Severity.CRITICAL)
    assert "report-writer → orders-read (read)" in news.title


async def test_put_back_into_another_token_it_is_noticed_all_the_same(
    world: World, carrier: Carrier
) -> None:
    """Whoever wraps the stolen content anew has a token of the right kind, with the right id."""
    grant = await wrapped(world, await world.open())
    stolen = await carrier.open(grant["credential"]["token"])
    assert world.app.vault is not None
    own = await world.app.vault.as_broker("post", "sys/wrapping/wrap", stolen, wrap_s=60)

    answer = await unwrap(world, grant, own["wrap_info"]["token"])

    await assert_intercepted(world, grant, answer)
    assert not await logs_in(stolen)
    assert [alarm["data"]["how"] for alarm in await alarms(world, grant)] == ["another_token"]


async def test_another_grants_token_does_not_open_it(world: World) -> None:
    task = await world.open()
    one, other = await wrapped(world, task), await wrapped(world, task)

    answer = await unwrap(world, one, other["credential"]["token"])

    await assert_intercepted(world, one, answer)
    assert (await unwrap(world, other)).status_code == 200


async def test_not_opened_in_time_it_is_revoked_without_an_alarm(
    world: World, carrier: Carrier
) -> None:
    grant = await wrapped(world, await world.open(), wrap_ttl="1s")

    async def is_gone() -> bool:
        return not await carrier.is_there(grant["credential"]["token"])

    await wait_until(is_gone, "the wrapping token's time is up")

    assert_problem(await unwrap(world, grant), 409, "wrapping_expired")
    shown = await world.show_grant(grant["grant_id"])
    assert (shown["state"], shown["reason"]) == ("revoked", "wrapping_expired")
    assert await alarms(world, grant) == []


async def test_asked_for_at_once_it_is_opened_once_and_stays_alive(world: World) -> None:
    grant = await wrapped(world, await world.open())

    answers = await asyncio.gather(*(unwrap(world, grant) for _ in range(6)))

    good = [answer for answer in answers if answer.status_code == 200]
    assert len(good) == 1
    for answer in answers:
        if answer is not good[0]:
            assert_problem(answer, 409, "credential_already_delivered")
    assert await logs_in(good[0].json()["credential"])


async def test_what_is_frozen_or_over_is_not_opened(world: World) -> None:
    task = await world.open()
    grant = await wrapped(world, task)
    freeze = {"selector": {"agent": "report-writer"}, "reason": "drill"}
    await world.call("operator", "POST", "/v1/freezes", freeze)
    assert_problem(await unwrap(world, grant), 403, "frozen")
    await world.call("operator", "DELETE", "/v1/freezes", freeze)
    assert (await unwrap(world, grant)).status_code == 200

    dead = await wrapped(world, task)
    await world.call("operator", "DELETE", f"/v1/grants/{dead['grant_id']}")
    problem = assert_problem(await unwrap(world, dead), 409, "conflict")
    assert problem["state"] == "revoked"
    inline = await world.grant(task)
    assert_problem(await unwrap(world, inline, "s.0123456789"), 409, "conflict")


async def test_the_wrapping_lasts_no_longer_than_ten_minutes_nor_than_the_grant(
    world: World,
) -> None:
    task = await world.open()
    long = await wrapped(world, task, ttl="15m", wrap_ttl="1h")
    short = await wrapped(world, task, ttl="5s", wrap_ttl="1m")
    usual = await wrapped(world, task)

    assert "wrap_ttl shortened to 600s" in " ".join(long["notes"])
    assert short["credential"]["expires_at"] <= short["expires_at"]
    assert not any("wrap_ttl" in note for note in usual["notes"])


async def test_the_broker_puts_in_for_a_while_and_takes_nothing_out(world: World) -> None:
    grant = await wrapped(world, await world.open())
    vault = world.app.vault
    assert vault is not None
    content = {"a": "b"}

    for wrap_s in (0, 601):
        with pytest.raises(VaultForbidden):
            await vault.as_broker("post", "sys/wrapping/wrap", content, wrap_s=wrap_s)
    taken = {"token": grant["credential"]["token"]}
    with pytest.raises(VaultForbidden):
        await vault.as_broker("post", "sys/wrapping/unwrap", taken)
    with pytest.raises(VaultForbidden):
        await vault.as_broker("put", "sys/leases/renew", {"lease_id": "database/creds/other/x"})

    assert (await unwrap(world, grant)).status_code == 200


async def test_a_broker_that_reads_nothing_in_vault_reaches_nobodys_leases(
    engines: tuple[DevStack, Config], carrier: Carrier
) -> None:
    """It has a Vault to wrap in, and no capability there: an empty list would allow any lease."""
    admin = Admin(engines[0])
    await admin.vault("PUT", "sys/policies/acl/idle", {"policy": broker_policy(())})
    made = await admin.vault("POST", "auth/token/create", {"policies": ["idle"]})
    token = made["auth"]["client_token"]

    for verb in ("revoke", "renew"):
        answer = await carrier.vault(
            f"sys/leases/{verb}", token, json={"lease_id": "database/creds/orders-read/x"}
        )
        assert answer.status_code == 403, answer.text


@pytest.fixture
async def cut_off(
    engines: tuple[DevStack, Config],
    world: World,
) -> AsyncGenerator[World]:
    """Another replica over the same ledger, which doesn't reach Vault."""
    stack, config = engines
    assert config.vault is not None
    away = config.vault.model_copy(update={"address": NOWHERE})
    made = World(stack.issuer, config.model_copy(update={"vault": away}))
    yield made
    await made.close()


async def test_what_cannot_be_wrapped_is_revoked_not_lost(cut_off: World) -> None:
    """The broker's own tokens are minted without Vault."""
    task = await cut_off.open(capabilities=["orders-api"])
    path = f"/v1/tasks/{task['task_id']}/grants"

    answer = await cut_off.call(
        "orchestrator", "POST", path, {"capability": "orders-api", "delivery": "wrapped"}
    )

    assert_problem(answer, 503, "backend_unavailable")
    await cut_off.app.pipeline.work.drain(10)
    listed = await cut_off.call("operator", "GET", f"/v1/grants?task_id={task['task_id']}")
    [grant] = listed.json()["items"]
    assert (grant["state"], grant["reason"]) == ("revoked", "not_wrapped")


async def test_while_vault_is_away_a_token_stays_unspent(world: World, cut_off: World) -> None:
    grant = await wrapped(world, await world.open(capabilities=["orders-api"]), "orders-api")

    assert_problem(await unwrap(cut_off, grant), 503, "backend_unavailable")

    opened = await unwrap(world, grant)
    assert opened.json()["credential"]["access_token"]


async def test_without_vault_nothing_is_made_that_could_not_be_wrapped(
    engines: tuple[DevStack, Config],
) -> None:
    stack, config = engines
    bare = World(stack.issuer, config.model_copy(update={"vault": None}))
    await bare.app.connection.command("FLUSHALL")
    try:
        task = await bare.open(capabilities=["orders-api"])
        path = f"/v1/tasks/{task['task_id']}/grants"
        ask = {"capability": "orders-api", "delivery": "wrapped"}
        answer = await bare.call("orchestrator", "POST", path, ask)
        assert assert_problem(answer, 400, "invalid_request")["field"] == "delivery"
        assert not any(e["type"].startswith("grant.") for e in await bare.events(task["task_id"]))
    finally:
        await bare.close()
