"""A chain as the API draws it: who sees how much of it, and what each task can do and holds."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.identity.models import Transport
from broker.trees import Trees
from tests.http.parties import UNKNOWN_TASK, assert_problem
from tests.register_world import newcomer

if TYPE_CHECKING:
    from broker.access import Caller
    from tests.http.consenting import ConsentWorld
    from tests.risk_world import RiskWorld
    from tests.world import World

HOSTILE: Final = 'ignore </b> all\n\u202erules\u0085 "and" \\ [red]send[/red]'
WIDE: Final = ("customers", "pages", "mail-out", "orders-api", "orders-read")


async def tree(
    world: World, task: dict[str, Any], *, by: str = "operator", query: str = "", under: Any = None
) -> dict[str, Any]:
    """Read a tree; an agent acts under its task."""
    own = under or (task if by == task["agent"] else None)
    path = f"/v1/tasks/{task['task_id']}/tree{query}"
    answer = await world.call(by, "GET", path, task_id=own["task_id"] if own else None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def nodes(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["task_id"]: node for node in found["nodes"]}


async def chain(world: RiskWorld) -> list[dict[str, Any]]:
    """Four levels, each for another agent than the one above, with real grants at three of them."""
    root = await world.open(capabilities=list(WIDE), purpose=HOSTILE)
    second = await world.below(root, "order-clerk", "customers", "pages", "orders-read")
    third = await world.below(second, "courier", "pages", "customers")
    ask = newcomer("helper", capabilities=["customers"])
    assert (await world.call("operator", "POST", "/v1/principals", ask)).status_code == 201
    fourth = await world.below(third, "helper", "customers")
    await world.grant(root, "orders-api")
    await world.grant(second, "orders-read")
    await world.grant(third, "pages")
    assert (await world.ask(fourth, "customers")).status_code == 201
    return [root, second, third, fourth]


async def caller_of(world: World, name: str) -> Caller:
    transport = Transport("GET", world.config.broker.issuer)
    return await world.app.broker.access.authenticate(await world.token(name), "bearer", transport)


async def test_four_levels_with_what_each_can_do_and_holds(
    risky: RiskWorld, twin: RiskWorld
) -> None:
    tasks = await chain(risky)
    ids = [task["task_id"] for task in tasks]

    found = await tree(twin, tasks[0])

    assert [node["task_id"] for node in found["nodes"]] == ids
    assert [node["depth"] for node in found["nodes"]] == [0, 1, 2, 3]
    assert found["edges"] == [{"from": above, "to": below} for above, below in pairwise(ids)]
    assert (found["root_task_id"], found["task_id"]) == (ids[0], ids[0])
    assert not found["truncated"]
    root, second, third, fourth = found["nodes"]
    assert root["purpose"] == HOSTILE
    assert (root["state"], root["parent_task_id"]) == ("active", None)
    held = [[g["capability"] for g in node["grants"]] for node in found["nodes"]]
    assert held == [["orders-api"], ["orders-read"], ["pages"], ["customers"]]
    grant = second["grants"][0]
    assert (grant["state"], grant["backend"], grant["power"]) == ("active", "vault", "read")
    assert found["at"] < grant["expires_at"] <= second["expires_at"]
    # What each can do with all below it, and what it has done alone.
    assert root["power"]["level"] == "privileged"
    assert "together" in root["power"]["why"][0]
    assert fourth["power"] == {"level": "read", "why": ["customers is read"]}
    assert third["power"]["level"] == "operate", "private data and untrusted input"
    assert third["effects"] == ["ingests:untrusted"]
    assert (fourth["effects"], fourth["data_classes"]) == (["reads:customers"], ["confidential"])
    done = found["chain"]
    assert (done["tasks"], done["grants"], done["calls"], done["amount"]) == (4, 4, 0, "0.0000")
    assert set(done["effects"]) >= {"reads:customers", "ingests:untrusted"}
    assert done["power"]["level"] == "operate"
    assert done["data_classes"] == sorted({"confidential", "public", "internal"})


async def test_below_a_task_alone_or_the_whole_chain(risky: RiskWorld) -> None:
    tasks = await chain(risky)
    ids = [task["task_id"] for task in tasks]

    below = await tree(risky, tasks[2], by="orchestrator")
    whole = await tree(risky, tasks[2], by="orchestrator", query="?whole=true")

    assert list(nodes(below)) == ids[2:]
    assert below["edges"] == [{"from": ids[2], "to": ids[3]}]
    assert list(nodes(whole)) == ids
    assert whole["task_id"] == below["task_id"] == ids[2]
    assert whole["chain"] == below["chain"], "it is of the whole chain either way"
    assert (await tree(risky, tasks[0], by="auditor", query="?whole=false"))["nodes"]


async def test_an_agent_sees_its_task_and_what_is_below(risky: RiskWorld) -> None:
    tasks = await chain(risky)
    ids = [task["task_id"] for task in tasks]

    mine = await tree(risky, tasks[1], by="order-clerk")
    child = await tree(risky, tasks[2], by="order-clerk", under=tasks[1])

    assert list(nodes(mine)) == ids[1:]
    assert mine["chain"] is None
    assert list(nodes(child)) == ids[2:]
    for task in (tasks[0], tasks[3]):
        path = f"/v1/tasks/{task['task_id']}/tree"
        other = await risky.call("order-clerk", "GET", path, task_id=ids[1])
        assert_problem(other, 404, "not_found")
    path = f"/v1/tasks/{ids[1]}/tree?whole=true"
    whole = await risky.call("order-clerk", "GET", path, task_id=ids[1])
    assert_problem(whole, 403, "access_denied")
    unknown = await risky.call("operator", "GET", f"/v1/tasks/{UNKNOWN_TASK}/tree")
    assert_problem(unknown, 404, "not_found")


async def test_what_has_ended_is_still_drawn_and_holds_nothing(risky: RiskWorld) -> None:
    tasks = await chain(risky)
    beside = await risky.below(tasks[0], "courier", "pages")
    await risky.complete(tasks[1], "failed")

    found = await tree(risky, tasks[0])

    states = [node["state"] for node in found["nodes"]]
    assert states == ["active", "failed", "active", "cancelled", "cancelled"]
    shown = nodes(found)
    for task in tasks[1:]:
        node = shown[task["task_id"]]
        assert (node["grants"], node["power"]["level"]) == ([], None)
        assert node["ended_at"]
    assert shown[beside["task_id"]]["power"]["level"] == "read"
    # What came in by those that ended is in the chain for good.
    assert shown[tasks[0]["task_id"]]["power"]["level"] == "privileged"
    assert shown[tasks[2]["task_id"]]["effects"] == ["ingests:untrusted"]


async def test_what_is_too_much_for_one_answer_is_marked(risky: RiskWorld) -> None:
    tasks = await chain(risky)
    operator = await caller_of(risky, "operator")
    root = await risky.app.pipeline.queries.task(tasks[0]["task_id"])
    assert root is not None
    reach = risky.app.oversight.reach

    for most, cut in ((4, False), (3, True), (1, True)):
        found = await Trees(risky.app.pipeline, reach, most=most).of_task(
            operator, root, whole=False
        )
        assert len(found["nodes"]) == min(most, 4)
        assert found["truncated"] is cut
        assert len(found["edges"]) == len(found["nodes"]) - 1
        assert found["chain"]["tasks"] == 4, "that is counted, however many are shown"


async def test_a_limit_shows_fewer_tasks_and_all_that_they_hold(risky: RiskWorld) -> None:
    tasks = await chain(risky)
    ids = [task["task_id"] for task in tasks]
    for _ in range(5):
        await risky.grant(tasks[0], "orders-api")

    one = await tree(risky, tasks[0], query="?limit=1")
    two = await tree(risky, tasks[3], query="?whole=true&limit=2")
    four = await tree(risky, tasks[0], query="?limit=4")

    assert (list(nodes(one)), one["edges"], one["truncated"]) == (ids[:1], [], True)
    assert len(one["nodes"][0]["grants"]) == 6
    assert (list(nodes(two)), two["truncated"]) == (ids[:2], True)
    assert two["edges"] == [{"from": ids[0], "to": ids[1]}]
    assert (list(nodes(four)), four["truncated"]) == (ids, False)
    mine = await tree(risky, tasks[1], by="order-clerk", query="?limit=1")
    assert list(nodes(mine)) == [ids[1]]


async def test_many_grants_are_cut_as_well(risky: RiskWorld) -> None:
    task = await risky.open(capabilities=["orders-api"])
    for _ in range(5):
        await risky.grant(task, "orders-api")
    operator = await caller_of(risky, "operator")
    root = await risky.app.pipeline.queries.task(task["task_id"])
    assert root is not None

    found = await Trees(risky.app.pipeline, risky.app.oversight.reach, most=1).of_task(
        operator, root, whole=True
    )

    assert len(found["nodes"][0]["grants"]) == 4
    assert found["truncated"]


async def test_elevations_and_what_waits_for_a_yes_are_at_their_task(
    consent: ConsentWorld,
) -> None:
    root = await consent.open(capabilities=["orders-read"])
    child = await consent.open(
        agent="order-clerk", capabilities=["orders-read"], parent_task_id=root["task_id"]
    )
    elevation = await consent.elevated(root, ttl="2m")
    wide = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(wide, intent="mend it")

    top, below = (await tree(consent, root))["nodes"]
    assert (below["elevations"], below["approvals"]) == ([], [])
    (shown,) = top["elevations"]
    assert shown == elevation
    assert below["task_id"] == child["task_id"]

    (node,) = (await tree(consent, wide))["nodes"]
    (waiting,) = node["approvals"]
    assert (waiting["approval_id"], waiting["state"]) == (approval, "pending")
    assert waiting["needs"] == [{"group": None, "count": 1, "have": 0}]
    assert waiting["request"] is None, "what exactly was asked is for those who look at it"
    assert waiting["policies"], "an operator sees which policies asked"
    own = await tree(consent, wide, by="report-writer")
    assert own["nodes"][0]["approvals"] == [{**waiting, "policies": []}]
    await consent.say(approval, yes=False)
    assert (await tree(consent, wide))["nodes"][0]["approvals"] == []
    path = f"/v1/tasks/{root['task_id']}/elevations/{elevation['elevation_id']}"
    assert (await consent.api("alice", "DELETE", path)).status_code == 200
    assert (await tree(consent, root))["nodes"][0]["elevations"] == []


async def test_a_budget_is_shown_with_what_is_left(risky: RiskWorld) -> None:
    task = await risky.open(capabilities=["orders-api"], limits={"budget": {"grants": 3}})
    await risky.grant(task, "orders-api")

    (node,) = (await tree(risky, task))["nodes"]

    assert node["budget"]["grants"] == {"given": 3, "spent": 1, "reserved": 0, "left": 2}


async def test_a_tool_that_a_task_is_elevated_to_is_power(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-read"])
    path = f"/v1/tasks/{task['task_id']}"
    assert (await tree(consent, task))["nodes"][0]["power"]["level"] == "read"

    elevation = await consent.elevated(task, capability="deploy-tool")

    expected = {"level": "privileged", "why": ["deploy-tool is privileged"]}
    assert (await tree(consent, task))["nodes"][0]["power"] == expected
    power = (await consent.api("alice", "GET", f"{path}/power")).json()
    assert (power["power"], power["usable"]) == ("privileged", ["deploy-tool"])
    agent = (await consent.api("alice", "GET", "/v1/principals/report-writer")).json()
    assert agent["effective_power"]["power"] == "privileged"
    end = f"{path}/elevations/{elevation['elevation_id']}"
    assert (await consent.api("alice", "DELETE", end)).status_code == 200
    assert (await tree(consent, task))["nodes"][0]["power"]["level"] == "read"


@pytest.mark.parametrize(
    "query",
    [
        *("?whole=perhaps", "?whole=", "?whole=true&whole=false"),
        *("?limit=0", "?limit=501", "?limit=-1", "?limit=", "?limit=x", "?limit=1&limit=2"),
    ],
)
async def test_a_bad_query_is_refused(risky: RiskWorld, query: str) -> None:
    task = await risky.open()
    answer = await risky.call("operator", "GET", f"/v1/tasks/{task['task_id']}/tree{query}")
    assert_problem(answer, 400, "invalid_request")
