"""What docs/security.md says of stolen parts, tried out: what a thief can do, and what not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.errors import BackendRefused
from broker.ids import shard_of
from broker.ledger import keys
from broker.secret import Secret
from tests.admin import READ_PATH, Admin
from tests.exposed import exposed
from tests.waiting import wait_until
from tests.world import logs_in

if TYPE_CHECKING:
    from broker.backends.vault_api import VaultApi
    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.world import World

CREATE: Final = "auth/token/create/broker-task"


@pytest.fixture
def stolen(world: World) -> VaultApi:
    """The broker's own login to Vault, in other hands."""
    assert world.app.vault is not None
    return world.app.vault


@pytest.fixture
def admin(engines: tuple[DevStack, Config]) -> Admin:
    return Admin(engines[0])


async def row_of(world: World, table: str, identifier: str) -> tuple[str, dict[str, Any]]:
    """A row of the ledger, and the key of its table."""
    shard = shard_of(identifier, "tsk" if table == "tasks" else "grt")
    assert shard is not None
    key = keys.table(shard, table)
    return key, json.loads(await world.app.connection.command("HGET", key, identifier))


# ── the broker's Vault token ─────────────────────────────────────────────────────────────────────


async def test_the_brokers_vault_token_has_no_other_rights(stolen: VaultApi) -> None:
    refused: list[tuple[str, str, dict[str, Any] | None]] = [
        ("get", READ_PATH, None),
        ("post", CREATE, {"policies": ["root"]}),
        ("post", CREATE, {"policies": ["broker"]}),
        ("post", CREATE, {"policies": ["default"]}),
        ("post", "auth/token/create", {"policies": ["broker-cap-orders-read"]}),
        ("post", "auth/token/create-orphan", {"policies": ["broker-cap-orders-read"]}),
        ("post", "auth/token/roles/broker-task", {"allowed_policies_glob": "*"}),
        ("get", "sys/policies/acl/broker", None),
        ("put", "sys/policies/acl/broker", {"policy": 'path "*" {capabilities = ["sudo"]}'}),
        ("get", "sys/mounts", None),
        ("post", "sys/mounts/mine", {"type": "kv"}),
        ("get", "database/config/orders", None),
        ("post", "database/roles/orders-read", {"db_name": "orders"}),
        ("list", "sys/leases/lookup/auth/approle/login", None),
        ("put", "sys/leases/revoke", {"lease_id": "auth/approle/login/some"}),
        ("put", "sys/leases/revoke-prefix/database", {"sync": True}),
    ]
    for method, path, body in refused:
        with pytest.raises(BackendRefused):
            await stolen.as_broker(method, path, body)


async def test_the_brokers_vault_token_reads_by_way_of_a_tasks_token(stolen: VaultApi) -> None:
    asked = {"policies": ["broker-cap-orders-write"], "ttl": "768h", "meta": {"broker": "x"}}
    made = (await stolen.as_broker("post", CREATE, asked))["auth"]
    try:
        token = Secret(made["client_token"])
        read = await stolen.as_holder(token, "get", "database/creds/orders-write")
        assert read["data"]["password"]
        # But it ends, whatever was asked for: at the longest that a task may run.
        row = await stolen.as_broker(
            "post", "auth/token/lookup-accessor", {"accessor": made["accessor"]}
        )
        assert 0 < row["data"]["ttl"] <= 86_400
        assert not row["data"]["renewable"]
    finally:
        body = {"accessor": made["accessor"]}
        await stolen.as_broker("post", "auth/token/revoke-accessor", body)


async def test_the_brokers_vault_token_can_end_any_token(stolen: VaultApi, admin: Admin) -> None:
    theirs = await admin.vault("POST", "auth/token/create", {"policies": ["default"]})
    accessor = theirs["auth"]["accessor"]
    assert accessor in (await stolen.as_broker("list", "auth/token/accessors"))["data"]["keys"]

    await stolen.as_broker("post", "auth/token/revoke-accessor", {"accessor": accessor})

    listed = await stolen.as_broker("list", "auth/token/accessors")
    assert accessor not in listed["data"]["keys"]


# ── the ledger's Redis ───────────────────────────────────────────────────────────────────────────


async def test_an_accessor_by_itself_opens_nothing(world: World, stolen: VaultApi) -> None:
    task = await world.open()
    await world.grant(task)
    _, row = await row_of(world, "tasks", task["task_id"])
    (handle,) = row["handles"].values()
    accessor = handle["value"]
    assert (await stolen.as_broker("post", "auth/token/lookup-accessor", {"accessor": accessor}))[
        "data"
    ]
    for path in ("auth/token/lookup-accessor", "auth/token/revoke-accessor"):
        with pytest.raises(BackendRefused):
            await stolen.as_holder(Secret(""), "post", path, {"accessor": accessor})
    with pytest.raises(BackendRefused):
        await stolen.as_holder(Secret(accessor), "get", READ_PATH)
    await world.complete(task)


async def test_who_writes_the_ledger_can_put_off_a_deadline_and_vault_bounds_it(
    world: World, stolen: VaultApi
) -> None:
    task = await world.open(ttl="1m")
    key, row = await row_of(world, "tasks", task["task_id"])
    years_ms = 10 * 365 * 86_400_000
    row["expires_at"] += years_ms
    await world.app.connection.command("HSET", key, task["task_id"], json.dumps(row))

    await world.sweep(ahead_ms=120_000)
    grant = await world.grant(task)  # the broker believes it

    assert await logs_in(grant["credential"])
    _, row = await row_of(world, "tasks", task["task_id"])
    (handle,) = row["handles"].values()
    asked = {"accessor": handle["value"]}
    token = await stolen.as_broker("post", "auth/token/lookup-accessor", asked)
    assert 0 < token["data"]["ttl"] * 1000 <= world.config.tasks.max_ttl
    assert not token["data"]["renewable"]
    await world.complete(task)
    assert not await logs_in(grant["credential"])


async def test_who_writes_the_ledger_gives_no_agent_what_the_configuration_doesnt(
    world: World,
) -> None:
    task = await world.open()
    key, row = await row_of(world, "tasks", task["task_id"])
    row["capabilities"] = ["orders-read", "orders-write", "made-up"]
    await world.app.connection.command("HSET", key, task["task_id"], json.dumps(row))
    path = f"/v1/tasks/{task['task_id']}/grants"
    for capability in ("orders-write", "made-up"):
        ask = {"capability": capability}
        answer = await world.call(task["agent"], "POST", path, ask, task_id=task["task_id"])
        assert answer.status_code in (403, 404), answer.text
    await world.complete(task)


async def test_what_was_hidden_in_the_ledger_is_found_and_ended(world: World) -> None:
    task = await world.open()
    grant = await world.grant(task)
    for table, identifier in (("grants", grant["grant_id"]), ("tasks", task["task_id"])):
        key, row = await row_of(world, table, identifier)
        await world.app.connection.command("HDEL", key, identifier)
    (handle,) = row["handles"]

    shown = (await world.call("operator", "POST", "/v1/reconciliations", {})).json()

    found = {(f["kind"], f["subject"]) for f in shown["findings"]}
    assert ("orphan_token", handle) in found, shown
    counted = exposed(world.app.metrics).values("reconcile_findings_total")
    assert counted["orphan_token",] >= 1
    assert await logs_in(grant["credential"])
    await world.call("operator", "POST", "/v1/reconciliations", {"apply": True})

    async def dead() -> bool:
        return not await logs_in(grant["credential"])

    await wait_until(dead, "its token is gone, and its account with that")
