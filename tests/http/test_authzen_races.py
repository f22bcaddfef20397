"""Calls that race on two replicas: each is decided on all that was allowed before it."""

from __future__ import annotations

import asyncio
from collections import Counter
from secrets import randbelow
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.exposed import Exposed
from tests.http.deciding import EVALUATION, DecisionWorld, decision_config, question
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

ROUNDS: Final = 40
ALLOWED: Final = 12
POLICIES: Final = f"""
@id("so-many-notes")
forbid (principal, action == Action::"call:note", resource) unless {{
  context.chain.calls < {ALLOWED}
}};

@id("a-hundred-in-all")
forbid (principal, action == Action::"call:pay-out", resource) when {{
  context.after.amount.greaterThan(decimal("100.0"))
}};

@id("nothing-untrusted-once-something-is-out")
forbid (principal, action == Action::"call:web-fetch", resource) when {{
  context.after.private && context.after.untrusted && context.chain.egress
}};
"""


@pytest.fixture
async def pair(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> AsyncGenerator[tuple[DecisionWorld, DecisionWorld]]:
    """Two replicas with stricter policies, on one empty ledger."""
    (tmp_path / "own.cedar").write_text(POLICIES, "utf-8")
    config = decision_config(engines[0], policies=tmp_path)
    made = tuple(DecisionWorld(engines[0].issuer, config) for _ in range(2))
    await made[0].app.connection.command("FLUSHALL")
    yield made[0], made[1]
    for one in made:
        await one.close()


async def scattered(work: Coroutine[Any, Any, Any]) -> Any:
    """Begin some passes of the loop later, so that each round is another race."""
    for _ in range(randbelow(40)):
        await asyncio.sleep(0)
    return await work


async def ready(world: DecisionWorld, other: DecisionWorld, task: dict[str, Any]) -> None:
    """Both replicas have the tokens, and know the chain as it is."""
    for one in (world, other):
        await one.headers(task["agent"], task["task_id"])
    assert await world.allows(task, "crm.read")


async def test_one_sends_out_while_the_other_takes_in(
    pair: tuple[DecisionWorld, DecisionWorld],
) -> None:
    """With private data read already, never both; and what came first decides."""
    seen: Counter[tuple[bool, bool]] = Counter()
    for n in range(ROUNDS):
        one, other = pair if n % 2 else pair[::-1]
        parent = await one.task()
        child = await one.child(parent, "order-clerk")
        await ready(one, other, parent)
        await ready(other, one, child)
        taken, sent = await asyncio.gather(
            scattered(one.allows(parent, "web.fetch")), scattered(other.allows(child, "mail.send"))
        )
        assert not (taken and sent), "each missed the other"
        seen[taken, sent] += 1
    assert seen[True, False]
    assert seen[False, True]
    assert set(seen) == {(True, False), (False, True)}, "nor is both refused: one came first"


async def test_one_is_given_a_way_out_while_the_other_takes_in(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    """By the policies of the package alone."""
    seen: Counter[tuple[bool, bool]] = Counter()

    async def granted(world: DecisionWorld, task: dict[str, Any]) -> bool:
        path = f"/v1/tasks/{task['task_id']}/grants"
        answer = await world.post(path, {"capability": "uplink"}, task=task)
        assert answer.status_code in (201, 202), answer.text
        return answer.status_code == 201

    for n in range(ROUNDS):
        one, other = (deciding, beside) if n % 2 else (beside, deciding)
        task = await one.task()
        await ready(one, other, task)
        taken, given = await asyncio.gather(
            scattered(one.allows(task, "web.fetch")), scattered(granted(other, task))
        )
        assert not (taken and given), "each missed the other"
        seen[taken, given] += 1
    assert seen[True, False] + seen[False, True] == ROUNDS
    assert len(seen) == 2, "it came out one way only: no race was run"


async def test_the_later_of_two_was_decided_on_the_earlier(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    """Sending, then taking in, is allowed by the package: but not unknowingly."""
    for n in range(ROUNDS // 2):
        one, other = (deciding, beside) if n % 2 else (beside, deciding)
        task = await one.task()
        await ready(one, other, task)
        await asyncio.gather(
            scattered(one.allows(task, "web.fetch")), scattered(other.allows(task, "mail.send"))
        )
        _, *raced = await one.decisions(task)
        allowed = [e["data"] for e in raced if e["data"]["effect"] == "allow"]
        told = [data["question"]["context"]["chain"] for data in allowed]
        match [data["capability"] for data in allowed]:
            case ["web-fetch"]:
                pass
            case ["mail-out", "web-fetch"]:
                assert told[1]["egress"] is True
            case other_order:
                pytest.fail(f"allowed in this order: {other_order}")


async def test_nobody_is_refused_on_what_was_so_before(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    task = await deciding.task()
    about = {"selector": {"task_id": task["task_id"]}, "reason": "a test"}
    await beside.post("/v1/signals", {**about, "risk": 60}, by="operator")
    assert await deciding.allows(task, "note"), "reading is allowed, and the risk remembered"
    assert not await deciding.allows(task, "pay")
    assert await deciding.allows(task, "note")

    await beside.post("/v1/signals", {**about, "risk": 0}, by="operator")

    assert await deciding.allows(task, "pay")


async def test_exactly_so_many_of_fifty_at_once(
    pair: tuple[DecisionWorld, DecisionWorld],
) -> None:
    parent = await pair[0].task()
    child = await pair[0].child(parent, "order-clerk")
    for task in (parent, child):
        for one in pair:
            await one.headers(task["agent"], task["task_id"])

    found = await asyncio.gather(
        *(
            scattered(one.allows(task, "note"))
            for one in pair
            for task in (parent, child)
            for _ in range(13)
        )
    )

    assert Counter(found) == {True: ALLOWED, False: 52 - ALLOWED}
    logged = [e for task in (parent, child) for e in await pair[0].decisions(task)]
    assert Counter(e["data"]["effect"] for e in logged) == {"allow": ALLOWED, "deny": 52 - ALLOWED}
    seen = [
        e["data"]["question"]["context"]["chain"]["calls"]
        for e in logged
        if e["data"]["effect"] == "allow"
    ]
    assert sorted(seen) == list(range(ALLOWED)), "each was decided on the one before"


async def test_calls_that_add_nothing_new_are_one_script_each(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    """On two replicas at once, where no policy looks at how many there were."""
    both = (deciding, beside)
    task = await deciding.task()
    for one in both:
        await ready(one, one, task)

    def scripts() -> dict[str, float]:
        pages = [one.app.metrics.exposition("") for one in both]
        shown = [Exposed(body.decode(), media_type) for body, media_type in pages]
        return {
            name: sum(each.value("ledger_duration_seconds_count", call=name) or 0 for each in shown)
            for name in ("survey", "call")
        }

    before = scripts()
    found = await asyncio.gather(
        *(scattered(one.allows(task, "crm.read")) for one in both for _ in range(20))
    )

    assert all(found)
    after = scripts()
    assert after["call"] - before["call"] == 40
    assert after["survey"] == before["survey"], "none was decided again"
    assert await deciding.allows(task, "crm.read")
    last = (await deciding.decisions(task))[-1]["data"]["question"]["context"]
    assert last["chain"]["calls"] in range(21, 43), "what it was told lags by what is under way"


async def test_no_more_is_paid_than_may_be(pair: tuple[DecisionWorld, DecisionWorld]) -> None:
    task = await pair[0].task()
    arguments = {"to": "x", "amount": 7.5}

    found = await asyncio.gather(
        *(
            scattered(one.allows(task, "pay", arguments=arguments))
            for one in pair
            for _ in range(20)
        )
    )

    assert sum(found) == 13  # 97.5
    assert await pair[1].allows(task, "pay", arguments={"to": "x", "amount": 2.5})
    assert not await pair[0].allows(task, "pay", arguments={"to": "x", "amount": 0.0001})


async def test_nothing_is_allowed_after_a_task_has_ended(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    outcomes: Counter[int] = Counter()
    for _ in range(ROUNDS // 4):
        task = await deciding.task()
        headers = await deciding.headers("report-writer", task["task_id"])
        asked = [
            scattered(one.post(EVALUATION, question(task, "note"), headers=headers))
            for one in (deciding, beside)
            for _ in range(5)
        ]
        *answers, _ = await asyncio.gather(*asked, scattered(beside.complete(task)))
        outcomes.update(answer.status_code for answer in answers)
        events = await deciding.events(task["task_id"])
        types = [
            event["type"]
            for event in events
            if event["type"] == "task.ended"
            or (event["type"] == "decision" and event["data"].get("capability") == "note"
                and event["data"]["effect"] == "allow")
        ]  # fmt: skip
        assert types[-1] == "task.ended", "a call was allowed after the end"
    assert set(outcomes) <= {200, 401}


async def test_nothing_is_allowed_with_a_token_after_it_was_revoked(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    raced = 0
    for _ in range(ROUNDS // 4):
        task = await deciding.task()
        token = await deciding.token("report-writer", task["task_id"])
        headers = {"Authorization": f"Bearer {token}"}

        asked = [
            scattered(one.post(EVALUATION, question(task, "note"), headers=headers))
            for one in (deciding, beside)
            for _ in range(5)
        ]
        revoked = beside.http.post("/oauth/revoke", data={"token": token}, headers=headers)
        *answers, _ = await asyncio.gather(*asked, scattered(revoked))
        assert {answer.status_code for answer in answers} <= {200, 401}
        raced += len({answer.status_code for answer in answers}) == 2
        types = [
            event["type"]
            for event in await deciding.events(task["task_id"])
            if event["type"] == "token.revoked" or event["data"].get("capability") == "note"
        ]
        assert types[-1] == "token.revoked", "a call was allowed after its token was revoked"
    assert raced, "no race was run"


async def test_a_frozen_tool_is_not_called_by_whoever_knew_it_before(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    tasks = [await deciding.task() for _ in range(10)]
    for task in tasks:
        await ready(deciding, beside, task)
    freeze = {"selector": {"capability": "note"}, "reason": "a drill"}

    async def keep_asking(task: dict[str, Any]) -> int:
        allowed = 0
        while await deciding.allows(task, "note"):
            allowed += 1
        return allowed

    asking = [asyncio.create_task(keep_asking(task)) for task in tasks]

    async def some_were_allowed() -> bool:
        return len(await deciding.decisions(tasks[-1])) > 2

    await wait_until(some_were_allowed, "calls are allowed")
    frozen = await beside.post("/v1/freezes", freeze, by="operator")
    assert frozen.status_code == 201, frozen.text
    counts = await asyncio.gather(*asking)

    assert all(counts)
    assert not any([await one.allows(task, "note") for one in (deciding, beside) for task in tasks])
