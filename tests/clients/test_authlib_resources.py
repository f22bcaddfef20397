"""Authlib as services that take our tokens: by RFC 9068 offline, by RFC 7662 with a call."""

# Authlib has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from authlib.oauth2.rfc6749 import ResourceProtector
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc.jwk import KeySet

from tests.http.front_door import BILLING, ORDERS
from tests.http.parties import details

if TYPE_CHECKING:
    from tests.clients.conftest import Doorway

# Both algorithms that the broker can sign with: RFC 9068 section 2.1 wants RS256 to be possible.
pytestmark = pytest.mark.parametrize("doorway", ["ES256", "RS256"], indirect=True, scope="module")


class Offline(JWTBearerTokenValidator):
    """A service that needs the broker's keys alone."""

    def __init__(self, issuer: str, resource: str) -> None:
        super().__init__(issuer, resource)
        self._keys = requests.get(f"{issuer}/.well-known/jwks.json", timeout=10).json()

    def get_jwks(self) -> KeySet:
        return KeySet.import_key_set(self._keys)


class Online(IntrospectTokenValidator):
    """A service that asks the broker about each token."""

    def __init__(self, issuer: str, own_token: str) -> None:
        super().__init__()
        self._url = f"{issuer}/oauth/introspect"
        self._headers = {"Authorization": f"Bearer {own_token}"}

    def introspect_token(self, token_string: str) -> dict[str, Any]:
        form = {"token": token_string}
        answer = requests.post(self._url, data=form, headers=self._headers, timeout=10)
        answer.raise_for_status()
        return answer.json()


def let_in(validator: Any, token: str, scope: str = "orders.read") -> Any:
    """What a service behind Authlib knows of the caller, if it lets the token in."""
    protector: Any = ResourceProtector()
    protector.register_token_validator(validator)
    request = SimpleNamespace(headers={"Authorization": f"Bearer {token}"})
    return protector.validate_request([scope], request)


def service_token(doorway: Doorway, task: dict[str, Any], resource: str) -> str:
    """A token for a service, in one step."""
    answer = doorway.run(
        doorway.door.swap(
            doorway.door.identity(task["agent"]),
            authorization_details=details(task["task_id"]),
            resource=resource,
        )
    )
    return answer.json()["access_token"]


def orders_online(doorway: Doorway) -> Online:
    return Online(doorway.url, doorway.token("orders-service"))


def test_a_service_that_knows_our_keys(doorway: Doorway) -> None:
    token = service_token(doorway, doorway.open_task(), ORDERS)

    claims = let_in(Offline(doorway.url, ORDERS), token)

    assert claims["sub"] == "orchestrator"
    assert claims["act"] == {"sub": "report-writer"}


def test_a_service_that_asks(doorway: Doorway) -> None:
    task = doorway.open_task()
    token = service_token(doorway, task, ORDERS)

    found = let_in(orders_online(doorway), token)

    assert found["authorization_details"] == [{"type": "broker_task", "task_id": task["task_id"]}]


def test_tokens_for_others_are_refused(doorway: Doorway) -> None:
    task = doorway.open_task()
    for token in (
        service_token(doorway, task, BILLING),
        doorway.token("orchestrator"),
        doorway.door.identity("report-writer"),
    ):
        for validator in (Offline(doorway.url, ORDERS), orders_online(doorway)):
            with pytest.raises(InvalidTokenError):
                let_in(validator, token)


def test_a_token_for_two_services_is_let_in_by_both(doorway: Doorway) -> None:
    task = doorway.open_task()
    form = doorway.door.form(
        doorway.door.identity(task["agent"]), authorization_details=details(task["task_id"])
    )
    pairs = [*form.items(), ("resource", ORDERS), ("resource", BILLING)]
    token = doorway.run(doorway.door.post("/oauth/token", pairs)).json()["access_token"]

    for resource in (ORDERS, BILLING):
        assert let_in(Offline(doorway.url, resource), token, "both.read")
    assert let_in(orders_online(doorway), token, "both.read")


def test_a_token_of_another_issuer_is_refused(doorway: Doorway) -> None:
    token = service_token(doorway, doorway.open_task(), ORDERS)
    strict = Offline(doorway.url, ORDERS)
    strict.issuer = f"{doorway.url}/"

    with pytest.raises(InvalidTokenError):
        let_in(strict, token)


def test_a_scope_that_is_not_there_is_missed(doorway: Doorway) -> None:
    token = service_token(doorway, doorway.open_task(), ORDERS)

    for validator in (Offline(doorway.url, ORDERS), orders_online(doorway)):
        with pytest.raises(InsufficientScopeError):
            let_in(validator, token, "orders.write")


def test_a_service_that_asks_sees_a_task_end(doorway: Doorway) -> None:
    task = doorway.open_task()
    token = service_token(doorway, task, ORDERS)
    service = orders_online(doorway)
    assert let_in(service, token)

    doorway.run(doorway.door.complete(task))

    with pytest.raises(InvalidTokenError):
        let_in(service, token)


def test_a_service_that_asks_sees_a_revocation(doorway: Doorway) -> None:
    token = service_token(doorway, doorway.open_task(), ORDERS)
    service = orders_online(doorway)
    assert let_in(service, token)

    requests.post(
        f"{doorway.url}/oauth/revoke", data={"token": token}, timeout=10
    ).raise_for_status()

    with pytest.raises(InvalidTokenError):
        let_in(service, token)
