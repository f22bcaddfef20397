"""Renewal and rotation at the real Vault and database: longer by policy, never two for long."""

from __future__ import annotations

import tomllib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE
from broker.steps import Step
from tests.admin import Admin
from tests.http.consenting import ConsentWorld, consent_config, give_rights
from tests.http.parties import assert_problem
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

LONG: Final[dict[str, Any]] = {
    "name": "orders-long",
    "power": "read",
    "backend": "vault",
    "path": "database/creds/orders-read",
    "ttl": "30m",
    "max_ttl": "1h",
    "renewable_for": "3h",
    "max_live": 1,
}


@pytest.fixture
async def world(engines: tuple[DevStack, Config]) -> AsyncGenerator[World]:
    """The dev configuration with a capability that may be renewed for longer than one may last."""
    file = engines[0].data / FILE
    document: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    dsn = next(row["dsn"] for row in document["capabilities"] if row.get("dsn"))
    lasting = {**LONG, "name": "orders-lasting", "revocability": "ttl_only"}
    document["capabilities"] += [{**row, "dsn": dsn} for row in (LONG, lasting)]
    for principal in document["principals"]:
        if principal["name"] == "report-writer":
            principal["capabilities"] += ["orders-long", "orders-lasting"]
    config = parse_config(tomli_w.dumps(document), file)
    await give_rights(engines[0], config)
    made = World(engines[0].issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


def at(row: dict[str, Any], name: str = "expires_at") -> datetime:
    return datetime.fromisoformat(row[name])


async def ask(
    world: World, grant: dict[str, Any], what: str, key: str = "", **body: Any
) -> httpx2.Response:
    """Ask for something of a grant as its task's agent."""
    headers = {"Idempotency-Key": key} if key else {}
    path = f"/v1/grants/{grant['grant_id']}/{what}"
    task_id = grant["task_id"]
    return await world.call("report-writer", "POST", path, body, task_id=task_id, headers=headers)


async def of_type(world: World, grant: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    events = await world.events(grant["task_id"])
    return [e["data"] for e in events if (e["type"], e["grant_id"]) == (kind, grant["grant_id"])]


async def test_renewed_it_lives_longer_in_the_ledger_and_at_vault(
    world: World, engines: tuple[DevStack, Config]
) -> None:
    task = await world.open(capabilities=["orders-long"], ttl="4h")
    grant = await world.grant(task, "orders-long")
    row = await world.app.pipeline.queries.grant(grant["grant_id"])
    assert row is not None

    answer = await ask(world, grant, "renew", ttl="1h")

    assert answer.status_code == 200, answer.text
    renewed = answer.json()
    assert at(renewed) > at(grant) + timedelta(minutes=29)
    assert "credential" not in renewed
    lease = await Admin(engines[0]).vault("PUT", "sys/leases/lookup", {"lease_id": row.lease})
    assert lease["data"]["last_renewal"] is not None
    assert datetime.fromisoformat(lease["data"]["expire_time"]) >= at(renewed)
    [event] = await of_type(world, grant, "grant.renewed")
    assert event["capability"] == "orders-long"
    await world.sweep(ahead_ms=31 * 60_000)
    assert await logs_in(grant["credential"])
    await world.complete(task)
    assert not await logs_in(grant["credential"])


async def test_what_cannot_be_revoked_is_not_made_to_live_longer_at_its_target(
    world: World, engines: tuple[DevStack, Config]
) -> None:
    """Vault might do so, and its answer be lost: the ledger would have it dead while it lives."""
    task = await world.open(capabilities=["orders-lasting"], ttl="4h")
    grant = await world.grant(task, "orders-lasting")
    before = await world.app.pipeline.queries.grant(grant["grant_id"])
    assert before is not None

    problem = assert_problem(await ask(world, grant, "renew", ttl="1h"), 409, "not_renewable")

    assert "otate" in problem["detail"]
    assert await world.app.pipeline.queries.grant(grant["grant_id"]) == before
    lease = await Admin(engines[0]).vault("PUT", "sys/leases/lookup", {"lease_id": before.lease})
    assert lease["data"]["last_renewal"] is None


async def test_it_lives_no_longer_than_the_catalogue_lets_one_live_nor_than_its_task(
    world: World,
) -> None:
    task = await world.open(ttl="1h")
    grant = await world.grant(task, ttl="1m")
    short = await world.open(ttl="2m")
    other = await world.grant(short, ttl="1m")

    renewed = (await ask(world, grant, "renew", ttl="15m")).json()
    longest = at(renewed, "created_at") + timedelta(minutes=15)
    assert at(renewed) == longest
    assert "the longest it may live" in " ".join(renewed["notes"])
    problem = assert_problem(await ask(world, grant, "renew"), 409, "not_renewable")
    assert "otate" in problem["detail"]
    assert at((await ask(world, other, "renew")).json()) == at(short)


async def test_what_has_ended_or_has_its_end_inside_is_not_renewed(world: World) -> None:
    task = await world.open(capabilities=["orders-read", "orders-api"])
    dead, token = await world.grant(task), await world.grant(task, "orders-api")
    await world.call("operator", "DELETE", f"/v1/grants/{dead['grant_id']}")

    assert assert_problem(await ask(world, dead, "renew"), 409, "conflict")["state"] == "revoked"
    assert_problem(await ask(world, dead, "rotate"), 409, "conflict")
    assert_problem(await ask(world, token, "renew"), 409, "not_renewable")
    rotated = await ask(world, token, "rotate")
    assert rotated.json()["credential"]["access_token"] != token["credential"]["access_token"]


async def test_a_lease_that_vault_has_dropped_is_not_renewed(
    world: World, engines: tuple[DevStack, Config]
) -> None:
    task = await world.open(capabilities=["orders-long"], ttl="4h")
    grant = await world.grant(task, "orders-long")
    await Admin(engines[0]).revoke_leases()

    assert_problem(await ask(world, grant, "renew", ttl="1h"), 409, "not_renewable")

    assert at(await world.show_grant(grant["grant_id"])) == at(grant)


async def test_rotated_the_new_one_works_before_the_old_one_ends(world: World) -> None:
    """One may live under the task; for the overlap there are two, and no third."""
    task = await world.open(capabilities=["orders-long"], ttl="4h")
    old = await world.grant(task, "orders-long")

    answer = await ask(world, old, "rotate", key="k", overlap="20s")

    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert (new["replaces"], new["capability"]) == (old["grant_id"], "orders-long")
    assert await logs_in(new["credential"])
    assert await logs_in(old["credential"])
    shown = await world.show_grant(old["grant_id"])
    assert shown["replaced_by"] == new["grant_id"]
    assert at(shown) <= at(new, "created_at") + timedelta(seconds=21)
    [event] = await of_type(world, old, "grant.rotated")
    assert event["replaced_by"] == new["grant_id"]
    assert_problem(await ask(world, old, "renew", ttl="1h"), 409, "not_renewable")
    assert_problem(await ask(world, old, "rotate", overlap="20s"), 409, "conflict")
    assert_problem(await ask(world, new, "rotate"), 429, "quota_exceeded")
    again = await ask(world, old, "rotate", key="k", overlap="20s")
    assert assert_problem(again, 409, "credential_already_delivered")["grant_id"] == new["grant_id"]

    await world.sweep(ahead_ms=21_000)

    assert not await logs_in(old["credential"])
    assert await logs_in(new["credential"])
    assert (await ask(world, new, "rotate")).status_code == 201


async def test_a_rotation_that_comes_to_nothing_leaves_the_old_one_as_it_was(world: World) -> None:
    grant = await world.grant(await world.open())
    before = await world.show_grant(grant["grant_id"])
    freeze = {"selector": {"capability": "orders-read"}, "reason": "drill"}
    await world.call("operator", "POST", "/v1/freezes", freeze)

    assert_problem(await ask(world, grant, "rotate"), 403, "frozen")
    assert_problem(await ask(world, grant, "renew", ttl="10m"), 403, "frozen")

    assert await world.show_grant(grant["grant_id"]) == before
    assert await logs_in(grant["credential"])


async def test_a_rotation_that_stops_before_delivery_leaves_two_that_the_ledger_ends(
    world: World, engines: tuple[DevStack, Config]
) -> None:
    task = await world.open(capabilities=["orders-long"], ttl="4h")
    grant = await world.grant(task, "orders-long")

    def stop(step: Step) -> None:
        if step is Step.DELIVER:
            raise RuntimeError("stopped")

    stopping = World(engines[0].issuer, world.config, before_step=stop)
    assert (await ask(stopping, grant, "rotate")).status_code == 500
    await stopping.close()

    old = await world.show_grant(grant["grant_id"])
    new = await world.show_grant(old["replaced_by"])
    assert (old["state"], new["state"]) == ("active", "active")
    assert old["expires_at"] == grant["expires_at"]
    assert_problem(await ask(world, grant, "rotate"), 409, "conflict")
    await world.sweep(ahead_ms=31 * 60_000)
    rows = [await world.app.pipeline.queries.grant(g["grant_id"]) for g in (old, new)]
    assert [row and row.state for row in rows] == ["revoked"] * 2
    assert not {row.lease for row in rows if row} & await Admin(engines[0]).leases()
    assert not await logs_in(grant["credential"])


async def test_a_rotation_can_be_delivered_wrapped(world: World) -> None:
    grant = await world.grant(await world.open())

    new = (await ask(world, grant, "rotate", delivery="wrapped")).json()
    opened = await ask(world, new, "unwrap", token=new["credential"]["token"])

    assert new["credential"]["type"] == "wrapped"
    assert await logs_in(opened.json()["credential"])


@pytest.fixture
async def consenting(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> AsyncGenerator[ConsentWorld]:
    config = consent_config(engines[0], tmp_path / "policies")
    await give_rights(engines[0], config)
    made = ConsentWorld(engines[0].issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def test_what_a_human_approved_is_renewed_and_rotated_by_a_yes_of_its_own(
    consenting: ConsentWorld,
) -> None:
    task = await consenting.open(capabilities=["orders-admin"], ttl="1h")
    await consenting.say(await consenting.asked(task, ttl="1m"))
    grant = (await consenting.ask(task, ttl="1m")).json()
    path = f"/v1/grants/{grant['grant_id']}"

    async def call(what: str, **body: Any) -> httpx2.Response:
        return await consenting.api("report-writer", "POST", f"{path}/{what}", body, task=task)

    for what, done, more in (("renew", 200, {"ttl": "2m"}), ("rotate", 201, {})):
        waiting = await call(what, **more)
        assert waiting.status_code == 202, waiting.text
        assert (await consenting.say(waiting.json()["approval_id"])).status_code == 200
        answer = await call(what, **more)
        assert answer.status_code == done, answer.text
        assert at(answer.json()) > at(grant)
    approval = await consenting.approval(waiting.json()["approval_id"])
    assert approval["state"] == "used"
