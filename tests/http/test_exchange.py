"""RFC 8693 beyond a workload's own token: other targets, and narrowing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.http.front_door import (
    ACCESS_TOKEN,
    BILLING,
    ORDERS,
    REPORTS,
    expect,
)
from tests.http.parties import assert_oauth_error, details
from tests.world import JWT

if TYPE_CHECKING:
    from tests.http.front_door import FrontDoor


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
