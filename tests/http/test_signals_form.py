"""Signals that can't be: of nobody, or not of the form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.http.parties import UNKNOWN_TASK, assert_problem
from tests.risk_world import DETECTOR, WHY

if TYPE_CHECKING:
    from tests.risk_world import RiskWorld

AGENT: Final = {"agent": "report-writer"}
BAD: Final[dict[str, Any]] = {"verdict": "compromised"}


@pytest.mark.parametrize(
    "about",
    [
        {"task_id": UNKNOWN_TASK},
        {"task_id": "tsk_1"},
        {"agent": "nobody"},
        {"agent": "operator"},
        {"agent": "orders-service"},
        {"owner": "nobody@example.com"},
    ],
    ids=lambda about: "-".join(about.values()),
)
@pytest.mark.parametrize("by", ["operator", DETECTOR])
async def test_nothing_is_reported_of_nobody(
    risky: RiskWorld, about: dict[str, str], by: str
) -> None:
    assert_problem(await risky.signal(about, by=by, **BAD), 404, "not_found")
    assert_problem(await risky.signal(about, by="orders-service", **BAD), 403, "access_denied")
    assert (await risky.signals())["items"] == []


async def test_of_an_agent_that_another_replica_has_just_added(
    risky: RiskWorld, twin: RiskWorld
) -> None:
    ask = {
        "name": "newcomer",
        "owner": "new@example.com",
        "purpose": WHY,
        "identity": {"issuer": "dev", "subject": "agent/newcomer"},
        "capabilities": ["orders-api"],
    }
    assert (await twin.call("operator", "POST", "/v1/principals", ask)).status_code == 201

    await risky.reported({"owner": "new@example.com"}, **BAD)

    refused = await risky.call(
        "orchestrator",
        "POST",
        "/v1/tasks",
        {"agent": "newcomer", "purpose": WHY, "capabilities": ["orders-api"]},
    )
    assert_problem(refused, 403, "access_denied")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"selector": AGENT, "reason": WHY},
        {"selector": AGENT, "reason": WHY, "risk": None, "verdict": None},
        {"selector": AGENT, "risk": 1},
        {"selector": AGENT, "reason": " ", "risk": 1},
        {"selector": {}, "reason": WHY, "risk": 1},
        {"selector": {"agent": None}, "reason": WHY, "risk": 1},
        {"selector": {"agent": "a", "owner": "b"}, "reason": WHY, "risk": 1},
        {"selector": {"all": True}, "reason": WHY, "risk": 1},
        {"selector": {"capability": "orders-api"}, "reason": WHY, "risk": 1},
        {"selector": {"grant_id": "grt_1"}, "reason": WHY, "risk": 1},
        {"selector": "agent:report-writer", "reason": WHY, "risk": 1},
        {"selector": AGENT, "reason": WHY, "risk": -1},
        {"selector": AGENT, "reason": WHY, "risk": 101},
        {"selector": AGENT, "reason": WHY, "risk": 1.5},
        {"selector": AGENT, "reason": WHY, "risk": "90"},
        {"selector": AGENT, "reason": WHY, "risk": True},
        {"selector": AGENT, "reason": WHY, "verdict": "guilty"},
        {"selector": AGENT, "reason": WHY, "risk": 1, "ttl": "soon"},
        {"selector": AGENT, "reason": WHY, "risk": 1, "ttl": "0s"},
        {"selector": AGENT, "reason": WHY, "risk": 1, "ttl": 60},
        {"selector": AGENT, "reason": WHY, "risk": 1, "until": "tomorrow"},
    ],
    ids=str,
)
async def test_what_isnt_of_the_form_is_refused(risky: RiskWorld, body: dict[str, Any]) -> None:
    answer = await risky.call("operator", "POST", "/v1/signals", body)

    assert assert_problem(answer, 400, "invalid_request")["errors"]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "cursor=x", "cursor=agent:"])
async def test_bad_queries_are_refused(risky: RiskWorld, query: str) -> None:
    answer = await risky.call("operator", "GET", f"/v1/signals?{query}")

    assert_problem(answer, 400, "invalid_request")
