"""What the pipeline measures, and the spans of its steps, of credentials that live and die."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker import tracing
from broker.gauges import Gauges
from broker.ledger.quarantine import QuarantineTable
from tests.exposed import Exposed, exposed
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.http.deciding import DecisionWorld
    from tests.world import World


@pytest.fixture
def recorded() -> Generator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing.recorded_by(provider):
        yield exporter
    provider.shutdown()


def seen(world: World) -> Exposed:
    return exposed(world.app.metrics)


async def test_a_credentials_life_is_measured(world: World) -> None:
    task = await world.open()
    await world.grant(task)
    found = seen(world)
    assert found.values("issue_duration_seconds_count") == {("vault", "ok"): 1}
    assert found.values("time_to_dead_seconds_count") == {}

    await world.complete(task)

    found = seen(world)
    assert found.values("revoke_duration_seconds_count") == {("vault", "ok"): 1}
    assert found.values("time_to_dead_seconds_count") == {("vault", "read"): 1}
    assert 0 < found.values("time_to_dead_seconds_sum")["vault", "read"] < 60


async def test_decisions_are_counted_whatever_they_are(world: World) -> None:
    task = await world.open()
    await world.grant(task)
    path = f"/v1/tasks/{task['task_id']}/grants"
    ask: dict[str, Any] = {"capability": "orders-write"}
    answer = await world.call(task["agent"], "POST", path, ask, task_id=task["task_id"])
    assert answer.status_code == 403

    found = seen(world)
    assert found.values("decisions_total") == {
        ("open_task", "allow"): 1,
        ("issue_grant", "allow"): 1,
        ("issue_grant", "deny"): 1,
        ("break_glass", "allow"): 0,
    }
    assert found.values("decision_duration_seconds_count")["open_task",] == 1
    assert found.value("policy_errors_total") == 0
    assert found.value("policy_generation") == 1
    assert found.values("shut_lanes") == {("token",): 0, ("vault",): 0}


async def test_token_requests_are_counted(world: World) -> None:
    await world.token("orchestrator")
    refused = await world.exchange("report-writer")  # which names no task
    assert refused.status_code == 400
    assert seen(world).values("token_exchanges_total") == {
        ("ok",): 1,
        ("invalid_authorization_details",): 1,
    }


async def test_a_silent_task_is_counted_once(world: World) -> None:
    await world.open(heartbeat="1s")
    await world.open(heartbeat="10m")
    assert seen(world).value("missed_heartbeats_total") == 0
    for _ in "12":
        await world.sweep(ahead_ms=60_000)
    assert seen(world).value("missed_heartbeats_total") == 1


async def test_a_quarantine_is_shown_while_it_stands(world: World) -> None:
    await world.app.gauges.read()
    assert seen(world).value("quarantined") == 0
    await QuarantineTable(world.app.connection).set("a test")
    other = Gauges(world.app.pipeline, world.app.metrics, world.app.clock)
    await other.read()
    assert seen(world).value("quarantined") == 1


async def test_each_step_is_a_span_below_its_request(
    world: World, recorded: InMemorySpanExporter
) -> None:
    task = await world.open()
    grant = await world.grant(task)
    await world.complete(task)

    spans = recorded.get_finished_spans()
    asked = next(s for s in spans if s.name == "POST /v1/tasks/{task_id}/grants")

    def below(request: ReadableSpan) -> list[str]:
        assert request.context is not None
        trace_id = request.context.trace_id
        same = [s for s in spans if s.context is not None and s.context.trace_id == trace_id]
        return [s.name for s in sorted(same, key=lambda s: s.start_time or 0)]

    steps = ["resolve", "decide", "reserve", "mint", "activate", "deliver"]
    assert [name for name in below(asked) if name in steps] == steps
    ended = next(s for s in spans if s.name == "POST /v1/tasks/{task_id}/complete")
    assert [n for n in below(ended) if n in ("revoke", "confirm")][:2] == ["revoke", "confirm"]
    for name in ("reserve", "mint", "activate", "deliver"):
        span = next(s for s in spans if s.name == name)
        assert (span.attributes or {})["grant"] == grant["grant_id"]
    decided = next(s for s in spans if s.name == "decide")
    assert str((decided.attributes or {})["decision"]).startswith("dec_")
    text = "".join(span.to_json() for span in spans)
    assert grant["credential"]["password"] not in text


async def test_a_tool_call_is_a_decision_with_its_name_and_no_arguments(
    deciding: DecisionWorld, recorded: InMemorySpanExporter
) -> None:
    task = await deciding.task()
    answer = await deciding.decide(task, "crm.read", arguments={"query": "planted-argument"})
    assert answer["decision"] is True

    found = seen(deciding)
    assert found.values("decisions_total")["call_tool", "allow"] == 1
    assert found.values("decision_duration_seconds_count")["call_tool",] == 1
    spans = recorded.get_finished_spans()
    (asked,) = [s for s in spans if "gen_ai.tool.name" in (s.attributes or {})]
    assert dict(asked.attributes or {}) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "crm.read",
        "gen_ai.agent.name": task["agent"],
    }
    assert "planted-argument" not in "".join(span.to_json() for span in spans)
    assert "planted-argument" not in found.body


async def test_unreported_calls_are_counted_until_they_are_reported(
    deciding: DecisionWorld,
) -> None:
    async def unreported(count: int) -> bool:
        await deciding.app.gauges.read()
        return seen(deciding).value("unreported_executions") == count

    task = await deciding.task()
    answer = await deciding.decide(task, "note")
    await wait_until(lambda: unreported(1), "the call is open")
    await deciding.report(task, answer["context"]["decision_id"])
    await wait_until(lambda: unreported(0), "the call is closed")
