"""Tokens that are bound to a key: worth nothing to whoever has the token and not the key."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.front_door import ACCESS_TOKEN, ORDERS, REPORTS
from tests.http.parties import assert_oauth_error, assert_problem, details
from tests.possession import Sender

if TYPE_CHECKING:
    import httpx2

    from tests.http.front_door import FrontDoor

SENDER = Sender()
THIEF = Sender()


async def bound_token(door: FrontDoor, task: dict[str, Any], **changes: Any) -> dict[str, Any]:
    form = door.form(
        door.identity(task["agent"]), authorization_details=details(task["task_id"]), **changes
    )
    answer = await door.bound(form, SENDER)
    assert answer.status_code == 200, answer.text
    assert answer.headers["dpop-nonce"]
    return answer.json()


async def get(
    door: FrontDoor, token: str, sender: Sender | None, *, scheme: str = "DPoP", **proof: Any
) -> httpx2.Response:
    """Call the API, once more with the nonce that is asked for."""
    url, nonce = f"{door.config.broker.issuer}/v1/tasks", None
    answer = await door.http.get("/v1/tasks", headers={"Authorization": f"{scheme} {token}"})
    for _ in range(2):
        if sender is None:
            break
        claims: dict[str, Any] = {"nonce": nonce, "access_token": token, **proof}
        made = sender.proof("GET", url, time.time(), **claims)
        headers = {"Authorization": f"{scheme} {token}", "DPoP": made}
        answer = await door.http.get("/v1/tasks", headers=headers)
        nonce = answer.headers.get("dpop-nonce", nonce)
    return answer


async def test_a_bound_token_works_with_its_key_alone(door: FrontDoor) -> None:
    body = await bound_token(door, await door.task_of())
    token = body["access_token"]

    assert body["token_type"] == "DPoP"
    assert (await door.claims(token))["cnf"] == {"jkt": SENDER.jkt()}
    assert (await door.claims(token))["token_type"] == "DPoP"
    assert (await get(door, token, SENDER)).status_code == 200
    for answer in (
        await get(door, token, None, scheme="Bearer"),
        await get(door, token, SENDER, scheme="Bearer"),
        await get(door, token, None),
        await get(door, token, THIEF),
    ):
        assert_problem(answer, 401, "invalid_token")
        assert "DPoP" in answer.headers["www-authenticate"]
    assert_problem(await get(door, token, SENDER, htu=ORDERS), 401, "invalid_dpop_proof")
    assert_problem(await get(door, token, SENDER, ath="x"), 401, "invalid_dpop_proof")


async def test_the_api_asks_for_a_nonce_as_a_resource_does(door: FrontDoor) -> None:
    token = (await bound_token(door, await door.task_of()))["access_token"]
    url = f"{door.config.broker.issuer}/v1/tasks"
    proof = SENDER.proof("GET", url, time.time(), access_token=token)

    answer = await door.http.get(
        "/v1/tasks", headers={"Authorization": f"DPoP {token}", "DPoP": proof}
    )

    assert_problem(answer, 401, "use_dpop_nonce")
    assert 'error="use_dpop_nonce"' in answer.headers["www-authenticate"]
    assert answer.headers["dpop-nonce"]


async def test_a_free_token_is_not_sent_as_a_bound_one(door: FrontDoor) -> None:
    token = await door.task_token(await door.task_of())

    assert_problem(await get(door, token, SENDER), 401, "invalid_token")


async def test_a_thief_cannot_exchange_a_bound_token(door: FrontDoor) -> None:
    token = (await bound_token(door, await door.task_of()))["access_token"]
    form = door.form(token, subject_token_type=ACCESS_TOKEN)

    free = await door.post("/oauth/token", form)
    other = await door.bound(form, THIEF)
    own = await door.bound(form, SENDER)

    assert_oauth_error(free, "invalid_request")
    assert_oauth_error(other, "invalid_request")
    assert own.status_code == 200
    assert (await door.claims(own.json()["access_token"]))["cnf"] == {"jkt": SENDER.jkt()}


async def test_what_a_bound_token_gets_is_bound_as_well(door: FrontDoor) -> None:
    task = await door.task_of()
    token = (await bound_token(door, task))["access_token"]
    form = door.form(token, subject_token_type=ACCESS_TOKEN, resource=ORDERS)

    body = (await door.bound(form, SENDER)).json()

    assert body["token_type"] == "DPoP"
    assert (await door.claims(body["access_token"]))["cnf"] == {"jkt": SENDER.jkt()}


async def test_policy_can_insist_on_a_bound_token(door: FrontDoor) -> None:
    task = await door.task_of()
    free = await door.task_token(task)
    path = f"/v1/tasks/{task['task_id']}/grants"

    refused = await door.http.post(
        path, json={"capability": "bound"}, headers={"Authorization": f"Bearer {free}"}
    )
    granted = await bound_token(door, task, resource=REPORTS)

    assert "DPoP" in assert_problem(refused, 403, "binding_required")["detail"]
    assert (await door.claims(granted["access_token"]))["aud"] == REPORTS


async def test_a_certificates_token_is_bound_to_it(door: FrontDoor) -> None:
    # What TLS says about the connection is for the tests of mTLS; here a token says it is bound.
    task = await door.task_of()
    token = (await bound_token(door, task))["access_token"]
    claims = door.app.tokens.verify(token, None)
    elsewhere = door.app.tokens.mint(replace(claims, cnf={"x5t#S256": "A" * 43})).reveal()

    assert_problem(await get(door, elsewhere, None, scheme="Bearer"), 401, "invalid_token")
    assert_problem(await get(door, elsewhere, SENDER), 401, "invalid_token")


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
async def test_a_proof_at_the_oauth_endpoints_is_a_resources(door: FrontDoor, path: str) -> None:
    token = (await bound_token(door, await door.task_of()))["access_token"]
    url = f"{door.config.broker.issuer}{path}"
    proof = SENDER.proof("POST", url, time.time(), access_token=token)

    answer = await door.post(path, {"token": token}, Authorization=f"DPoP {token}", DPoP=proof)

    assert_oauth_error(answer, "use_dpop_nonce", 401)


async def test_two_proofs_are_none(door: FrontDoor) -> None:
    url = f"{door.config.broker.issuer}/oauth/token"
    form = door.form(door.identity("orchestrator"))
    proofs = [("DPoP", SENDER.proof("POST", url, time.time())) for _ in range(2)]
    kind = ("Content-Type", "application/x-www-form-urlencoded")

    answer = await door.http.post("/oauth/token", data=form, headers=[kind, *proofs])

    assert_oauth_error(answer, "invalid_dpop_proof")
