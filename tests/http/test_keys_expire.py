"""After everything that can happen over HTTP, every key expires or is a table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.ledger import keys
from broker.ledger.keys import EXPIRING, PERSISTENT
from tests.http.parties import exchange_form
from tests.keys_check import assert_no_immortal_keys
from tests.possession import Sender

if TYPE_CHECKING:
    from tests.http.consenting import ConsentWorld
    from tests.world import World

CONSOLE: Final = {"session", "signedout"}
"""Kinds that tests/console looks at: who signs in there."""


async def test_every_key_is_a_table_or_expires(consent: ConsentWorld) -> None:
    world = consent
    await world.app.connection.command("FLUSHALL")
    headers = {"Idempotency-Key": "k"}
    ask: dict[str, Any] = {
        "agent": "report-writer",
        "purpose": "everything at once",
        "capabilities": ["orders-read", "orders-api"],
        "heartbeat": "1m",
    }
    opened = await world.call("orchestrator", "POST", "/v1/tasks", ask, headers=headers)
    task = opened.json()
    child = {**ask, "agent": "order-clerk", "capabilities": ["orders-read"]}
    child["parent_task_id"] = task["task_id"]
    await world.call("report-writer", "POST", "/v1/tasks", child, task_id=task["task_id"])
    path = f"/v1/tasks/{task['task_id']}"
    for body in ({"capability": "orders-read"}, {"capability": "nothing"}):
        await world.call("orchestrator", "POST", f"{path}/grants", body, headers=headers)
    granted = await world.grant(task, "orders-api")
    await world.call("report-writer", "POST", f"{path}/heartbeat", task_id=task["task_id"])
    freeze = {"selector": {"agent": "order-clerk"}, "reason": "drill"}
    await world.call("operator", "POST", "/v1/freezes", freeze)
    await world.call("operator", "DELETE", f"/v1/grants/{granted['grant_id']}")

    sender, url = Sender(), f"{world.config.broker.issuer}/oauth/token"
    form, nonce = exchange_form(world, "orchestrator"), None
    for status in (400, 200):  # the first is told the nonce
        proof = sender.proof("POST", url, time.time(), nonce=nonce)
        answer = await world.http.post("/oauth/token", data=form, headers={"DPoP": proof})
        assert answer.status_code == status, answer.text
        nonce = answer.headers["dpop-nonce"]
    await consent.asked(await world.open(capabilities=["orders-admin"]))
    assert (await consent.break_glass(await world.open())).status_code == 201
    await world.call("operator", "POST", "/v1/reconciliations", {"backend": "token"})
    await world.app.reaper.look()  # writes down who was used
    audit = world.app.audit
    assert audit is not None
    await audit.drain()

    before = await assert_no_immortal_keys(world)
    await world.complete(task)
    await world.call("operator", "POST", "/v1/revocations", {**freeze, "freeze": True})
    await world.sweep(ahead_ms=2_000_000)
    await assert_no_immortal_keys(world)
    await audit.stop()

    kinds = {key.split(":")[2] for key in before}
    assert kinds >= (EXPIRING - CONSOLE) | (PERSISTENT - {"purge"}), kinds


@pytest.mark.parametrize("name", ["token:x", "idem:x", "somethingelse", "audit:x"])
async def test_the_check_sees_a_key_that_never_expires(world: World, name: str) -> None:
    await world.app.connection.command("SET", keys.table(3, name), "x")

    with pytest.raises(AssertionError):
        await assert_no_immortal_keys(world)
