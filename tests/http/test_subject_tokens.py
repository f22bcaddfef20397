"""Which workload identities the token endpoint believes; and that no token passes for another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.dev.issuer import AUDIENCE, ISSUER
from tests.http.parties import assert_oauth_error, assert_problem, exchange_form
from tests.issuers import IssuerKey, segment

if TYPE_CHECKING:
    import httpx2

    from tests.world import World

FORGER = IssuerKey.new()


async def redeem(world: World, subject_token: str) -> httpx2.Response:
    form = {**exchange_form(world, "orchestrator"), "subject_token": subject_token}
    return await world.http.post("/oauth/token", data=form)


def claims(**changes: object) -> dict[str, Any]:
    now = 1_800_000_000
    base = {
        "iss": ISSUER,
        "sub": "orchestrator/orchestrator",
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
    }
    return {**base, **changes}


async def test_an_expired_workload_token_is_refused(world: World) -> None:
    token = world.issuer.token("orchestrator/orchestrator", ttl_s=-60).reveal()

    assert "expired" in assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_a_workload_token_for_another_audience_is_refused(world: World) -> None:
    token = world.issuer.token(
        "orchestrator/orchestrator", audience="https://other.example"
    ).reveal()

    assert "audience" in assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_a_workload_token_that_lives_too_long_is_refused(world: World) -> None:
    token = world.issuer.token("orchestrator/orchestrator", ttl_s=90_000).reveal()

    assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_an_unregistered_workload_is_refused(world: World) -> None:
    token = world.issuer.token("orchestrator/somebody-else").reveal()

    assert_oauth_error(await redeem(world, token), "invalid_request")


@pytest.mark.parametrize("subject", ["orchestrator/orchestrator ", "Orchestrator/orchestrator"])
async def test_subjects_are_compared_exactly(world: World, subject: str) -> None:
    token = world.issuer.token(subject).reveal()

    assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_a_forged_signature_is_refused(world: World) -> None:
    kid = json.loads(world.issuer.jwks_file.read_text("utf-8"))["keys"][0]["kid"]
    token = IssuerKey("ES256", kid, FORGER.private).sign(claims())

    assert "signature" in assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_an_issuer_that_is_not_configured_is_refused(world: World) -> None:
    token = FORGER.sign(claims(iss="https://evil.example"))

    assert "issuer" in assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_an_unsigned_token_is_refused(world: World) -> None:
    token = f"{segment({'alg': 'none', 'typ': 'JWT'})}.{segment(claims())}."

    assert "algorithm" in assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_a_changed_payload_is_refused(world: World) -> None:
    head, _, signature = world.identity("report-writer").split(".")
    token = ".".join((head, segment(claims(sub="operator/operator")), signature))

    assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_the_brokers_own_token_is_no_workload_identity(world: World) -> None:
    token = await world.token("orchestrator")

    assert_oauth_error(await redeem(world, token), "invalid_request")


async def test_a_credential_the_broker_issued_is_no_workload_identity(world: World) -> None:
    task = await world.open(capabilities=["orders-api"])
    granted = await world.grant(task, "orders-api")

    answer = await redeem(world, granted["credential"]["access_token"])

    assert_oauth_error(answer, "invalid_request")


async def test_a_workload_identity_is_no_bearer_token(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.identity('operator')}"}

    answer = await world.http.get("/v1/tasks", headers=headers)

    assert_problem(answer, 401, "invalid_token")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_credential_for_a_service_is_no_token_for_the_broker(world: World) -> None:
    task = await world.open(capabilities=["orders-api"])
    granted = await world.grant(task, "orders-api")
    headers = {"Authorization": f"Bearer {granted['credential']['access_token']}"}

    answer = await world.http.get(f"/v1/tasks/{task['task_id']}", headers=headers)

    assert_problem(answer, 401, "invalid_token")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic b3BlcmF0b3I6eA==",
        "bearer x",
        "Bearer x y",
        "Bearer \xff\xfe",
        "Bearer null",
        "Bearer a.b.c",
    ],
)
async def test_other_authorization_headers_prove_nothing(world: World, authorization: str) -> None:
    headers = [(b"authorization", authorization.encode("latin-1"))]

    answer = await world.http.get("/v1/tasks", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert answer.json()["code"] in {"unauthenticated", "invalid_token"}


async def test_two_authorization_headers_prove_nothing(world: World) -> None:
    good = f"Bearer {await world.token('operator')}"

    answer = await world.http.get(
        "/v1/tasks", headers=[("Authorization", good), ("Authorization", good)]
    )

    assert_problem(answer, 401, "unauthenticated")


async def test_a_header_that_names_a_principal_proves_nothing(world: World) -> None:
    names = ("X-Principal", "X-Forwarded-User", "X-Remote-User", "X-SSL-Client-S-DN")

    answer = await world.http.get("/v1/tasks", headers=dict.fromkeys(names, "operator"))

    assert_problem(answer, 401, "unauthenticated")
