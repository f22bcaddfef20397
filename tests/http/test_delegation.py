"""RFC 8693, somebody acting for another: actors, ``may_act``, and what must not be laundered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.front_door import ACCESS_TOKEN, ORDERS, STAFF, STAFF_KEY, expect
from tests.http.parties import assert_oauth_error, details
from tests.world import JWT

if TYPE_CHECKING:
    from tests.http.front_door import FrontDoor


# ── delegation ───────────────────────────────────────────────────────────────────────────────────


async def delegated(door: FrontDoor, subject: str, kind: str, task: dict[str, Any]) -> Any:
    """Exchange somebody's token for one of the task's agent acting for them."""
    return await door.swap(
        subject,
        subject_token_type=kind,
        actor_token=door.identity(task["agent"]),
        actor_token_type=JWT,
        authorization_details=details(task["task_id"]),
    )


async def test_an_agent_acts_for_the_orchestrator_of_its_task(door: FrontDoor) -> None:
    task = await door.task_of()

    for subject, kind in (
        (door.identity("orchestrator"), JWT),
        (await door.token("orchestrator"), ACCESS_TOKEN),
    ):
        body = expect(await delegated(door, subject, kind, task))
        claims = await door.claims(body["access_token"])
        assert (claims["sub"], claims["act"]) == ("orchestrator", {"sub": "report-writer"})
        assert claims["client_id"] == "report-writer"


async def test_an_agent_acts_for_the_person_of_its_task_and_for_no_other(door: FrontDoor) -> None:
    task = await door.task_of(on_behalf_of=door.person("alice"))

    body = expect(await delegated(door, door.person("alice"), JWT, task))

    assert (await door.claims(body["access_token"]))["sub"] == "staff:alice"
    for subject in (door.person("mallory"), door.identity("orchestrator")):
        assert_oauth_error(await delegated(door, subject, JWT, task), "invalid_request")


async def test_a_person_alone_is_no_principal(door: FrontDoor) -> None:
    task = await door.task_of(on_behalf_of=door.person("alice"))

    answer = await door.swap(door.person("alice"), authorization_details=details(task["task_id"]))

    assert_oauth_error(answer, "invalid_request")


async def test_a_child_acts_by_its_parents_token(door: FrontDoor) -> None:
    parent = await door.task_of()
    token = await door.task_token(parent)
    child = await door.task_of("order-clerk", parent_task_id=parent["task_id"])

    body = expect(await delegated(door, token, ACCESS_TOKEN, child))

    claims = await door.claims(body["access_token"])
    assert claims["act"] == {"sub": "order-clerk", "act": {"sub": "report-writer"}}
    assert not {"exp", "nbf", "aud"} & set(claims["act"])
    assert claims["authorization_details"][0]["task_id"] == child["task_id"]


async def test_an_agent_acts_by_no_strangers_token(door: FrontDoor) -> None:
    stranger = await door.task_token(await door.task_of("order-clerk"))
    task = await door.task_of()

    assert_oauth_error(await delegated(door, stranger, ACCESS_TOKEN, task), "invalid_request")
    rival = door.identity("rival")
    assert_oauth_error(await delegated(door, rival, JWT, task), "invalid_request")


@pytest.mark.parametrize("name", ["orchestrator", "operator", "orders-service"])
async def test_only_an_agent_acts_for_others(door: FrontDoor, name: str) -> None:
    answer = await door.swap(door.person(), actor_token=door.identity(name), actor_token_type=JWT)

    assert_oauth_error(answer, "invalid_request")


@pytest.mark.parametrize(
    "actor",
    [
        {"actor_token": "x"},
        {"actor_token_type": JWT},
        {"actor_token": "x", "actor_token_type": ACCESS_TOKEN},
        {"actor_token": "x", "actor_token_type": JWT},
    ],
)
async def test_half_an_actor_is_none(door: FrontDoor, actor: dict[str, str]) -> None:
    assert_oauth_error(await door.swap(door.identity("orchestrator"), **actor), "invalid_request")


async def test_an_actor_that_is_its_own_subject(door: FrontDoor) -> None:
    task = await door.task_of()
    token = await door.task_token(task)

    body = expect(await delegated(door, token, ACCESS_TOKEN, task))

    assert (await door.claims(body["access_token"]))["act"] == {"sub": "report-writer"}


# ── may_act, and what must not be laundered ──────────────────────────────────────────────────────


def named(door: FrontDoor, agent: str, **changes: Any) -> dict[str, Any]:
    """The may_act claim that names an agent of the dev issuer."""
    issuer = next(i for i in door.config.issuers() if i.name == "dev").issuer
    return {"iss": issuer, "sub": f"agent/{agent}", **changes}


async def test_may_act_lets_the_one_it_names_act(door: FrontDoor) -> None:
    task = await door.task_of(on_behalf_of=door.person())
    subject = door.person(may_act=named(door, "report-writer"))

    assert expect(await delegated(door, subject, JWT, task))


@pytest.mark.parametrize(
    "may_act",
    [
        {"sub": "agent/order-clerk"},
        {"iss": STAFF, "sub": "agent/report-writer"},
        {"iss": STAFF},
        {},
        "agent/report-writer",
        ["agent/report-writer"],
        7,
        {"sub": ["agent/report-writer"]},
    ],
)
async def test_may_act_stops_everybody_else(door: FrontDoor, may_act: Any) -> None:
    task = await door.task_of(on_behalf_of=door.person())
    subject = door.person(may_act=may_act)

    assert_oauth_error(await delegated(door, subject, JWT, task), "invalid_request")


async def test_a_may_act_of_null_names_nobody(door: FrontDoor) -> None:
    task = await door.task_of(on_behalf_of=door.person())
    claims = {"iss": STAFF, "sub": "alice", "aud": "broker", "exp": int(time.time()) + 60}
    subject = STAFF_KEY.sign({**claims, "may_act": None})

    assert_oauth_error(await delegated(door, subject, JWT, task), "invalid_request")


async def test_leaving_the_actor_out_does_not_get_around_may_act(door: FrontDoor) -> None:
    # Signed by the issuer of an orchestrator: without the claim it would be that orchestrator.
    claims = {
        "iss": STAFF,
        "sub": "alice",
        "aud": "broker",
        "exp": int(time.time()) + 60,
        "may_act": named(door, "report-writer"),
    }

    answer = await door.swap(STAFF_KEY.sign(claims))

    assert "may_act" in assert_oauth_error(answer, "invalid_request")


async def test_a_delegation_of_another_issuer_proves_nobody(door: FrontDoor) -> None:
    token = door.person(act={"sub": "agent-of-somebody"})
    task = await door.task_of(on_behalf_of=door.person())

    assert_oauth_error(await door.swap(token), "invalid_request")
    assert_oauth_error(await delegated(door, token, JWT, task), "invalid_request")


async def test_dropping_the_actor_keeps_the_chain(door: FrontDoor) -> None:
    parent = await door.task_of()
    child = await door.task_of("order-clerk", parent_task_id=parent["task_id"])
    token = await door.task_token(child)

    for body in (
        expect(await door.narrowed(token)),
        expect(await door.narrowed(token, resource=ORDERS)),
    ):
        claims = await door.claims(body["access_token"])
        assert claims["act"] == {"sub": "order-clerk", "act": {"sub": "report-writer"}}


async def test_a_trusted_issuer_that_imitates_us_is_not_believed(door: FrontDoor) -> None:
    # Everything as in a token of ours, signed by a key the broker trusts for people.
    task = await door.task_of()
    real = await door.claims(await door.task_token(task))
    fake = {**real, "iss": door.config.broker.issuer, "exp": int(time.time()) + 60}
    for header in ({"typ": "at+jwt"}, {}):
        token = STAFF_KEY.sign(fake, **header)
        assert_oauth_error(await door.narrowed(token), "invalid_request")
        assert_oauth_error(await door.swap(token), "invalid_request")
        headers = {"Authorization": f"Bearer {token}"}
        assert (await door.http.get("/v1/tasks", headers=headers)).status_code == 401
        assert not await door.alive(token)
