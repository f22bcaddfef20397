"""A task in a program's hands lives as long as its block, for both clients alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.client import InvalidRequest, TaskEnded
from tests.clocks import ManualClock
from tests.sdk.world import eventually, logs_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sdk.colours import Colour
    from tests.sdk.world import Sdk

ASK: Any = ("report-writer", "the weekly report", ["orders-read"])


class Boom(Exception):
    """What a body fails with."""


def test_a_block_that_ends_well_completes_and_its_credential_is_dead(sdk: Sdk, client: Any) -> None:
    task = client.task(*ASK, context={"ticket": "7"})
    with task:
        dsn = task.grant("orders-read").dsn().reveal()
        assert logs_in(dsn)
        assert not task.end

    assert not logs_in(dsn)
    assert (task.end.state, task.end.grants.revoked, task.end.grants.revoking) == (
        "completed",
        1,
        0,
    )
    shown = sdk.shown(task.task_id)
    assert (shown["state"], shown["summary"]) == ("completed", None)


@pytest.mark.parametrize(
    ("left_by", "state", "summary"),
    [
        (Boom("hush hush"), "failed", f"{__name__}.Boom"),
        (ValueError("hush hush"), "failed", "ValueError"),
        (KeyboardInterrupt(), "cancelled", "KeyboardInterrupt"),
        (SystemExit(3), "failed", "SystemExit"),
        (SystemExit(0), "completed", None),
    ],
    ids=["own", "builtin", "interrupt", "exit-3", "exit-0"],
)
def test_an_exception_decides_the_outcome_and_its_text_stays_here(
    sdk: Sdk, client: Any, left_by: BaseException, state: str, summary: str | None
) -> None:
    dsns: list[str] = []

    def body() -> None:
        with client.task(*ASK) as task:
            tasks.append(task)
            dsns.append(task.grant("orders-read").dsn().reveal())
            raise left_by

    tasks: list[Any] = []
    with pytest.raises(type(left_by)) as caught:
        body()

    assert caught.value is left_by
    assert not logs_in(dsns[0])
    shown = sdk.shown(tasks[0].task_id)
    assert (shown["state"], shown["summary"]) == (state, summary)
    assert "hush" not in str(sdk.run(sdk.world.events(tasks[0].task_id)))


def test_completed_by_hand_the_block_does_no_more(sdk: Sdk, client: Any) -> None:
    with client.task(*ASK) as task:
        end = task.complete("failed", summary="nothing to report")
        assert end.state == "failed"
        with pytest.raises(TaskEnded):
            task.grant("orders-read")
    assert sdk.shown(task.task_id)["summary"] == "nothing to report"


def test_it_is_used_once_and_not_before_it_is_open(client: Any) -> None:
    task = client.task(*ASK)
    with pytest.raises(InvalidRequest):
        task.grant("orders-read")
    with task:
        pass
    with pytest.raises(InvalidRequest):
        task.open()


def test_closing_the_client_ends_what_it_has_open(sdk: Sdk, colour: Colour) -> None:
    with colour.client(sdk.url, sdk.identity("orchestrator")) as client:
        task = client.task(*ASK).open()
        dsn = task.grant("orders-read").dsn().reveal()
    shown = sdk.shown(task.task_id)
    assert (shown["state"], shown["summary"]) == ("cancelled", "its client was closed")
    assert not logs_in(dsn)


def test_it_keeps_itself_alive(sdk: Sdk, client: Any) -> None:
    with client.task(*ASK, heartbeat="1s") as task:
        first = task.info.heartbeat_due_at

        def lived_on() -> bool:
            return (task.info.heartbeat_due_at - first).total_seconds() > 2

        sdk.swept_until(lived_on, "it lived for two windows more")
        task.check()
        assert sdk.shown(task.task_id)["state"] == "active"


def ended(use: Callable[[], object]) -> TaskEnded | None:
    """What a use of a task that has ended raises."""
    try:
        use()
    except TaskEnded as error:
        return error
    return None


def test_that_it_was_ended_by_others_is_noticed_and_said(sdk: Sdk, client: Any) -> None:
    task = client.task(*ASK, heartbeat="1s").open()
    orders = task.grant("orders-read")
    sdk.end(task.task_id)
    told = eventually(lambda: ended(task.check), "the heartbeat tells of the end")
    assert (told.task_id, told.state) == (task.task_id, "cancelled")
    for use in (orders.dsn, orders.env, lambda: task.grant("orders-read"), task.complete):
        assert ended(use) is not None
    assert sdk.shown(task.task_id)["state"] == "cancelled"


def test_without_a_heartbeat_the_next_call_says_that_it_has_ended(sdk: Sdk, client: Any) -> None:
    task = client.task(*ASK, heartbeat=None).open()
    sdk.end(task.task_id)
    told = ended(lambda: task.grant("orders-read"))
    assert told is not None
    assert told.state == "cancelled"
    assert ended(task.check)


def test_a_body_that_did_its_work_is_told_if_its_task_had_ended(sdk: Sdk, client: Any) -> None:
    def body(error: Exception | None) -> None:
        with client.task(*ASK, heartbeat=None) as task:
            sdk.end(task.task_id)
            if error is not None:
                raise error

    with pytest.raises(TaskEnded) as caught:
        body(None)
    assert caught.value.state == "cancelled"
    with pytest.raises(Boom) as failed:
        body(Boom())
    assert "cancelled" in failed.value.__notes__[0]


def test_a_silence_longer_than_its_heartbeat_counts_as_the_end(sdk: Sdk, colour: Colour) -> None:
    clock = ManualClock()
    client = colour.client(sdk.url, sdk.identity("orchestrator"), clock=clock)
    with client.task(*ASK, heartbeat="10m") as task:
        orders = task.grant("orders-read")
        clock.advance(601)
        with pytest.raises(TaskEnded) as caught:
            orders.dsn()
        assert caught.value.code == "heartbeat_missed"


def test_a_child_ends_with_its_root(sdk: Sdk, client: Any) -> None:
    with client.task(*ASK) as task:
        child = task.child("order-clerk", "read one order", ["orders-read"], heartbeat="1s").open()
        dsn = child.grant("orders-read").dsn().reveal()
        assert child.info.parent_task_id == task.task_id
        with task.child("order-clerk", "read another", ["orders-read"]) as second:
            other = second.grant("orders-read").dsn().reveal()
        assert not logs_in(other)
        assert logs_in(dsn)
    assert not logs_in(dsn)
    with pytest.raises(TaskEnded):
        child.complete()
    assert sdk.shown(child.task_id)["state"] == "cancelled"


def test_an_agent_joins_its_task_and_leaves_it_running(sdk: Sdk, colour: Colour) -> None:
    orchestrator = colour.client(sdk.url, sdk.identity("orchestrator"))
    agent = sdk.identity("report-writer")
    with orchestrator.task(*ASK) as task:
        client = colour.client(sdk.url, agent, task_id=task.task_id)
        with client.join() as joined:
            assert joined.task_id == task.task_id
            dsn = joined.grant("orders-read").dsn().reveal()
        assert logs_in(dsn)
        assert sdk.shown(task.task_id)["state"] == "active"
        with client.join(heartbeat=True, end=True) as joined:
            pass
        assert joined.end.state == "completed"
        assert not logs_in(dsn)
        assert sdk.shown(task.task_id)["state"] == "completed"
    with pytest.raises(InvalidRequest), orchestrator.join():
        pass
    with pytest.raises(TaskEnded) as caught, orchestrator.join(task.task_id):
        pass
    assert caught.value.state == "completed"
