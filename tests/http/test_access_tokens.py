"""What the token endpoint hands out: RFC 8693's answer, RFC 9068's token, keys anyone can use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.http.parties import ORDERS

if TYPE_CHECKING:
    from tests.world import World

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
REQUIRED = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"]


async def verified(world: World, token: str, audience: str) -> dict[str, Any]:
    """The claims, as a resource server reads them: PyJWT, our metadata, our JWKS, nothing else."""
    metadata = (await world.http.get("/.well-known/oauth-authorization-server")).json()
    keys = jwt.PyJWKSet.from_dict((await world.http.get(metadata["jwks_uri"])).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        audience=audience,
        issuer=metadata["issuer"],
        options={"require": REQUIRED},
    )


async def child_of(world: World, parent: dict[str, Any]) -> dict[str, Any]:
    ask = {
        "agent": "order-clerk",
        "purpose": "a part of it",
        "capabilities": ["orders-read"],
        "parent_task_id": parent["task_id"],
    }
    answer = await world.call("report-writer", "POST", "/v1/tasks", ask, task_id=parent["task_id"])
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_the_answer_has_the_form_of_rfc_8693(world: World) -> None:
    task_id = (await world.open())["task_id"]

    answer = await world.exchange("report-writer", task_id)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    body = answer.json()
    token = body.pop("access_token")
    assert token.count(".") == 2
    expires_in = body.pop("expires_in")
    assert 0 < expires_in <= 900
    assert body == {
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "scope": "agent",
        "authorization_details": [{"type": "broker_task", "task_id": task_id}],
    }


@pytest.mark.parametrize("name", ["orchestrator", "operator", "auditor", "orders-service"])
async def test_a_token_without_a_task_is_the_principals_own(world: World, name: str) -> None:
    body = (await world.exchange(name)).json()
    issuer = world.config.broker.issuer

    claims = await verified(world, body["access_token"], issuer)

    header = jwt.get_unverified_header(body["access_token"])
    assert header["typ"] == "at+jwt"
    assert header["alg"] == "ES256"
    assert claims["iss"] == issuer
    assert claims["aud"] == issuer
    assert claims["sub"] == claims["client_id"] == name
    assert claims["exp"] == claims["iat"] + body["expires_in"]
    assert "authorization_details" not in body
    assert not {"act", "txn", "cnf", "authorization_details", "nbf"} & set(claims)


async def test_an_agents_token_says_for_whom_and_through_whom(world: World) -> None:
    task = await world.open()

    token = await world.token("report-writer", task["task_id"])
    claims = await verified(world, token, world.config.broker.issuer)

    assert claims["sub"] == "orchestrator"
    assert claims["client_id"] == "report-writer"
    assert claims["act"] == {"sub": "report-writer"}
    assert claims["txn"] == task["task_id"]
    assert claims["authorization_details"] == [{"type": "broker_task", "task_id": task["task_id"]}]


async def test_a_childs_token_nests_its_actors_newest_outermost(world: World) -> None:
    parent = await world.open()
    child = await child_of(world, parent)

    token = await world.token("order-clerk", child["task_id"])
    claims = await verified(world, token, world.config.broker.issuer)

    assert claims["sub"] == "orchestrator"
    assert claims["client_id"] == "order-clerk"
    assert claims["act"] == {"sub": "order-clerk", "act": {"sub": "report-writer"}}
    assert claims["txn"] == parent["task_id"]
    assert claims["authorization_details"][0]["task_id"] == child["task_id"]


async def test_a_person_is_named_only_by_a_proof(world: World) -> None:
    person = world.issuer.token("person/ada").reveal()
    task = await world.open(on_behalf_of=person)

    token = await world.token("report-writer", task["task_id"])
    claims = await verified(world, token, world.config.broker.issuer)

    assert task["on_behalf_of"] == claims["sub"] == "dev:person/ada"


async def test_a_credential_for_a_service_is_an_access_token_for_it_alone(world: World) -> None:
    task = await world.open(capabilities=["orders-api"])
    granted = await world.grant(task, "orders-api")

    claims = await verified(world, granted["credential"]["access_token"], ORDERS)

    assert claims["aud"] == ORDERS
    assert claims["scope"] == "orders.read"
    assert claims["client_id"] == "report-writer"
    assert claims["act"] == {"sub": "report-writer"}
    assert claims["txn"] == task["task_id"]
    with pytest.raises(jwt.InvalidAudienceError):
        await verified(world, granted["credential"]["access_token"], world.config.broker.issuer)


async def test_a_token_never_outlives_its_task(world: World) -> None:
    task = await world.open(ttl="20s")

    body = (await world.exchange("report-writer", task["task_id"])).json()

    assert body["expires_in"] <= 20


async def test_every_token_is_another(world: World) -> None:
    first, second = await world.token("operator"), await world.token("operator")
    issuer = world.config.broker.issuer

    assert (await verified(world, first, issuer))["jti"] != (await verified(world, second, issuer))[
        "jti"
    ]


async def test_the_metadata_names_what_is_there(world: World) -> None:
    answer = await world.http.get("/.well-known/oauth-authorization-server")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    metadata = answer.json()
    assert metadata["issuer"].encode() == world.config.broker.issuer.encode()
    assert all(value != [] for value in metadata.values()), "RFC 8414 3.2: no empty arrays"
    for name in ("token_endpoint", "introspection_endpoint"):
        assert (await world.http.post(metadata[name])).status_code in {400, 401}
    assert (await world.http.get(metadata["jwks_uri"])).status_code == 200


async def test_the_published_keys_are_public(world: World) -> None:
    keys = (await world.http.get("/.well-known/jwks.json")).json()["keys"]

    assert keys
    for key in keys:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
        assert (key["kty"], key["alg"], key["use"]) == ("EC", "ES256", "sig")
    assert len({key["kid"] for key in keys}) == len(keys)
    assert '"d"' not in json.dumps(keys)
