"""A world with more in it than the dev configuration, and what the tests here share."""

from __future__ import annotations

import functools
import json
import tomllib
from typing import TYPE_CHECKING, Any, Final

import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE, OWNER
from tests.world import EXCHANGE, JWT, SUBJECTS, World

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

ORDERS: Final = "https://orders.example.com"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
UNKNOWN_TASK = "tsk_00000000000000000000000000"
UNKNOWN_GRANT = "grt_00000000000000000000000000"

RIVAL: dict[str, Any] = {
    "name": "rival",
    "role": "orchestrator",
    "owner": OWNER,
    "identity": {"issuer": "dev", "subject": "orchestrator/rival"},
}
OTHER_SERVICE: dict[str, Any] = {
    "name": "billing-service",
    "role": "resource_server",
    "owner": OWNER,
    "resource": "https://billing.example.com",
    "identity": {"issuer": "dev", "subject": "resource-server/billing-service"},
}
APPROVER: dict[str, Any] = {
    "name": "approver",
    "role": "operator",
    "owner": "approver@example.com",
    "identity": {"issuer": "dev", "subject": "operator/approver"},
}
DEPLOY: dict[str, Any] = {
    "name": "deploy",
    "power": "privileged",
    "backend": "token",
    "resource": ORDERS,
    "scope": "orders.deploy",
}


class PartyWorld(World):
    """A world whose workloads are whatever its configuration registers."""

    def identity(self, name: str) -> str:
        rule = next(p.identity.subject for p in self.config.principals if p.name == name)
        assert rule is not None
        return self.issuer.token(str(rule.written)).reveal()


def party_world(
    stack: DevStack, *, shared: Sequence[str] = (), **sections: Mapping[str, Any]
) -> PartyWorld:
    """The dev configuration with a rival orchestrator, another service and a privileged capability.

    Both agents may have what is ``shared``. ``sections`` change settings, such as
    ``tasks={"max_depth": 1}``.
    """
    made = json.dumps(sections)
    text = (stack.data / FILE).read_text("utf-8")
    return PartyWorld(stack.issuer, _party_config(stack.data / FILE, text, tuple(shared), made))


@functools.cache
def _party_config(file: Path, text: str, shared: tuple[str, ...], sections: str) -> Config:
    """Make the configuration; it can't be changed, and many tests have the same."""
    document: dict[str, Any] = tomllib.loads(text)
    document["principals"] += [RIVAL, OTHER_SERVICE, APPROVER]
    document["capabilities"].append(DEPLOY)
    for principal in document["principals"]:
        if principal["name"] in {"report-writer", "order-clerk"}:
            names = (*principal["capabilities"], "deploy", *shared)
            principal["capabilities"] = list(dict.fromkeys(names))
    for name, changes in json.loads(sections).items():
        document[name] = {**document.get(name, {}), **changes}
    return parse_config(tomli_w.dumps(document), file)


def exchange_form(world: World, name: str, task_id: str | None = None) -> dict[str, str]:
    """A good token request, for a test to spoil."""
    form = {
        "grant_type": EXCHANGE,
        "subject_token": world.identity(name),
        "subject_token_type": JWT,
        "resource": world.config.broker.issuer,
    }
    if task_id is not None:
        form["authorization_details"] = details(task_id)
    return form


def details(task_id: str, **more: object) -> str:
    """The authorization_details that name a task."""
    return json.dumps([{"type": "broker_task", "task_id": task_id, **more}])


def assert_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is this problem document (RFC 9457), complete and not to be cached."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:broker:problem:{code}"
    assert body["title"]
    assert body["detail"]
    return body


def assert_oauth_error(answer: httpx2.Response, error: str, status: int = 400) -> str:
    """The answer is this error of the token endpoint (RFC 6749 section 5.2)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["error"] == error, body
    assert set(body) == {"error", "error_description"}
    description: str = body["error_description"]
    assert description
    # Section 5.2: %x20-21 / %x23-5B / %x5D-7E.
    assert all(" " <= c <= "~" and c not in '"\\' for c in description), description
    return description


async def bearer(world: World, name: str, task_id: str | None = None) -> dict[str, str]:
    """The headers of a caller."""
    return {"Authorization": f"Bearer {await world.token(name, task_id)}"}


def subjects() -> tuple[str, ...]:
    """The principals of the dev configuration."""
    return tuple(SUBJECTS)
