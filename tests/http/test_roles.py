"""Every route and every role: who may do what, and that unknown and foreign look the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from fastapi.routing import APIRoute

from broker.http import api, audit, grants, trees
from tests.http.parties import (
    UNKNOWN_GRANT,
    UNKNOWN_TASK,
    PartyWorld,
    assert_problem,
    bearer,
)

if TYPE_CHECKING:
    import httpx2

    from tests.world import World

OPEN: Final[dict[str, Any]] = {
    "agent": "report-writer",
    "purpose": "the weekly report",
    "capabilities": ["orders-api"],
}
FREEZE: Final[dict[str, Any]] = {"selector": {"capability": "orders-write"}, "reason": "drill"}
BODIES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/v1/tasks"): OPEN,
    ("POST", "/v1/tasks/{task_id}/grants"): {"capability": "orders-api"},
    ("POST", "/v1/tasks/{task_id}/complete"): {"outcome": "completed"},
    ("POST", "/v1/grants/{grant_id}/retry"): {},
    ("POST", "/v1/grants/{grant_id}/abandon"): {"reason": "drill"},
    ("POST", "/v1/grants/{grant_id}/unwrap"): {"token": "s.of-another-grant"},
    ("POST", "/v1/grants/{grant_id}/renew"): {},
    ("POST", "/v1/grants/{grant_id}/rotate"): {},
    ("POST", "/v1/revocations"): FREEZE,
    ("POST", "/v1/freezes"): FREEZE,
    ("DELETE", "/v1/freezes"): FREEZE,
}
ROLES: Final = (
    "orchestrator",
    "rival",
    "agent",
    "parent agent",
    "other agent",
    "operator",
    "auditor",
    "service",
    "anonymous",
)
# One column a role, in the order of ROLES. The task is a child: report-writer's task opened it for
# order-clerk, whom this table calls the agent.
TABLE: Final[dict[tuple[str, str], tuple[int, ...]]] = {
    ("POST", "/v1/tasks"): (201, 201, 403, 403, 403, 403, 403, 403, 401),
    ("GET", "/v1/tasks"): (200, 200, 200, 200, 200, 200, 200, 200, 401),
    ("GET", "/v1/tasks/{task_id}"): (200, 404, 200, 200, 404, 200, 200, 404, 401),
    ("GET", "/v1/tasks/{task_id}/tree"): (200, 404, 200, 200, 404, 200, 200, 404, 401),
    ("POST", "/v1/tasks/{task_id}/heartbeat"): (200, 404, 200, 200, 404, 403, 403, 404, 401),
    ("POST", "/v1/tasks/{task_id}/complete"): (200, 404, 200, 200, 404, 403, 403, 404, 401),
    ("POST", "/v1/tasks/{task_id}/grants"): (201, 404, 201, 201, 404, 403, 403, 404, 401),
    ("GET", "/v1/grants"): (200, 200, 200, 200, 200, 200, 200, 200, 401),
    ("GET", "/v1/grants/{grant_id}"): (200, 404, 200, 200, 404, 200, 200, 404, 401),
    ("DELETE", "/v1/grants/{grant_id}"): (200, 404, 200, 200, 404, 200, 403, 404, 401),
    # The grant is live: there is no receipt, and nothing to retry or to give up.
    ("GET", "/v1/grants/{grant_id}/receipt"): (409, 404, 409, 409, 404, 409, 409, 404, 401),
    ("POST", "/v1/grants/{grant_id}/retry"): (403, 404, 403, 403, 404, 409, 403, 404, 401),
    ("POST", "/v1/grants/{grant_id}/abandon"): (403, 404, 403, 403, 404, 409, 403, 404, 401),
    # Not one that was wrapped, nor one that can be renewed: 409 is for those who may ask.
    ("POST", "/v1/grants/{grant_id}/unwrap"): (403, 404, 409, 403, 404, 403, 403, 404, 401),
    ("POST", "/v1/grants/{grant_id}/renew"): (409, 404, 409, 409, 404, 403, 403, 404, 401),
    ("POST", "/v1/grants/{grant_id}/rotate"): (201, 404, 201, 201, 404, 403, 403, 404, 401),
    ("POST", "/v1/revocations"): (403, 403, 403, 403, 403, 200, 403, 403, 401),
    ("GET", "/v1/freezes"): (403, 403, 403, 403, 403, 200, 200, 403, 401),
    ("POST", "/v1/freezes"): (403, 403, 403, 403, 403, 201, 403, 403, 401),
    ("DELETE", "/v1/freezes"): (403, 403, 403, 403, 403, 200, 403, 403, 401),
    ("GET", "/v1/audit/events"): (403, 403, 403, 403, 403, 200, 200, 403, 401),
    # There is none of that id: 404 is for those who may ask.
    ("GET", "/v1/audit/events/{event_id}"): (403, 403, 403, 403, 403, 404, 404, 403, 401),
}
CODES: Final = {401: "unauthenticated", 403: "access_denied", 404: "not_found"}


class Scene:
    """A root task of report-writer, its child for order-clerk with a grant, and a stranger's."""

    def __init__(self, world: PartyWorld) -> None:
        self.world = world
        self.root: dict[str, Any] = {}
        self.child: dict[str, Any] = {}
        self.stranger: dict[str, Any] = {}
        self.grant_id = ""

    async def set_up(self) -> Scene:
        world = self.world
        wide = ["orders-api", "orders-read"]
        self.root = await world.open(capabilities=wide)
        self.stranger = await world.open(capabilities=wide)
        ask = {
            **OPEN,
            "agent": "order-clerk",
            "capabilities": ["orders-api"],
            "parent_task_id": self.root["task_id"],
        }
        answer = await world.call("orchestrator", "POST", "/v1/tasks", ask)
        assert answer.status_code == 201, answer.text
        self.child = answer.json()
        self.grant_id = (await world.grant(self.child, "orders-api"))["grant_id"]
        return self

    async def headers(self, role: str) -> dict[str, str]:
        named = {
            "orchestrator": ("orchestrator", None),
            "rival": ("rival", None),
            "agent": ("order-clerk", self.child),
            "parent agent": ("report-writer", self.root),
            "other agent": ("report-writer", self.stranger),
            "operator": ("operator", None),
            "auditor": ("auditor", None),
            "service": ("orders-service", None),
        }
        if role == "anonymous":
            return {}
        name, task = named[role]
        return await bearer(self.world, name, task["task_id"] if task else None)

    async def ask(self, role: str, method: str, path: str, **ids: str) -> httpx2.Response:
        known = {"task_id": self.child["task_id"], "grant_id": self.grant_id, **ids}
        known["event_id"] = "1-00-0"
        return await self.world.http.request(
            method,
            path.format(**known),
            json=BODIES.get((method, path)),
            headers=await self.headers(role),
        )


@pytest.fixture
async def scene(wide: PartyWorld) -> Scene:
    return await Scene(wide).set_up()


def test_the_table_has_every_route() -> None:
    found = (*api.router.routes, *grants.router.routes, *audit.router.routes, *trees.router.routes)
    # The log's checkpoint and key are text; who may read them is in the audit's own tests.
    routes = [r for r in found if isinstance(r, APIRoute) and r.path != "/v1/audit/key"]
    routes = [r for r in routes if r.path != "/v1/audit/checkpoint"]

    assert {(method, r.path) for r in routes for method in r.methods or ()} == set(TABLE)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), list(TABLE))
async def test_who_may_do_what(scene: Scene, method: str, path: str, role: str) -> None:
    expected = TABLE[method, path][ROLES.index(role)]
    if (method, path) == ("DELETE", "/v1/freezes"):
        await scene.ask("operator", "POST", path)

    answer = await scene.ask(role, method, path)

    assert answer.status_code == expected, answer.text
    if expected in CODES:
        assert_problem(answer, expected, CODES[expected])
    if expected == 401:
        assert answer.headers["www-authenticate"].startswith('Bearer realm="broker", ')


@pytest.mark.parametrize("role", ["rival", "other agent", "service"])
@pytest.mark.parametrize(
    ("method", "path"), [k for k in TABLE if "{" in k[1] and "{event_id}" not in k[1]]
)
async def test_unknown_and_foreign_look_the_same(
    scene: Scene, method: str, path: str, role: str
) -> None:
    foreign = await scene.ask(role, method, path)
    unknown = await scene.ask(role, method, path, task_id=UNKNOWN_TASK, grant_id=UNKNOWN_GRANT)
    nonsense = await scene.ask(role, method, path, task_id="nonsense", grant_id="nonsense")

    assert_problem(foreign, 404, "not_found")
    assert foreign.text == unknown.text == nonsense.text
    volatile = {"date", "content-length", "traceresponse"}  # the last names the request itself
    assert {k: v for k, v in foreign.headers.items() if k not in volatile} == {
        k: v for k, v in unknown.headers.items() if k not in volatile
    }


@pytest.mark.parametrize("role", ["rival", "other agent", "service"])
async def test_lists_hold_only_what_concerns_the_caller(scene: Scene, role: str) -> None:
    tasks = await scene.world.http.get("/v1/tasks", headers=await scene.headers(role))
    grants = await scene.world.http.get("/v1/grants", headers=await scene.headers(role))

    shown = {task["task_id"] for task in tasks.json()["items"]}
    assert shown == ({scene.stranger["task_id"]} if role == "other agent" else set())
    assert grants.json() == {"items": [], "next": None}


@pytest.mark.parametrize("role", ["rival", "service"])
async def test_a_cursor_names_nobody_elses_grant(scene: Scene, role: str) -> None:
    await scene.world.grant(scene.child, "orders-api")

    answer = await scene.world.http.get(
        "/v1/grants", params={"limit": 1}, headers=await scene.headers(role)
    )

    assert answer.json() == {"items": [], "next": None}


async def test_the_orchestrator_sees_its_chain(scene: Scene) -> None:
    answer = await scene.world.http.get("/v1/tasks", headers=await scene.headers("orchestrator"))

    shown = {task["task_id"] for task in answer.json()["items"]}
    assert shown == {t["task_id"] for t in (scene.root, scene.child, scene.stranger)}


@pytest.mark.parametrize("ending", ["completed", "expired", "revoked"])
async def test_of_an_ended_task_everything_says_so_in_the_same_way(
    scene: Scene, ending: str
) -> None:
    world, task = scene.world, scene.stranger
    token = await bearer(world, "report-writer", task["task_id"])
    match ending:
        case "completed":
            await world.complete(task)
        case "expired":
            await world.sweep(ahead_ms=1_000_000)
        case _:
            selector = {"selector": {"task_id": task["task_id"]}, "reason": "drill"}
            await world.call("operator", "POST", "/v1/revocations", selector)
    path = f"/v1/tasks/{task['task_id']}"

    refused = [
        await world.call("orchestrator", "POST", f"{path}/grants", {"capability": "orders-read"}),
        await world.call("orchestrator", "POST", f"{path}/grants", {"capability": "orders-api"}),
        await world.call("orchestrator", "POST", f"{path}/heartbeat"),
        await world.call(
            "orchestrator",
            "POST",
            "/v1/tasks",
            {**OPEN, "agent": "order-clerk", "parent_task_id": task["task_id"]},
        ),
    ]

    for answer in refused:
        assert_problem(answer, 409, "task_not_active")
    again = await world.call("orchestrator", "POST", f"{path}/complete", {"outcome": "failed"})
    assert assert_problem(again, 409, "conflict")["state"] == ending
    assert (await world.call("orchestrator", "GET", path)).json()["state"] == ending
    dead = await world.http.get(path, headers=token)
    assert_problem(dead, 401, "invalid_token")


async def test_an_expired_task_says_so_before_it_is_swept(parties: PartyWorld) -> None:
    task = await parties.open(ttl="1ms")
    path = f"/v1/tasks/{task['task_id']}/grants"

    answer = await parties.call("orchestrator", "POST", path, {"capability": "orders-read"})

    assert_problem(answer, 409, "task_not_active")


async def test_a_privileged_credential_asks_for_approval(parties: PartyWorld) -> None:
    task = await parties.open(capabilities=["deploy"])
    path = f"/v1/tasks/{task['task_id']}/grants"

    answer = await parties.call("orchestrator", "POST", path, {"capability": "deploy"})

    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "pending"
    assert "credential" not in answer.json()


async def test_a_frozen_selector_refuses_with_its_own_code(world: World) -> None:
    task = await world.open()
    for selector in ({"all": True}, {"agent": "report-writer"}, {"capability": "orders-read"}):
        ask = {"selector": selector, "reason": "drill"}
        await world.call("operator", "POST", "/v1/freezes", ask)
        path = f"/v1/tasks/{task['task_id']}/grants"
        answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})
        assert_problem(answer, 403, "frozen")
        assert "drill" not in answer.text
        assert (await world.call("operator", "DELETE", "/v1/freezes", ask)).status_code == 200
    assert (await world.grant(task))["state"] == "active"
