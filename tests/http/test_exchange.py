"""RFC 8693 beyond a workload's own token: other targets, narrowing, delegation, laundering."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.front_door import (
    ACCESS_TOKEN,
    BILLING,
    ORDERS,
    REPORTS,
    STAFF,
    STAFF_KEY,
)
from tests.http.parties import assert_oauth_error, details
from tests.world import JWT

if TYPE_CHECKING:
    from tests.http.front_door import FrontDoor


def expect(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()


# ── what the answer says ─────────────────────────────────────────────────────────────────────────


async def test_the_answer_has_what_rfc_8693_wants(door: FrontDoor) -> None:
    task = await door.task_of()
    answer = await door.swap(
        door.identity("report-writer"), authorization_details=details(task["task_id"])
    )

    body = expect(answer)

    assert body["issued_token_type"] == ACCESS_TOKEN
    assert body["token_type"] == "Bearer"
    assert body["scope"] == "agent"
    assert body["authorization_details"] == [{"type": "broker_task", "task_id": task["task_id"]}]
    assert 0 < body["expires_in"] <= 900
    assert "refresh_token" not in body
    assert answer.headers["cache-control"] == "no-store"


async def test_a_jwt_is_what_an_access_token_is_anyway(door: FrontDoor) -> None:
    body = expect(await door.swap(door.identity("orchestrator"), requested_token_type=JWT))

    assert (body["issued_token_type"], body["token_type"]) == (JWT, "Bearer")
    assert await door.alive(body["access_token"])


@pytest.mark.parametrize(
    ("scope", "fine"), [("agent", True), ("operator", False), ("agent operator", False)]
)
async def test_the_scope_of_our_own_tokens_is_the_role(
    door: FrontDoor, scope: str, fine: bool
) -> None:
    task = await door.task_of()
    answer = await door.swap(
        door.identity("report-writer"),
        authorization_details=details(task["task_id"]),
        scope=scope,
    )

    if fine:
        assert expect(answer)["scope"] == "agent"
    else:
        assert_oauth_error(answer, "invalid_scope")


# ── other resource servers ───────────────────────────────────────────────────────────────────────


async def test_a_workload_gets_a_token_for_another_server_in_one_step(door: FrontDoor) -> None:
    task = await door.task_of()

    body = expect(
        await door.swap(
            door.identity("report-writer"),
            authorization_details=details(task["task_id"]),
            resource=ORDERS,
        )
    )

    assert body["scope"] == "orders.read"
    claims = await door.claims(body["access_token"])
    assert claims["aud"] == ORDERS
    assert claims["act"] == {"sub": "report-writer"}
    shown = await door.show_grant(body["grant_id"])
    assert (shown["state"], shown["capability"]) == ("active", "orders-api")


async def test_a_task_token_is_exchanged_for_a_narrower_one_that_dies_with_the_task(
    door: FrontDoor,
) -> None:
    task = await door.task_of()
    own = await door.task_token(task)

    body = expect(await door.narrowed(own, resource=ORDERS, scope="orders.write"))

    assert body["scope"] == "orders.write"
    claims = await door.claims(body["access_token"])
    assert (claims["aud"], claims["scope"], claims["sub"]) == (
        ORDERS,
        "orders.write",
        "orchestrator",
    )
    assert (await door.show_grant(body["grant_id"]))["capability"] == "orders-admin"
    await door.complete(task)
    assert not await door.alive(body["access_token"])
    assert (await door.show_grant(body["grant_id"]))["state"] == "revoked"


async def test_the_least_capability_that_covers_the_request_is_granted(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())

    one = expect(await door.narrowed(own, resource=ORDERS, scope="orders.read"))
    both = expect(await door.narrowed(own, resource=ORDERS, scope="orders.read orders.write"))

    assert (await door.show_grant(one["grant_id"]))["capability"] == "orders-api"
    assert (await door.show_grant(both["grant_id"]))["capability"] == "orders-admin"


async def test_targets_repeat_and_are_all_in_the_token(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())
    form = list(door.form(own, subject_token_type=ACCESS_TOKEN).items())

    body = expect(
        await door.post(
            "/oauth/token",
            [*form, ("resource", ORDERS), ("resource", BILLING), ("audience", "orders-service")],
        )
    )

    claims = await door.claims(body["access_token"])
    assert claims["aud"] == [BILLING, ORDERS]
    assert claims["scope"] == "both.read"


async def test_one_of_two_services_of_a_capability(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of(capabilities=["two-services"]))

    body = expect(await door.narrowed(own, audience="billing-service"))

    assert (await door.claims(body["access_token"]))["aud"] == BILLING


@pytest.mark.parametrize(
    ("targets", "error"),
    [
        ({"resource": "https://unheard.example"}, "invalid_target"),
        ({"audience": "unheard-of"}, "invalid_target"),
        ({"audience": "operator"}, "invalid_target"),
        ({"resource": REPORTS + "#x"}, "invalid_target"),
        ({"resource": ORDERS + "/"}, "invalid_target"),
        ({"resource": ORDERS, "scope": "orders.delete"}, "invalid_scope"),
        ({"resource": ORDERS, "scope": "orders.read  orders.write"}, "invalid_scope"),
        ({"resource": ORDERS, "scope": 'a"b'}, "invalid_scope"),
        ({"resource": REPORTS}, "invalid_target"),  # wants a token that is bound to a key
    ],
)
async def test_targets_and_scopes_that_the_task_may_not_have(
    door: FrontDoor, targets: dict[str, str], error: str
) -> None:
    own = await door.task_token(await door.task_of())

    assert_oauth_error(await door.narrowed(own, **targets), error)


async def test_the_broker_and_others_are_never_in_one_token(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())
    form = list(door.form(own, subject_token_type=ACCESS_TOKEN).items())

    answer = await door.post(
        "/oauth/token", [*form, ("resource", ORDERS), ("resource", door.config.broker.issuer)]
    )

    assert_oauth_error(answer, "invalid_target")


async def test_more_targets_than_anybody_needs(door: FrontDoor) -> None:
    form = list(door.form(door.identity("orchestrator")).items())
    many = [("audience", f"https://{n}.example") for n in range(30)]

    assert_oauth_error(await door.post("/oauth/token", [*form, *many]), "invalid_target")


async def test_only_agents_have_tokens_for_others(door: FrontDoor) -> None:
    answer = await door.swap(door.identity("orchestrator"), resource=ORDERS)

    assert_oauth_error(answer, "invalid_target")


async def test_a_capability_that_the_task_lacks_is_no_target(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of(capabilities=["orders-read"]))

    assert_oauth_error(await door.narrowed(own, resource=ORDERS), "invalid_target")


# ── narrowing ────────────────────────────────────────────────────────────────────────────────────


async def test_a_token_can_be_exchanged_for_less_and_never_for_more(door: FrontDoor) -> None:
    task = await door.task_of()
    own = await door.task_token(task)
    some = details(task["task_id"], capabilities=["orders-api", "two-services"])
    one = details(task["task_id"], capabilities=["orders-api"])

    less = expect(await door.narrowed(own, authorization_details=some))
    least = expect(await door.narrowed(less["access_token"], authorization_details=one))
    kept = expect(await door.narrowed(least["access_token"]))
    more = await door.narrowed(least["access_token"], authorization_details=some)

    assert less["authorization_details"][0]["capabilities"] == ["orders-api", "two-services"]
    assert kept["authorization_details"][0]["capabilities"] == ["orders-api"]
    assert_oauth_error(more, "invalid_authorization_details")
    path = f"/v1/tasks/{task['task_id']}/grants"
    for token, capability, status in (
        (least["access_token"], "orders-api", 201),
        (least["access_token"], "orders-read", 403),
        (own, "orders-read", 201),
    ):
        answer = await door.http.post(
            path, json={"capability": capability}, headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == status, answer.text
    refused = await door.narrowed(least["access_token"], resource=BILLING)
    assert_oauth_error(refused, "invalid_target")


@pytest.mark.parametrize("names", [["deploy"], [], "orders-api", [7], None, ["x"] * 60])
async def test_what_the_task_lacks_is_nothing_to_narrow_to(door: FrontDoor, names: Any) -> None:
    task = await door.task_of()
    asked = details(task["task_id"], capabilities=names)

    answer = await door.swap(door.identity("report-writer"), authorization_details=asked)

    assert_oauth_error(answer, "invalid_authorization_details")


async def test_an_exchanged_token_never_outlives_the_one_before(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())

    first = await door.claims(own)
    second = await door.claims(expect(await door.narrowed(own))["access_token"])
    third = await door.claims(expect(await door.narrowed(own, resource=ORDERS))["access_token"])

    assert first["exp"] >= second["exp"]
    assert first["exp"] >= third["exp"]


async def test_exchanging_goes_only_so_deep(door: FrontDoor) -> None:
    token = await door.task_token(await door.task_of())
    for _ in range(8):
        token = expect(await door.narrowed(token))["access_token"]

    assert_oauth_error(await door.narrowed(token), "invalid_request")


async def test_a_token_for_a_service_opens_no_other_door(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())
    narrow = expect(await door.narrowed(own, resource=ORDERS))["access_token"]

    assert_oauth_error(await door.narrowed(narrow), "invalid_request")
    headers = {"Authorization": f"Bearer {narrow}"}
    assert (await door.http.get("/v1/tasks", headers=headers)).status_code == 401


async def test_the_two_kinds_of_subject_token_are_not_confused(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())

    assert_oauth_error(await door.swap(own), "invalid_request")
    assert_oauth_error(await door.narrowed(door.identity("orchestrator")), "invalid_request")
    assert_oauth_error(await door.narrowed(door.person()), "invalid_request")


async def test_a_task_token_stays_with_its_task(door: FrontDoor) -> None:
    one, other = await door.task_of(), await door.task_of()
    token = await door.task_token(one)

    answer = await door.narrowed(token, authorization_details=details(other["task_id"]))

    assert_oauth_error(answer, "invalid_authorization_details")


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
