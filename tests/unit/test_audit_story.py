from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.record import cloud_event
from broker.audit.sentences import Stage
from broker.audit.story import read_event, tell
from broker.events import Event
from broker.wire import event_json
from tests.unit.audit_world import ISSUER, START

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


UNTIL: Final = "2027-01-15T08:01:00.000Z"


class Ledger:
    """Writes events as the ledger does: one shard, a second apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(
        self, kind: str, data: Mapping[str, Any], *, task: str = "tsk_1", grant: str = "",
        decision: str = "",
    ) -> None:  # fmt: skip
        at = START + 1000 * len(self.events)
        chain = "tsk_1" if task in ("tsk_1", "tsk_2") else task
        self.events.append(
            Event(f"{at}-07-0", at, kind, task, grant, "writer", dict(data), chain, decision)
        )


def a_whole_life() -> Ledger:
    """A task that gets a credential, calls two tools, is refused a third, and ends."""
    ledger = Ledger()
    emit = ledger.emit
    emit("decision", {"id": "dec_1", "action": "open_task", "effect": "allow", "agent": "writer",
                      "capabilities": "orders-read", "reasons": ""})  # fmt: skip
    emit("task.opened", {"agent": "writer", "purpose": "weekly report",
                         "expires_at": START + 60_000,
                         "capabilities": ["orders-read"]})  # fmt: skip
    emit("decision", {"id": "dec_2", "action": "issue_grant", "effect": "allow",
                      "capability": "orders-read", "intent": "count the orders",
                      "policies": ["read"], "reasons": ""}, grant="grt_1")  # fmt: skip
    emit("grant.reserved", {"capability": "orders-read", "backend": "vault"}, grant="grt_1")
    emit("grant.activated", {"lease": "x", "expires_at": START + 30_000}, grant="grt_1")
    for number in (3, 4):
        emit("decision", {"id": f"dec_{number}", "action": "call_tool", "effect": "allow",
                          "tool": "sum_orders", "effects": ["reads:orders"]},
             decision=f"dec_{number}")  # fmt: skip
    emit("execution", {"decision": "dec_3", "outcome": "success", "duration_ms": 1250,
                       "effects": ["reads:orders"]}, decision="dec_3")  # fmt: skip
    emit("execution.missing", {"decision": "dec_4"}, decision="dec_4")
    emit("decision", {"id": "dec_5", "action": "call_tool", "effect": "deny", "tool": "send_mail",
                      "reasons": "lethal_combination", "policies": ["no-way-out"]},
         decision="dec_5")  # fmt: skip
    emit("task.ended", {"state": "completed", "summary": "done"})
    emit("grant.revoking", {"from": "active", "reason": "task_completed"}, grant="grt_1")
    emit("grant.stuck", {"attempts": 6, "error": "database down"}, grant="grt_1")
    emit("grant.revoked", {"evidence": "lease not found", "time_to_dead_ms": 1500}, grant="grt_1")
    emit("task.closed", {"time_to_dead_ms": 2000})
    return ledger


def test_a_tasks_life_is_told_in_order() -> None:
    story = tell("tsk_1", a_whole_life().events)
    assert (story.task, story.purpose, story.agent) == ("tsk_1", "weekly report", "writer")
    assert [(line.at - START, line.stage, line.text) for line in story.lines] == [
        (0, Stage.INTENT, "wants to open task orders-read"),
        (0, Stage.DECISION, "allow"),
        (
            1000,
            Stage.INTENT,
            'task opened for writer: "weekly report", may use orders-read, until ' + UNTIL,
        ),
        (2000, Stage.INTENT, 'wants to issue grant orders-read: "count the orders"'),
        (2000, Stage.DECISION, "allow (by read)"),
        (3000, Stage.GRANT, "reserved, nothing issued yet: orders-read"),
        (4000, Stage.GRANT, "credential live, until 2027-01-15T08:00:30.000Z"),
        (5000, Stage.INTENT, "wants to call tool sum_orders"),
        (5000, Stage.DECISION, "allow (effects reads:orders)"),
        (6000, Stage.INTENT, "wants to call tool sum_orders"),
        (6000, Stage.DECISION, "allow (effects reads:orders)"),
        (7000, Stage.EXECUTION, "reported: success after 1s250ms, left reads:orders"),
        (8000, Stage.EXECUTION, "never reported what became of it"),
        (9000, Stage.INTENT, "wants to call tool send_mail"),
        (9000, Stage.DECISION, "deny (lethal_combination; by no-way-out)"),
        (10_000, Stage.REVOCATION, 'task completed: "done"'),
        (11_000, Stage.REVOCATION, "revocation begins (task_completed)"),
        (12_000, Stage.REVOCATION, "revocation stuck after 6 attempts (database down)"),
        (13_000, Stage.DEAD, "credential confirmed dead 1s500ms later (lease not found)"),
        (14_000, Stage.DEAD, "everything of it confirmed dead 2s later"),
    ]
    assert story.live == ()
    assert story.unreported == ("dec_4",)


def test_a_line_names_what_it_is_about() -> None:
    story = tell("tsk_1", a_whole_life().events)
    revoked, executed = story.lines[-2], story.lines[11]
    assert (revoked.grant, revoked.principal, revoked.task) == ("grt_1", "writer", "tsk_1")
    assert executed.decision == "dec_3"
    assert story.lines[0].decision == "dec_1"
    assert revoked.as_json() == {
        "time": "2027-01-15T08:00:13.000Z",
        "stage": "dead",
        "text": "credential confirmed dead 1s500ms later (lease not found)",
        "principal": "writer",
        "task": "tsk_1",
        "grant": "grt_1",
        "event": f"{START + 13_000}-07-0",
    }


def test_what_is_still_live_is_said() -> None:
    ledger = a_whole_life()
    for count, live in ((4, ()), (5, ("grt_1",)), (13, ("grt_1",)), (14, ())):
        assert tell("tsk_1", ledger.events[:count]).live == live
    ledger.emit("grant.late", {"lease": "y"}, grant="grt_2")
    assert tell("tsk_1", ledger.events).live == ("grt_2",)
    ledger.emit("grant.failed", {"error": "no"}, grant="grt_2")
    assert tell("tsk_1", ledger.events).live == ()


def from_ledger(event: Event) -> Event:
    return event


def from_log(event: Event) -> dict[str, Any]:
    return cloud_event(event, source=ISSUER)


@pytest.mark.parametrize(
    "form",
    [from_ledger, from_log, event_json],
    ids=["ledger", "log", "api"],
)
def test_the_story_is_the_same_from_ledger_log_and_api(form: Callable[[Event], Any]) -> None:
    events = a_whole_life().events
    given_form = [form(event) for event in events]
    if not isinstance(given_form[0], Event):
        given_form = json.loads(json.dumps(given_form))
    assert tell("tsk_1", given_form) == tell("tsk_1", events)


@given(st.permutations(a_whole_life().events))
def test_events_may_come_in_any_order(events: list[Event]) -> None:
    assert tell("tsk_1", events) == tell("tsk_1", a_whole_life().events)


def test_events_of_one_moment_keep_the_order_of_their_stream() -> None:
    events = [
        Event(f"{START}-07-{number}", START, f"x.{number}", "tsk_1", "", "", {})
        for number in (10, 9, 2)
    ]
    assert [line.text for line in tell("tsk_1", events).lines] == ["x.2", "x.9", "x.10"]


def test_a_roots_story_has_those_below_it_and_no_others() -> None:
    ledger = a_whole_life()
    ledger.emit("task.opened", {"agent": "helper", "purpose": "part"}, task="tsk_2")
    ledger.emit("task.opened", {"agent": "stranger", "purpose": "other"}, task="tsk_3")
    root = tell("tsk_1", ledger.events)
    assert (root.purpose, root.lines[-1].task) == ("weekly report", "tsk_2")
    child = tell("tsk_2", ledger.events)
    assert (child.purpose, child.agent, len(child.lines)) == ("part", "helper", 1)
    nothing = tell("tsk_9", ledger.events)
    assert (nothing.lines, nothing.purpose) == ((), "")
    assert nothing.as_json()["lines"] == []


@pytest.mark.parametrize(
    ("kind", "data", "stage", "text"),
    [
        ("task.refused", {"reason": "frozen"}, Stage.DECISION, "task refused (frozen)"),
        ("grant.failed", {"error": "no"}, Stage.GRANT, "not issued (no)"),
        ("grant.activated", {}, Stage.GRANT, "credential live"),
        ("task.opened", {"capabilities": {}}, Stage.INTENT, "task opened for ?"),
        ("task.ended", {}, Stage.REVOCATION, "task ended"),
        ("execution", {"outcome": "error", "error_type": "timeout"}, Stage.EXECUTION,
         "reported: error (timeout)"),
        ("signal.set", {"selector": "agent:x", "verdict": "compromised", "reason": "seen"},
         Stage.NOTE, "signal on agent:x compromised (seen)"),
        ("odd.event", {"handle": "h", "backend": "vault"}, Stage.NOTE,
         'odd.event {"backend":"vault","handle":"h"}'),
        ("handle.drop", {"handle": "h", "backend": "vault"}, Stage.DEAD,
         "its token is confirmed dead at vault"),
        ("approval.requested", {"action": "call_tool", "capability": "mail"}, Stage.DECISION,
         "a human is asked: call tool mail"),
        ("approval.voted", {"vote": "yes", "reason": "ticket 7"}, Stage.DECISION,
         'a human says yes: "ticket 7"'),
        ("of.a.kind.yet.to.come", {}, Stage.NOTE, "of.a.kind.yet.to.come"),
    ],
    ids=range(12),
)  # fmt: skip
def test_every_event_says_something(kind: str, data: Any, stage: Stage, text: str) -> None:
    ledger = Ledger()
    ledger.emit(kind, data)
    (line,) = tell("tsk_1", ledger.events).lines
    assert (line.stage, line.text) == (stage, text)


def test_what_callers_wrote_stays_in_its_quotes() -> None:
    ledger = Ledger()
    ledger.emit("task.ended", {"state": "failed", "summary": 'x"\n\x1b[2J fine'})
    (line,) = tell("tsk_1", ledger.events).lines
    assert line.text == r'task failed: "x\"\n\u001b[2J fine"'


@pytest.mark.parametrize("row", [{}, {"id": "1"}, {"id": "1", "time": "noon", "type": "x"}])
def test_what_is_no_event_is_not_read_as_one(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not an event"):
        read_event(row)
