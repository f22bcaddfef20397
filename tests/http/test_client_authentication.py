"""Clients at the OAuth endpoints: private_key_jwt, client_credentials, and no shared secret."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.http.front_door import ASSERTION
from tests.http.parties import assert_oauth_error, details
from tests.issuers import IssuerKey
from tests.world import JWT

if TYPE_CHECKING:
    from tests.http.front_door import FrontDoor


async def credentials(door: FrontDoor, client: dict[str, str], **more: Any) -> Any:
    form = {"grant_type": "client_credentials", **client, **more}
    return await door.post("/oauth/token", form)


async def test_an_agent_with_a_key_of_its_own_gets_its_task_token(door: FrontDoor) -> None:
    task = await door.task_of("runner")
    detail = details(task["task_id"])

    answer = await credentials(door, door.as_client("runner"), authorization_details=detail)

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert "issued_token_type" not in body  # RFC 8693's, and this is no exchange
    claims = await door.claims(body["access_token"])
    assert (claims["sub"], claims["act"]["sub"]) == ("orchestrator", "runner")


async def test_a_client_without_a_task_that_needs_none(door: FrontDoor) -> None:
    answer = await credentials(door, door.as_client("desk"), client_id="desk")

    assert answer.status_code == 200, answer.text
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await door.http.get("/v1/tasks", headers=headers)).status_code == 200


async def test_without_a_client_there_are_no_client_credentials(door: FrontDoor) -> None:
    assert_oauth_error(await credentials(door, {}), "invalid_client")
    assert_oauth_error(await credentials(door, {"client_id": "desk"}), "invalid_client")


@pytest.mark.parametrize(
    ("claims", "what"),
    [
        ({"aud": "broker"}, "another audience"),
        ({"aud": ["http://127.0.0.1:8700", "https://other.example"]}, "two audiences"),
        ({"aud": "http://127.0.0.1:8700/oauth/token"}, "the endpoint"),
        ({"aud": None}, "no audience"),
        ({"sub": "gateway"}, "another subject"),
        ({"sub": None}, "no subject"),
        ({"iss": "nobody"}, "an unknown client"),
        ({"iss": "report-writer", "sub": "report-writer"}, "one without a key"),
        ({"iss": None}, "no issuer"),
        ({"iss": 7}, "no text"),
        ({"exp": None}, "no end"),
        ({"exp": 1}, "over"),
        ({"exp": int(time.time()) + 86_400}, "too long"),
        ({"nbf": int(time.time()) + 3_600}, "not yet"),
        ({"jti": None}, "no id"),
        ({"jti": ["a"]}, "no text as id"),
    ],
)
async def test_assertions_that_prove_nothing(
    door: FrontDoor, claims: dict[str, Any], what: str
) -> None:
    answer = await credentials(door, door.as_client("desk", **claims))

    assert_oauth_error(answer, "invalid_client")


async def test_an_unknown_client_and_a_wrong_key_look_the_same(door: FrontDoor) -> None:
    stranger = IssuerKey.new(kid="client-1")
    issuer = door.config.broker.issuer

    def signed(name: str) -> dict[str, str]:
        now = int(time.time())
        claims = {"iss": name, "sub": name, "aud": issuer, "exp": now + 60, "jti": name}
        return {"client_assertion_type": ASSERTION, "client_assertion": stranger.sign(claims)}

    known = await credentials(door, signed("desk"))
    unknown = await credentials(door, signed("nobody"))

    assert known.json() == unknown.json()
    assert_oauth_error(known, "invalid_client")


async def test_an_assertion_is_used_once_even_by_two_at_once(door: FrontDoor) -> None:
    client = door.as_client("desk")

    answers = await asyncio.gather(*(credentials(door, client) for _ in range(8)))

    assert sorted(a.status_code for a in answers) == [200] + [400] * 7


async def test_a_used_assertion_is_no_good_at_another_endpoint(door: FrontDoor) -> None:
    client = door.as_client("desk")
    token = (await credentials(door, client)).json()["access_token"]

    answer = await door.post("/oauth/introspect", {**client, "token": token})

    assert_oauth_error(answer, "invalid_client", 401)


@pytest.mark.parametrize(
    ("change", "error", "status"),
    [
        ({"client_assertion": None}, "invalid_request", 400),
        ({"client_assertion_type": None}, "invalid_request", 400),
        ({"client_assertion_type": "urn:x"}, "invalid_client", 400),
        ({"client_assertion": "x"}, "invalid_client", 400),
        ({"client_assertion": "x" * 20_000}, "invalid_client", 400),
        ({"client_id": "gateway"}, "invalid_client", 400),
        ({"client_secret": "hunter2"}, "invalid_client", 400),
    ],
)
async def test_malformed_client_authentication(
    door: FrontDoor, change: dict[str, Any], error: str, status: int
) -> None:
    form = {name: value for name, value in {**door.as_client("desk"), **change}.items() if value}

    answer = await credentials(door, form)

    assert_oauth_error(answer, error, status)
    assert "hunter2" not in answer.text


async def test_a_password_in_the_header_is_refused_with_a_challenge(door: FrontDoor) -> None:
    basic = b64encode(b"desk:hunter2").decode()

    answer = await door.post(
        "/oauth/token", {"grant_type": "client_credentials"}, Authorization=f"Basic {basic}"
    )

    assert_oauth_error(answer, "invalid_client", 401)
    assert answer.headers["www-authenticate"]


async def test_a_client_id_that_nobody_proved_is_the_one_that_acts(door: FrontDoor) -> None:
    for client_id, status in (("orchestrator", 200), ("operator", 400), ("", 200)):
        answer = await door.swap(door.identity("orchestrator"), client_id=client_id)
        assert answer.status_code == status, answer.text


async def test_subject_tokens_are_not_for_client_credentials(door: FrontDoor) -> None:
    answer = await credentials(
        door,
        door.as_client("desk"),
        subject_token=door.identity("operator"),
        subject_token_type=JWT,
    )

    assert_oauth_error(answer, "invalid_request")


# ── a client that exchanges ──────────────────────────────────────────────────────────────────────


async def test_a_client_acts_for_the_subject_of_its_task(door: FrontDoor) -> None:
    task = await door.task_of("runner", on_behalf_of=door.person())
    detail = details(task["task_id"])

    answer = await door.swap(
        door.person(), authorization_details=detail, **door.as_client("runner")
    )

    assert answer.status_code == 200, answer.text
    claims = await door.claims(answer.json()["access_token"])
    assert (claims["sub"], claims["act"]["sub"]) == ("staff:alice", "runner")


async def test_a_client_does_not_pass_for_another_principal(door: FrontDoor) -> None:
    task = await door.task_of()
    detail = details(task["task_id"])

    as_agent = await door.swap(
        door.identity("report-writer"), authorization_details=detail, **door.as_client("runner")
    )
    as_orchestrator = await door.swap(door.identity("orchestrator"), **door.as_client("desk"))
    third_party = await door.swap(
        door.person(),
        actor_token=door.identity("report-writer"),
        actor_token_type=JWT,
        authorization_details=detail,
        **door.as_client("runner"),
    )

    # The client is the one that acts, and this isn't its task, or it is no agent at all.
    assert_oauth_error(as_agent, "invalid_authorization_details")
    assert_oauth_error(as_orchestrator, "invalid_request")
    assert_oauth_error(third_party, "unauthorized_client")


# ── introspection and its signed form ────────────────────────────────────────────────────────────


async def test_a_service_introspects_as_a_client(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())

    answer = await door.post("/oauth/introspect", {**door.as_client("gateway"), "token": own})

    assert answer.status_code == 200, answer.text
    assert answer.json() == {"active": False}  # alive, and not for this service


async def test_introspection_needs_a_caller(door: FrontDoor) -> None:
    answer = await door.post("/oauth/introspect", {"token": "x"})

    assert_oauth_error(answer, "invalid_client", 401)
    assert answer.headers["www-authenticate"]


async def test_one_way_to_authenticate_at_a_time(door: FrontDoor) -> None:
    bearer = f"Bearer {await door.token('operator')}"

    answer = await door.post(
        "/oauth/introspect", {**door.as_client("desk"), "token": "x"}, Authorization=bearer
    )

    assert_oauth_error(answer, "invalid_request")


async def test_a_signed_answer_is_no_token(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())
    accept = "application/token-introspection+jwt"

    answer = await door.post(
        "/oauth/introspect", {**door.as_client("desk"), "token": own}, Accept=accept
    )

    assert answer.headers["content-type"] == accept
    assert answer.headers["vary"] == "Accept"

    keys = (await door.http.get("/.well-known/jwks.json")).json()["keys"]
    header = jwt.get_unverified_header(answer.text)
    key = next(jwt.PyJWK(k) for k in keys if k["kid"] == header["kid"])
    assert header["typ"] == "token-introspection+jwt"
    claims = jwt.decode(
        answer.text, key, algorithms=["ES256"], audience="desk", issuer=door.config.broker.issuer
    )
    assert claims["token_introspection"]["active"]
    # RFC 9701 section 5: neither sub nor exp, so that it is no token anywhere.
    assert set(claims) == {"iss", "aud", "iat", "token_introspection"}
    headers = {"Authorization": f"Bearer {answer.text}"}
    assert (await door.http.get("/v1/tasks", headers=headers)).status_code == 401
