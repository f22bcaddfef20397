"""When the decision can't be written it isn't made: nothing is allowed that isn't on record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.dev.engines import Valkey
from broker.errors import LedgerUnavailable
from broker.identity.models import Transport
from broker.wire_authzen import read_evaluation
from tests.http.deciding import (
    EVALUATION,
    EVALUATIONS,
    DecisionWorld,
    decision_config,
    question,
)
from tests.http.parties import assert_problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.access import Caller
    from broker.config import Config
    from broker.dev.stack import DevStack

HERE: Final = Transport("POST", f"http://127.0.0.1:8700{EVALUATION}")


@pytest.fixture
def valkey(tmp_path: Path) -> Generator[Valkey]:
    """A server of this test's own, to be stopped and filled."""
    with Valkey(tmp_path / "v") as server:
        yield server


@pytest.fixture
async def frail(engines: tuple[DevStack, Config], valkey: Valkey) -> AsyncGenerator[DecisionWorld]:
    config = decision_config(engines[0], redis={"url": valkey.url})
    made = DecisionWorld(engines[0].issuer, config)
    yield made
    await made.close()


async def proved(world: DecisionWorld, task: dict[str, Any]) -> Caller:
    headers = await world.headers(task["agent"], task["task_id"])
    token = headers["Authorization"].partition(" ")[2]
    return await world.app.broker.access.authenticate(token, "bearer", HERE)


async def test_without_a_ledger_it_is_503_and_nothing_is_allowed(
    frail: DecisionWorld, valkey: Valkey
) -> None:
    task = await frail.task()
    decision = (await frail.decide(task, "note"))["context"]["decision_id"]
    caller, good = await proved(frail, task), question(task, "note")
    several: dict[str, Any] = {**good, "evaluations": [{}, {}]}

    valkey.stop()
    for path, body in ((EVALUATION, good), (EVALUATIONS, several)):
        answer = await frail.post(path, body, task=task)
        assert_problem(answer, 503, "ledger_unavailable")
        assert answer.headers["retry-after"]
    assert_problem(await frail.report(task, decision), 503, "ledger_unavailable")
    # Also if it goes between authentication and writing, whatever would be decided.
    for tool in ("note", "nope", "crm.read"):
        with pytest.raises(LedgerUnavailable):
            await frail.app.broker.decisions.evaluate(caller, read_evaluation(question(task, tool)))

    valkey.start()
    frail_again = await frail.decide(task, "note")
    assert frail_again["decision"] is True
    logged = await frail.decisions(task)
    calls = [event["data"]["question"]["context"]["chain"]["calls"] for event in logged]
    assert calls == [0, 1], "what could not be written did not count"
    assert (await frail.report(task, decision)).status_code == 200


async def test_a_full_ledger_refuses_denials_as_well_as_calls(frail: DecisionWorld) -> None:
    task = await frail.task()
    assert await frail.allows(task, "note")

    await frail.app.connection.command("CONFIG", "SET", "maxmemory", 1)
    try:
        for tool in ("note", "nope"):
            answer = await frail.post(EVALUATION, question(task, tool), task=task)
            assert_problem(answer, 503, "ledger_unavailable")
    finally:
        await frail.app.connection.command("CONFIG", "SET", "maxmemory", 0)

    assert await frail.allows(task, "note")
    assert len(await frail.decisions(task)) == 2


async def test_a_ledger_set_back_to_a_backup_is_not_decided_on_by_memory(
    frail: DecisionWorld,
) -> None:
    """What a replica remembers of a chain is for a version that never comes again (pitfall 11)."""
    parent = await frail.task()
    child = await frail.child(parent, "order-clerk")
    key = f"broker:{{s{parent['task_id'][4:6]}}}:tasks"
    assert await frail.allows(parent, "note")
    saved = await frail.app.connection.command("DUMP", key)
    for _ in range(2):
        assert await frail.allows(parent, "note")  # is remembered, and will be lost

    await frail.app.connection.command("RESTORE", key, 0, saved, "REPLACE")
    # Others do as many things as were lost.
    elsewhere = DecisionWorld(frail.issuer, frail.config)
    try:
        assert await elsewhere.allows(child, "crm.read")
        assert await elsewhere.allows(child, "web.fetch")
        found = [await frail.allows(parent, "mail.send") for _ in range(2)]
    finally:
        await elsewhere.close()

    assert found == [False, False]


async def test_a_caller_who_hangs_up_leaves_no_lock(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    await deciding.headers("report-writer", task["task_id"])
    asked = [asyncio.create_task(deciding.allows(task, "note")) for _ in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)
    for one in asked[::2]:
        one.cancel()

    done = await asyncio.gather(*asked, return_exceptions=True)

    assert [one for one in done if one is True]
    assert await deciding.allows(task, "note")
    logged = await deciding.decisions(task)
    open_ones = await deciding.app.connection.command(
        "ZLEXCOUNT", f"broker:{{s{task['task_id'][4:6]}}}:index", "[do|", "(do|\xff"
    )
    assert len(logged) == open_ones, "what was written is open until it is reported"
