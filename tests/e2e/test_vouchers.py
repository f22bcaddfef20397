"""Vouchers, at the real Vault and database: worth nothing to anybody but the task's agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from broker.secret import Secret
from broker.vouchers import joined, split
from tests.http.parties import assert_problem
from tests.world import World, logs_in

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack


async def issued(world: World, task: dict[str, Any], **fields: Any) -> dict[str, Any]:
    path = f"/v1/tasks/{task['task_id']}/grants"
    ask = {"capability": "orders-read", "delivery": "voucher", **fields}
    answer = await world.call("orchestrator", "POST", path, ask)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def redeem(
    world: World, grant: dict[str, Any], name: str = "report-writer", share: str = ""
) -> httpx2.Response:
    grant_id, _, own = grant["credential"]["voucher"].partition(":")
    task_id = grant["task_id"] if name == "report-writer" else None
    path = f"/v1/grants/{grant_id}/unwrap"
    return await world.call(name, "POST", path, {"token": share or own}, task_id=task_id)


async def test_its_agent_redeems_it_once(world: World) -> None:
    grant = await issued(world, await world.open())

    assert set(grant["credential"]) == {"type", "voucher", "expires_at", "unwrap_url"}
    for name in ("orchestrator", "operator"):
        assert_problem(await redeem(world, grant, name), 403, "access_denied")
    opened = await redeem(world, grant)
    assert opened.status_code == 200, opened.text
    assert await logs_in(opened.json()["credential"])
    assert_problem(await redeem(world, grant), 409, "credential_already_delivered")


async def test_neither_part_opens_anything_at_vault(
    world: World, engines: tuple[DevStack, Config]
) -> None:
    grant = await issued(world, await world.open())
    share = grant["credential"]["voucher"].partition(":")[2]
    vault = engines[1].vault
    assert vault is not None

    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        for token in (share, grant["credential"]["voucher"]):
            url = f"{vault.address}/v1/sys/wrapping/unwrap"
            answer = await http.post(url, headers={"X-Vault-Token": token})
            assert answer.status_code in (400, 403)

    opened = await redeem(world, grant)
    assert opened.status_code == 200, opened.text
    secret = opened.json()["credential"]["password"]
    tables = await world.app.connection.command("KEYS", "*")
    held = b"".join([await world.app.connection.command("DUMP", key) for key in tables])
    for text in (share, secret):
        assert text.encode() not in held


async def test_a_wrong_one_revokes_nothing(world: World) -> None:
    grant = await issued(world, await world.open())

    for share in ("A" * 22, "not-a-voucher-of-ours"):
        assert_problem(await redeem(world, grant, share=share), 400, "invalid_request")

    assert (await redeem(world, grant)).status_code == 200


async def test_another_tasks_agent_gets_nothing_for_it(world: World) -> None:
    grant = await issued(world, await world.open())
    other = await world.open()
    grant_id, _, share = grant["credential"]["voucher"].partition(":")

    path = f"/v1/grants/{grant_id}/unwrap"
    answer = await world.call(
        "report-writer", "POST", path, {"token": share}, task_id=other["task_id"]
    )

    assert_problem(answer, 404, "not_found")


async def test_it_dies_with_its_task(world: World) -> None:
    task = await world.open()
    grant = await issued(world, task)

    grant_id, _, share = grant["credential"]["voucher"].partition(":")
    token = await world.token("report-writer", task["task_id"])

    await world.complete(task)

    answer = await world.http.post(
        f"/v1/grants/{grant_id}/unwrap",
        json={"token": share},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert_problem(answer, 401, "invalid_token")
    assert (await world.show_grant(grant["grant_id"]))["state"] == "revoked"


@pytest.mark.parametrize("token", ["s.abc", "hvs." + "x" * 100])
def test_the_parts_belong_together(token: str) -> None:
    key, share = split(Secret(token))
    other, _ = split(Secret(token))

    assert joined(key, share).reveal() == token
    assert joined(other, share).reveal() != token
    assert token not in share
    assert bytes.fromhex(share) != token.encode()
