"""Authlib as an agent's, an operator's and a service's client. Nothing about it is special here.

It has no client for DPoP; ``test_oauth4webapi.py`` is about that.
"""

# Authlib has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from tests.http.front_door import ACCESS_TOKEN, CLIENT_KEY, ORDERS
from tests.http.parties import details
from tests.world import EXCHANGE, JWT

if TYPE_CHECKING:
    from tests.clients.conftest import Doorway


@pytest.fixture
def metadata(doorway: Doorway) -> dict[str, Any]:
    """What the broker says of itself, where Authlib looks for it."""
    answer = requests.get(get_well_known_url(doorway.url, external=True), timeout=10)
    assert answer.status_code == 200
    return answer.json()


def public(client_id: str) -> Any:
    """A client without credentials: what it exchanges is its proof."""
    return OAuth2Session(client_id, token_endpoint_auth_method="none", default_timeout=10)


def confidential(client_id: str, metadata: dict[str, Any]) -> Any:
    """A client that proves a key of its own, at every endpoint."""
    key = ECKey.import_key(CLIENT_KEY.private)
    session: Any = OAuth2Session(
        client_id,
        key,
        token_endpoint_auth_method="private_key_jwt",
        revocation_endpoint_auth_method="private_key_jwt",
        default_timeout=10,
    )
    session.register_client_auth_method(PrivateKeyJWT(metadata["issuer"], alg="ES256"))
    return session


def exchanged(
    session: Any, metadata: dict[str, Any], subject_token: str, kind: str = JWT, **more: str
) -> dict[str, Any]:
    """The answer to a token exchange; the session holds the token from then on."""
    return session.fetch_token(
        metadata["token_endpoint"],
        grant_type=EXCHANGE,
        subject_token=subject_token,
        subject_token_type=kind,
        **more,
    )


def agent(doorway: Doorway, metadata: dict[str, Any], task: dict[str, Any]) -> Any:
    """A session with the token of a task's agent."""
    session = public(task["agent"])
    identity = doorway.door.identity(task["agent"])
    exchanged(session, metadata, identity, authorization_details=details(task["task_id"]))
    return session


def keys(metadata: dict[str, Any]) -> KeySet:
    return KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=10).json())


def introspected(session: Any, metadata: dict[str, Any], token: str, **more: Any) -> dict[str, Any]:
    answer = session.introspect_token(metadata["introspection_endpoint"], token, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_metadata_is_what_rfc_8414_wants(
    doorway: Doorway, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # for http on loopback

    AuthorizationServerMetadata(metadata).validate()

    assert metadata["issuer"] == doorway.url


def test_a_workload_exchanges_its_identity_and_is_let_in(
    doorway: Doorway, metadata: dict[str, Any]
) -> None:
    session = public("orchestrator")

    token = exchanged(
        session,
        metadata,
        doorway.door.identity("orchestrator"),
        resource=doorway.url,
        scope="orchestrator",
    )

    assert token["issued_token_type"] == ACCESS_TOKEN
    assert not token.is_expired()  # pyright: ignore[reportAttributeAccessIssue]
    ask = {"agent": "report-writer", "purpose": "a report", "capabilities": ["orders-read"]}
    assert session.post(f"{doorway.url}/v1/tasks", json=ask).status_code == 201


def test_a_client_with_a_key_gets_the_token_of_its_task(
    doorway: Doorway, metadata: dict[str, Any]
) -> None:
    task = doorway.open_task("runner")
    session = confidential("runner", metadata)

    token = session.fetch_token(
        metadata["token_endpoint"], authorization_details=details(task["task_id"])
    )
    again = session.fetch_token(
        metadata["token_endpoint"], authorization_details=details(task["task_id"])
    )

    assert token["token_type"] == "Bearer"
    assert token["access_token"] != again["access_token"]
    shown = session.get(f"{doorway.url}/v1/tasks/{task['task_id']}")
    assert shown.json()["task_id"] == task["task_id"]


def test_a_token_for_a_service_is_what_rfc_9068_wants(
    doorway: Doorway, metadata: dict[str, Any]
) -> None:
    task = doorway.open_task()
    own = agent(doorway, metadata, task)

    token = exchanged(
        public("report-writer"),
        metadata,
        own.token["access_token"],
        ACCESS_TOKEN,
        resource=ORDERS,
        audience="orders-service",
        scope="orders.read",
    )

    read = jwt.decode(token["access_token"], keys(metadata))
    assert read.header["typ"] == "at+jwt"
    assert read.header["alg"] == "ES256"
    wanted: dict[str, Any] = {
        "iss": {"essential": True, "value": metadata["issuer"]},
        "aud": {"essential": True, "value": ORDERS},
        "client_id": {"essential": True, "value": "report-writer"},
        "scope": {"essential": True, "value": "orders.read"},
        **{name: {"essential": True} for name in ("exp", "iat", "jti", "sub", "act")},
    }
    jwt.JWTClaimsRegistry(**wanted).validate(read.claims)
    assert token["scope"] == "orders.read"
    assert doorway.state_of(token["grant_id"]) == "active"


def test_an_operator_looks_at_a_token_by_a_key(doorway: Doorway, metadata: dict[str, Any]) -> None:
    task = doorway.open_task()
    own = agent(doorway, metadata, task)
    desk = confidential("desk", metadata)

    found = introspected(desk, metadata, own.token["access_token"], token_type_hint="access_token")

    assert found["active"] is True
    assert (found["client_id"], found["token_type"]) == ("report-writer", "Bearer")
    assert found["authorization_details"][0]["task_id"] == task["task_id"]
    assert introspected(desk, metadata, "no-token") == {"active": False}


def test_a_service_looks_at_a_token_by_one_of_its_own(
    doorway: Doorway, metadata: dict[str, Any]
) -> None:
    own = agent(doorway, metadata, doorway.open_task())
    narrow = exchanged(
        public("report-writer"), metadata, own.token["access_token"], ACCESS_TOKEN, resource=ORDERS
    )
    service = public("orders-service")
    exchanged(service, metadata, doorway.door.identity("orders-service"))

    found = introspected(service, metadata, narrow["access_token"], auth=service.token_auth)
    other = introspected(service, metadata, own.token["access_token"], auth=service.token_auth)

    assert (found["active"], found["aud"]) == (True, ORDERS)
    assert other == {"active": False}


def test_what_is_revoked_is_dead_with_all_that_came_of_it(
    doorway: Doorway, metadata: dict[str, Any]
) -> None:
    own = agent(doorway, metadata, doorway.open_task())
    narrow = exchanged(
        public("report-writer"), metadata, own.token["access_token"], ACCESS_TOKEN, resource=ORDERS
    )
    desk = confidential("desk", metadata)

    answer = own.revoke_token(metadata["revocation_endpoint"], token_type_hint="access_token")

    assert answer.status_code == 200
    for token in (own.token, narrow):
        assert introspected(desk, metadata, token["access_token"]) == {"active": False}
    assert own.get(f"{doorway.url}/v1/tasks").status_code == 401
    assert doorway.state_of(narrow["grant_id"]) == "revoked"


def test_a_client_with_a_key_revokes_its_own_and_no_others(
    doorway: Doorway, metadata: dict[str, Any]
) -> None:
    runner = confidential("runner", metadata)
    detail = details(doorway.open_task("runner")["task_id"])
    mine = runner.fetch_token(metadata["token_endpoint"], authorization_details=detail)
    other = agent(doorway, metadata, doorway.open_task()).token

    answers = [
        runner.revoke_token(metadata["revocation_endpoint"], token["access_token"])
        for token in (mine, other)
    ]

    assert [answer.status_code for answer in answers] == [200, 400]
    assert answers[1].json()["error"] == "unauthorized_client"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"resource": "https://unheard.example"}, "invalid_target"),
        ({"audience": "unheard-of"}, "invalid_target"),
        ({"resource": ORDERS, "scope": "orders.delete"}, "invalid_scope"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
        ({"subject_token": "no.token.this"}, "invalid_request"),
        ({"actor_token": "alone"}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
def test_errors_are_understood(
    doorway: Doorway, metadata: dict[str, Any], changes: dict[str, str], error: str
) -> None:
    own = agent(doorway, metadata, doorway.open_task())
    form = {
        "grant_type": EXCHANGE,
        "subject_token": own.token["access_token"],
        "subject_token_type": ACCESS_TOKEN,
        **changes,
    }

    with pytest.raises(OAuthError) as caught:
        own.fetch_token(metadata["token_endpoint"], **form)

    assert caught.value.error == error
    assert caught.value.description
