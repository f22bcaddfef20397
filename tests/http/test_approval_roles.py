"""Every route about approvals and elevations, and every role: who may do what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from fastapi.routing import APIRoute

from broker.http import approvals
from tests.http.parties import assert_problem

if TYPE_CHECKING:
    from tests.http.consenting import ConsentWorld

REASON: Final[dict[str, Any]] = {"reason": "seen"}
BODIES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/v1/approvals/{approval_id}/approve"): REASON,
    ("POST", "/v1/approvals/{approval_id}/deny"): REASON,
    ("POST", "/v1/tasks/{task_id}/elevations"): {"capability": "deploy", "intent": "deploy it"},
    ("POST", "/v1/tasks/{task_id}/break-glass"): {"capability": "deploy", "intent": "it is down"},
    ("POST", "/v1/reviews/{elevation_id}/close"): {"findings": "all well"},
}
ROLES: Final = ("orchestrator", "agent", "other agent", "operator", "auditor", "service", "nobody")
# One column a role, in the order of ROLES. Breaking the glass is for whom policy names.
TABLE: Final[dict[tuple[str, str], tuple[int, ...]]] = {
    ("GET", "/v1/approvals"): (404, 200, 200, 200, 200, 404, 401),
    ("GET", "/v1/approvals/{approval_id}"): (200, 200, 404, 200, 200, 404, 401),
    ("POST", "/v1/approvals/{approval_id}/approve"): (403, 403, 403, 200, 403, 403, 401),
    ("POST", "/v1/approvals/{approval_id}/deny"): (403, 403, 403, 200, 403, 403, 401),
    ("DELETE", "/v1/approvals/{approval_id}"): (200, 200, 404, 403, 403, 404, 401),
    ("POST", "/v1/tasks/{task_id}/elevations"): (202, 202, 404, 403, 403, 404, 401),
    ("GET", "/v1/tasks/{task_id}/elevations"): (200, 200, 404, 200, 200, 404, 401),
    ("DELETE", "/v1/tasks/{task_id}/elevations/{elevation_id}"): (
        *(200, 200, 404, 200, 403, 404, 401),
    ),
    ("POST", "/v1/tasks/{task_id}/break-glass"): (403, 403, 404, 403, 403, 404, 401),
    ("GET", "/v1/reviews"): (403, 403, 403, 200, 200, 403, 401),
    ("POST", "/v1/reviews/{elevation_id}/close"): (403, 403, 403, 404, 403, 403, 401),
}
CODES: Final = {401: "unauthenticated", 403: "access_denied", 404: "not_found"}
NAMES: Final = {
    "orchestrator": "orchestrator",
    "agent": "report-writer",
    "other agent": "order-clerk",
    "operator": "alice",
    "auditor": "auditor",
    "service": "orders-service",
}


def test_the_table_has_every_route() -> None:
    routes = [route for route in approvals.router.routes if isinstance(route, APIRoute)]
    assert {(method, r.path) for r in routes for method in r.methods or ()} == set(TABLE)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), list(TABLE))
async def test_who_may_do_what(consent: ConsentWorld, method: str, path: str, role: str) -> None:
    task = await consent.open(capabilities=["orders-read"])
    other = await consent.open(agent="order-clerk")
    elevation = await consent.elevated(task)
    wide = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(wide)
    ids = {
        "task_id": task["task_id"],
        "approval_id": approval,
        "elevation_id": elevation["elevation_id"],
    }
    concerned = wide if "approval" in path else task
    own = {"agent": concerned, "other agent": other}.get(role)
    body = BODIES.get((method, path))

    if role == "nobody":
        answer = await consent.http.request(method, path.format(**ids), json=body)
    else:
        answer = await consent.api(NAMES[role], method, path.format(**ids), body, task=own)

    expected = TABLE[method, path][ROLES.index(role)]
    assert answer.status_code == expected, answer.text
    if expected in CODES:
        assert_problem(answer, expected, CODES[expected])
