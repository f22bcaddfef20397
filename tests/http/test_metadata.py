"""What the broker says of itself: RFC 8414, RFC 9728, and the challenges that lead there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.http.parties import assert_problem, party_world

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.world import World

ORIGIN = "http://127.0.0.1:8700"
AS = "/.well-known/oauth-authorization-server"
RESOURCE = "/.well-known/oauth-protected-resource"


async def document(world: World, path: str) -> dict[str, Any]:
    answer = await world.http.get(f"{ORIGIN}{path}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


async def test_the_metadata_of_the_authorization_server(world: World) -> None:
    found = await document(world, AS)
    issuer = world.config.broker.issuer

    assert found["issuer"] == issuer
    for name in ("token", "introspection", "revocation"):
        assert found[f"{name}_endpoint"].startswith(f"{issuer}/oauth/")
        path = found[f"{name}_endpoint"].removeprefix(issuer)
        assert (await world.http.post(path)).status_code in (400, 401)
        methods = set(found[f"{name}_endpoint_auth_methods_supported"])
        # Nothing that is shared: each proves a key.
        assert methods <= {"none", "private_key_jwt", "spiffe_jwt", "tls_client_auth"}
        # RFC 8414 section 2: needed with private_key_jwt, and "none" MUST NOT be there.
        algorithms = found[f"{name}_endpoint_auth_signing_alg_values_supported"]
        assert algorithms
        assert "none" not in algorithms
    assert "none" not in found["introspection_endpoint_auth_methods_supported"]
    assert found["authorization_details_types_supported"] == ["broker_task"]
    assert found["tls_client_certificate_bound_access_tokens"] is True
    assert not {"none", "HS256"} & set(found["dpop_signing_alg_values_supported"])
    # RFC 8414 section 3.2: "Claims with zero elements MUST be omitted".
    assert all(value not in ([], "", None) for value in found.values())
    keys = (await document(world, found["jwks_uri"].removeprefix(issuer)))["keys"]
    assert keys
    assert all(not {"d", "p", "q", "k"} & set(key) for key in keys)
    signed_by = found["introspection_signing_alg_values_supported"]
    assert signed_by == [key["alg"] for key in keys] == ["ES256"]


async def test_the_metadata_of_the_api(world: World) -> None:
    found = await document(world, RESOURCE)
    issuer = world.config.broker.issuer

    assert found["resource"] == issuer
    assert found["authorization_servers"] == [issuer]
    assert found["bearer_methods_supported"] == ["header"]
    assert all(value not in ([], "", None) for value in found.values())


async def test_a_caller_without_a_token_is_told_where_to_get_one(world: World) -> None:
    answer = await world.http.get("/v1/tasks")

    assert_problem(answer, 401, "unauthenticated")
    challenge = answer.headers["www-authenticate"]
    where = f"{world.config.broker.issuer}{RESOURCE}"
    assert f'resource_metadata="{where}"' in challenge
    assert challenge.startswith("Bearer ")
    assert ", DPoP algs=" in challenge


async def test_an_issuer_with_a_path(engines: tuple[DevStack, Config]) -> None:
    world = party_world(engines[0], broker={"issuer": "http://127.0.0.1:8700/tenants/one"})
    try:
        # Sections 3.1 of both: the path of the issuer comes after the well-known one.
        found = await document(world, f"{AS}/tenants/one")
        assert found["issuer"] == "http://127.0.0.1:8700/tenants/one"
        about = await document(world, f"{RESOURCE}/tenants/one")
        assert about["resource"] == "http://127.0.0.1:8700/tenants/one"
        for path in (AS, RESOURCE, f"/tenants/one{AS}"):
            assert (await world.http.get(f"{ORIGIN}{path}")).status_code == 404
        answer = await world.http.get(f"{ORIGIN}/v1/tasks")
        assert f"{RESOURCE}/tenants/one" in answer.headers["www-authenticate"]
    finally:
        await world.close()


async def test_the_rate_is_told_and_kept(engines: tuple[DevStack, Config]) -> None:
    world = party_world(engines[0], oauth={"rate": 3, "rate_window": "1m"})
    await world.app.connection.command("FLUSHALL")
    try:
        answers = [await world.exchange("orchestrator") for _ in range(4)]
        other = await world.exchange("operator")
    finally:
        await world.close()

    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert [a.headers["ratelimit"].split(";")[1] for a in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert answers[-1].headers["ratelimit-policy"] == '"principal";q=3;w=60'
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert answers[-1].json()["error"] == "temporarily_unavailable"
    assert other.status_code == 200
