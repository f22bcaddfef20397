"""What operators look at first, previews and dry runs: right, for whom they are, and harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.http.parties import UNKNOWN_GRANT, UNKNOWN_TASK, assert_problem

if TYPE_CHECKING:
    from tests.world import World

LOOKS = [
    ("GET", "/v1/overview", None),
    ("POST", "/v1/revocations/preview", {"selector": {"all": True}}),
    ("POST", "/v1/policy/dry-run", {"capability": "orders-read", "agent": "report-writer"}),
]


async def ask(world: World, name: str, path: str, body: Any = None) -> Any:
    answer = await world.call(name, "GET" if body is None else "POST", path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def preview(world: World, **selector: object) -> Any:
    return await ask(world, "operator", "/v1/revocations/preview", {"selector": selector})


async def fresh(world: World) -> Any:
    """An overview that isn't one of a moment ago."""
    for part in (world.app.overview, world.app.gauges):
        vars(part)["_stale_at"] = float("-inf")
    return await ask(world, "operator", "/v1/overview")


@pytest.mark.parametrize(("method", "path", "body"), LOOKS)
@pytest.mark.parametrize("name", ["orchestrator", "report-writer", "orders-service"])
async def test_they_are_for_those_who_watch(
    world: World, method: str, path: str, body: Any, name: str
) -> None:
    task = await world.open() if name == "report-writer" else None
    answer = await world.call(name, method, path, body, task_id=task["task_id"] if task else None)
    assert_problem(answer, 403, "access_denied")
    assert (await world.call(None, method, path, body)).status_code == 401


async def test_an_auditor_looks_and_previews_nothing(world: World) -> None:
    await ask(world, "auditor", "/v1/overview")
    answer = await world.call("auditor", "POST", "/v1/revocations/preview", LOOKS[1][2])
    assert_problem(answer, 403, "access_denied")


async def test_the_overview_says_what_lives_and_what_dies_next(world: World) -> None:
    task = await world.open()
    late = await world.grant(task, ttl="10m")
    soon = await world.grant(task, ttl="2m")

    found = await fresh(world)

    assert found["live"]["total"] == 2
    assert found["live"]["by_power"]["read"] == 2
    assert [g["grant_id"] for g in found["next_to_die"]] == [soon["grant_id"], late["grant_id"]]
    assert {b["backend"]: b["live"] for b in found["backends"]} == {"token": 0, "vault": 2}
    assert all(b["state"] == "ok" for b in found["backends"])
    assert found["unsettled"]["stuck"] == found["unsettled"]["revoking"] == 0
    assert "credential" not in str(found)

    freeze = {"selector": {"agent": "order-clerk"}, "reason": "drill"}
    await world.call("operator", "POST", "/v1/freezes", freeze)
    await world.complete(task)
    found = await fresh(world)
    assert (found["live"]["total"], found["next_to_die"]) == (0, [])
    assert [f["selector"] for f in found["freezes"]] == ["agent:order-clerk"]
    assert found["time_to_dead"]["last"] == 2


async def test_it_is_put_together_once_for_all_who_look(world: World) -> None:
    first = await fresh(world)
    assert await ask(world, "auditor", "/v1/overview") == first


async def test_a_preview_is_what_is_revoked_then(world: World) -> None:
    parent = await world.open()
    child = {
        "agent": "order-clerk",
        "purpose": "half of it",
        "capabilities": ["orders-read"],
        "parent_task_id": parent["task_id"],
    }
    answer = await world.call("orchestrator", "POST", "/v1/tasks", child)
    assert answer.status_code == 201, answer.text
    grants = [await world.grant(parent), await world.grant(answer.json())]

    selectors = (
        {"task_id": parent["task_id"]},
        {"agent": "report-writer"},
        {"owner": parent["owner"]},
        {"all": True},
        {"backend": "vault"},
        {"capability": "orders-read"},
    )
    for selector in selectors:
        found = await preview(world, **selector)
        assert found["matched"] == 2, selector
        ends_tasks = selector.keys() & {"task_id", "agent", "owner", "all"}
        assert found["tasks"] == (2 if ends_tasks else 0), selector
        assert found["agents"] == ["order-clerk", "report-writer"]
        assert found["by"] == [
            {
                "backend": "vault",
                "capability": "orders-read",
                "power": "read",
                "revocability": "instant",
                "count": 2,
            }
        ]
    one = await preview(world, grant_id=grants[0]["grant_id"])
    assert (one["matched"], one["states"]["active"]) == (1, 1)
    # Nothing has happened to any of them.
    assert [(await world.show_grant(g["grant_id"]))["state"] for g in grants] == ["active"] * 2

    ask_for = {"selector": {"agent": "report-writer"}, "reason": "drill"}
    done = (await world.call("operator", "POST", "/v1/revocations", ask_for)).json()
    assert done["matched"] == 2
    left = await preview(world, agent="report-writer")
    assert (left["matched"], left["tasks"]) == (0, 0)


async def test_a_preview_of_nothing(world: World) -> None:
    assert (await preview(world, agent="order-clerk"))["matched"] == 0
    assert (await preview(world, task_id=UNKNOWN_TASK))["matched"] == 0
    body = {"selector": {"grant_id": UNKNOWN_GRANT}}
    answer = await world.call("operator", "POST", "/v1/revocations/preview", body)
    assert_problem(answer, 404, "not_found")
    both = {"selector": {"agent": "a", "all": True}}
    answer = await world.call("operator", "POST", "/v1/revocations/preview", both)
    assert_problem(answer, 400, "invalid_request")


async def test_a_dry_run_decides_and_does_nothing(world: World) -> None:
    task = await world.open()
    before = await world.events(task["task_id"])
    body = {"capability": "orders-read", "task_id": task["task_id"], "ttl": "2m"}
    found = await ask(world, "auditor", "/v1/policy/dry-run", body)
    assert (found["effect"], found["ttl"], found["agent"]) == ("allow", "2m", "report-writer")
    assert found["explanation"]["decided_by"]
    body = {"capability": "orders-write", "task_id": task["task_id"]}
    found = await ask(world, "operator", "/v1/policy/dry-run", body)
    assert found["effect"] == "deny"
    assert found["reasons"]
    assert await world.events(task["task_id"]) == before
    plain = {"capability": "orders-read", "agent": "report-writer"}
    assert (await ask(world, "operator", "/v1/policy/dry-run", plain))["effect"] == "allow"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"capability": "orders-read"}, 400),
        ({"capability": "orders-read", "agent": "report-writer", "task_id": "tsk_1"}, 400),
        ({"capability": "none-such", "agent": "report-writer"}, 404),
        ({"capability": "orders-read", "agent": "none-such"}, 404),
        ({"capability": "orders-read", "task_id": UNKNOWN_TASK}, 404),
        ({"capability": "orders-read", "agent": "report-writer", "more": 1}, 400),
    ],
    ids=["whose", "both", "capability", "agent", "task", "field"],
)
async def test_a_dry_run_of_nothing(world: World, body: Any, status: int) -> None:
    answer = await world.call("operator", "POST", "/v1/policy/dry-run", body)
    assert answer.status_code == status, answer.text


async def test_without_a_login_section_nobody_logs_in(world: World) -> None:
    assert_problem(await world.http.get("/v1/login"), 404, "not_found")


async def test_tasks_are_found_by_what_is_said_of_them(world: World) -> None:
    first = await world.open(purpose="the Invoices of March")
    await world.open(purpose="something else", agent="order-clerk")

    async def ids(query: str) -> list[str]:
        found = await ask(world, "operator", f"/v1/tasks?{query}")
        return [task["task_id"] for task in found["items"]]

    assert await ids("text=invoices") == [first["task_id"]]
    assert await ids(f"text={first['task_id'][-8:]}") == [first["task_id"]]
    assert await ids(f"owner={first['owner']}&agent=report-writer") == [first["task_id"]]
    assert len(await ids("capability=orders-read")) == 2
    assert await ids("capability=orders-write") == []
    assert await ids("text=nowhere") == []


async def test_events_are_found_by_what_they_say(world: World) -> None:
    task = await world.open(purpose="the Invoices of March")
    grant = await world.grant(task)
    await world.complete(task)

    async def found(query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        path, after = f"/v1/audit/events?limit=2&{query}", ""
        for _ in range(20):
            page = await ask(world, "auditor", f"{path}&after={after}")
            rows += page["items"]
            if page["next"] is None:
                return rows
            after = page["next"]
        raise AssertionError("the list has no end")

    every = await found("")
    assert {e["type"].partition(".")[0] for e in await found("type=grant")} == {"grant"}
    revoked = await found("type=grant.revoked")
    assert [e["grant_id"] for e in revoked] == [grant["grant_id"]]
    assert await found("type=gran") == []
    opened = await found("text=invoices")
    assert opened
    assert await found("principal=orchestrator") == [
        e for e in every if e["principal"] == "orchestrator"
    ]
    one = await ask(world, "auditor", f"/v1/audit/events/{revoked[0]['id']}")
    assert one == revoked[0]
    gone = await world.call("auditor", "GET", "/v1/audit/events/1-00-0")
    assert_problem(gone, 404, "not_found")
