"""Receipts: signed by the broker, true, verifiable by anybody, and none for what isn't dead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from broker.errors import InvalidToken
from broker.identity.jwk import parse_key_set
from broker.receipts import TYPE, verified
from tests.http.parties import assert_problem
from tests.world import World

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack


async def receipt_of(world: World, grant_id: str) -> dict[str, Any]:
    answer = await world.call("auditor", "GET", f"/v1/grants/{grant_id}/receipt")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


async def published(world: World) -> bytes:
    return (await world.http.get("/.well-known/jwks.json")).content


async def test_a_receipt_says_when_and_by_what_a_credential_was_confirmed_dead(
    world: World,
) -> None:
    task = await world.open()
    granted = await world.grant(task)
    await world.complete(task)

    found = await receipt_of(world, granted["grant_id"])

    # As somebody would verify it who has none of our code.
    kid = jwt.get_unverified_header(found["receipt"])["kid"]
    key = jwt.PyJWKSet.from_json((await published(world)).decode())[kid]
    signed = jwt.decode_complete(found["receipt"], key, algorithms=["ES256"])
    assert signed["header"]["typ"] == TYPE
    claims = signed["payload"]
    assert claims == found["claims"]
    assert (claims["iss"], claims["grant_id"]) == (
        world.config.broker.issuer,
        granted["grant_id"],
    )
    assert (claims["state"], claims["confirmed"], claims["issued"]) == ("revoked", True, True)
    assert (claims["evidence"], claims["statement"]) == ("lease_lookup", None)
    assert (claims["revocability"], claims["reason"]) == ("instant", "task_completed")
    assert claims["created_at"] < claims["revoke_requested_at"] <= claims["ended_at"]
    shown = await world.show_grant(granted["grant_id"])
    assert {name: shown[name] for name in claims if name in shown}.items() <= claims.items()
    [event] = [e for e in await world.events(task["task_id"]) if e["type"] == "grant.revoked"]
    assert (event["id"], event["grant_id"]) == (claims["audit_event_id"], granted["grant_id"])
    assert event["data"]["time_to_dead_ms"] == claims["time_to_dead_ms"]
    assert granted["credential"]["password"] not in json.dumps(claims)


async def test_there_is_none_for_what_lives_or_is_being_revoked(world: World) -> None:
    task = await world.open()
    grant_id = (await world.grant(task, "orders-read"))["grant_id"]
    path = f"/v1/grants/{grant_id}/receipt"

    alive = await world.call("operator", "GET", path)
    await world.app.pipeline.ledger.begin_revoke([grant_id], reason="a test", actor="test")
    unwanted = await world.call("operator", "GET", path)

    for answer, state in ((alive, "active"), (unwanted, "revoking")):
        assert assert_problem(answer, 409, "not_dead_yet")["state"] == state
        assert 0 < int(answer.headers["retry-after"]) <= 60
    await world.sweep(ahead_ms=60_000)
    assert (await receipt_of(world, grant_id))["claims"]["confirmed"]


async def test_of_what_the_backend_refused_it_says_that_nothing_was_issued(
    engines: tuple[DevStack, Config],
) -> None:
    stack, config = engines
    astray = [
        c.model_copy(update={"path": "database/creds/nowhere"}) if c.name == "orders-read" else c
        for c in config.capabilities
    ]
    world = World(stack.issuer, config.model_copy(update={"capabilities": astray}))
    task = await world.open()
    path = f"/v1/tasks/{task['task_id']}/grants"
    await world.call("orchestrator", "POST", path, {"capability": "orders-read"})
    [failed] = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)

    claims = (await receipt_of(world, failed.id))["claims"]

    assert (claims["state"], claims["issued"], claims["confirmed"]) == ("failed", False, False)
    assert (claims["evidence"], claims["time_to_dead_ms"]) == (None, None)
    await world.complete(task)
    await world.close()


async def test_a_receipt_is_no_token_and_a_token_no_receipt(world: World) -> None:
    task = await world.open()
    granted = await world.grant(task)
    await world.complete(task)
    receipt = (await receipt_of(world, granted["grant_id"]))["receipt"]
    keys = parse_key_set(await published(world))

    headers = {"Authorization": f"Bearer {receipt}"}
    assert (await world.http.get("/v1/tasks", headers=headers)).status_code == 401
    with pytest.raises(InvalidToken, match="no revocation receipt"):
        verified(await world.token("operator"), keys)


async def test_a_receipt_that_was_touched_or_whose_key_is_unknown_is_not_good(
    world: World,
) -> None:
    task = await world.open()
    granted, another = [await world.grant(task) for _ in "12"]
    await world.complete(task)
    receipt = (await receipt_of(world, granted["grant_id"]))["receipt"]
    keys = parse_key_set(await published(world))
    header, body, signature = receipt.split(".")
    other = (await receipt_of(world, another["grant_id"]))["receipt"].split(".")[2]

    assert verified(receipt, keys)["grant_id"] == granted["grant_id"]
    for bad in (f"{header}.{body}.{other}", f"{header}.{body[:-4]}AAAA.{signature}", "nonsense"):
        with pytest.raises(InvalidToken):
            verified(bad, keys)
    with pytest.raises(InvalidToken, match="kept since"):
        verified(receipt, parse_key_set(b'{"keys": []}'))
