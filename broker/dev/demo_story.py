"""The demo's steps: each plays its part over HTTP, and checks what it claims."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.client import BrokerClientError, Secret
from broker.clock import SystemClock
from broker.dev.demo_broker import DemoFailed
from broker.dev.demo_database import Attempts, Session, refusal, role_exists, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.client import AuditEvent, Client, Grant, IssuedGrant, Task
    from broker.dev.demo_broker import DemoBroker

_COUNT: Final = "SELECT count(*) FROM orders"
_ORDERS: Final = 200
_PATIENCE_S: Final = 20.0
_PAUSE_S: Final = 0.02
_SHORT: Final = "3s"

_clock = SystemClock()


class Screen(Protocol):
    """Where the demo tells what happens."""

    def step(self, title: str) -> None:
        """Start the next step."""

    def say(self, text: str) -> None:
        """Tell something."""

    def facts(self, pairs: dict[str, str]) -> None:
        """Show names and values."""

    def part(self, text: str, *, last: bool = False) -> None:
        """Show a part of a line, at once."""

    def passed(self, claim: str) -> None:
        """Show a claim that was checked and is true."""

    def log(self, events: Sequence[AuditEvent]) -> None:
        """Show audit events."""


@dataclass(slots=True)
class Story:
    """What the steps share."""

    broker: DemoBroker
    screen: Screen
    claims: int = 0

    def check(self, claim: str, *, expected: object, found: object) -> None:
        """Show that a claim is true.

        Raises:
            DemoFailed: it isn't.
        """
        if expected != found:
            raise DemoFailed(claim, expected=expected, found=found)
        self.claims += 1
        self.screen.passed(claim)

    @property
    def orchestrator(self) -> Client:
        """Whoever opens and ends tasks."""
        return self.broker.client("orchestrator")

    @property
    def operator(self) -> Client:
        """Whoever watches, revokes and freezes."""
        return self.broker.client("operator")

    def open(self, agent: str, purpose: str, *capabilities: str) -> Task:
        """Open a task."""
        return self.orchestrator.open_task(agent, purpose, capabilities, ttl="10m")

    def issue(self, task: Task, capability: str, ttl: str | None = None) -> IssuedGrant:
        """Get a credential as the task's agent."""
        agent = self.broker.client(task.agent, task.task_id)
        return agent.request_grant(task.task_id, capability, ttl=ttl, intent=task.purpose)

    def dead(self, grant_id: str) -> Grant:
        """Wait until the ledger says that a grant is confirmed dead, or can't be for now."""
        operator, until = self.operator, _clock.monotonic() + _PATIENCE_S
        pause = threading.Event()
        while True:
            grant = operator.get_grant(grant_id)
            if grant.state == "revoked" or _clock.monotonic() > until:
                return grant
            pause.wait(_PAUSE_S)


def whole_life(story: Story) -> tuple[Task, IssuedGrant]:
    """A task is opened, a credential issued, used, and dead when the task ends."""
    screen = story.screen
    screen.step("An orchestrator opens a task for an agent")
    task = story.open("report-writer", "the weekly orders report", "orders-read", "orders-api")
    screen.facts({"task": task.task_id, "agent": task.agent, "purpose": task.purpose})
    story.check("the task is active", expected="active", found=task.state)

    screen.step("The agent proves who it is, and gets a credential for this task")
    issued = story.issue(task, "orders-read")
    username, dsn = issued.credential.username or "", _dsn(issued)
    screen.facts({"username": username, "password": "(not shown)"})
    exists = role_exists(story.broker.admin_dsn, username)
    story.check("PostgreSQL has a new role of this name", expected=True, found=exists)

    screen.step("The credential works")
    story.check("PostgreSQL lets it in", expected=None, found=refusal(dsn))
    with Session(dsn) as session:
        rows = session.number(_COUNT)
        story.check(f"{_COUNT}: {rows} rows", expected=_ORDERS, found=rows)
        screen.say("The agent keeps this session open.")
        _end(story, task, issued, session)
    return task, issued


def _end(story: Story, task: Task, issued: IssuedGrant, session: Session) -> None:
    """Complete the task, and look at the credential from every side."""
    screen, dsn = story.screen, _dsn(issued)
    screen.step("The task is completed, so its credential must die")
    with Attempts(dsn) as attempts:
        asked = _clock.monotonic()
        end = story.orchestrator.complete(task.task_id, summary="report sent")
        confirmed = _clock.monotonic()
        refused = attempts.refused_at(_PATIENCE_S)
    if refused is None:
        raise DemoFailed(
            "PostgreSQL refuses the login", expected="a refusal", found=f"none in {_PATIENCE_S} s"
        )
    story.check(
        "the broker answers: revoked, and confirmed dead",
        expected=("completed", 1, 0),
        found=(end.state, end.grants.revoked, end.grants.revoking),
    )
    why = refusal(dsn)
    story.check("PostgreSQL refuses the same login", expected=True, found=why is not None)
    screen.say(why or "")
    why = session.end()
    story.check("the session that was open is gone", expected=True, found=why is not None)
    screen.say(why or "")
    exists = role_exists(story.broker.admin_dsn, issued.credential.username or "")
    story.check("the role is gone from PostgreSQL", expected=False, found=exists)
    grant = story.operator.get_grant(issued.grant_id)
    story.check("the ledger says so, too", expected="revoked", found=grant.state)
    screen.facts(
        {
            "asked → login refused": f"{(refused - asked) * 1000:.0f} ms",
            "asked → confirmed dead": f"{(confirmed - asked) * 1000:.0f} ms as seen from here, "
            f"{grant.time_to_dead_ms} ms inside the broker",
        }
    )


def dies_by_itself(story: Story) -> None:
    """A credential's time is up, and nobody has to do anything."""
    screen = story.screen
    screen.step(f"A credential for {_SHORT.replace('s', ' seconds')} dies by itself")
    task = story.open("report-writer", "a quick look", "orders-read")
    issued = story.issue(task, "orders-read", ttl=_SHORT)
    expiry = issued.expires_at.timestamp() if issued.expires_at else 0.0
    screen.part("it logs in, with")
    why = watch(_dsn(issued), expiry + _PATIENCE_S, _countdown(screen, expiry))
    late = _clock.now() - expiry
    screen.part("and is refused." if why else "and is never refused.", last=True)
    story.check("PostgreSQL refuses it now", expected=True, found=why is not None)
    early = "at its expiry, not before" if late > 0 else f"{-late:.3f} s early"
    story.check("not before its time", expected="at its expiry, not before", found=early)
    grant = story.dead(issued.grant_id)
    story.check("the ledger has it confirmed dead", expected="revoked", found=grant.state)
    dead = (grant.ended_at.timestamp() if grant.ended_at else 0.0) - expiry
    screen.facts({"reason": grant.reason or "", "dead after its expiry": f"{dead * 1000:.0f} ms"})
    story.orchestrator.complete(task.task_id)


def _countdown(screen: Screen, expiry: float) -> Callable[[], None]:
    """Show each whole second that is left, once."""
    shown: set[int] = set()

    def tick() -> None:
        left = math.ceil(expiry - _clock.now())
        if left > 0 and left not in shown:
            shown.add(left)
            screen.part(f"{left} s left,")

    return tick


def token(story: Story) -> None:
    """The same for a token, which a resource server asks the broker about."""
    screen = story.screen
    screen.step("The same for an API token, which its resource server can ask about")
    task = story.open("report-writer", "orders over the API", "orders-api")
    issued = story.issue(task, "orders-api")
    value = issued.credential.token or Secret("")
    resource_server = story.broker.client("orders-service")
    answer = resource_server.introspect(value)
    screen.facts(
        {"audience": str(answer.get("aud")), "scope": str(answer.get("scope")), "token": "(hidden)"}
    )
    story.check("the orders service sees it active", expected=True, found=answer.get("active"))
    story.orchestrator.complete(task.task_id)
    answer = resource_server.introspect(value)
    story.check("its task ends: it is inactive", expected={"active": False}, found=answer)


def crash(story: Story) -> None:
    """Everything is killed with a credential live; nothing is forgotten."""
    screen, broker = story.screen, story.broker
    screen.step("Everything is killed (kill -9) while a credential is live")
    task = story.open("report-writer", "a report with a crash in it", "orders-read")
    issued = story.issue(task, "orders-read")
    dsn = _dsn(issued)
    broker.kill()
    screen.say("The broker, its ledger, OpenBao and PostgreSQL are gone. Starting them again.")
    broker.start()
    grant = story.operator.get_grant(issued.grant_id)
    story.check("the ledger still has the grant", expected="active", found=grant.state)
    story.check("and the credential still works", expected=None, found=refusal(dsn))
    end = story.orchestrator.complete(task.task_id, "failed", summary="crashed")
    story.check("its task is ended: revoked", expected=1, found=end.grants.revoked)
    story.check("PostgreSQL refuses it", expected=True, found=refusal(dsn) is not None)


def tool_calls(story: Story) -> None:
    """Each call is decided on what the whole chain has done before."""
    screen = story.screen
    screen.step("Before each tool call the agent asks; the chain is judged as a whole")
    tools = ("customer-lookup", "fetch-page", "send-email")
    lead = story.open("report-writer", "answer a customer", *tools)
    child = story.orchestrator.open_task(
        "order-clerk", "read what they link to", ["fetch-page"], parent_task_id=lead.task_id
    )
    mail = {"to": ["c@example.com"], "subject": "Your order"}
    calls: tuple[tuple[str, Task, str, dict[str, Any], bool], ...] = (
        ("mail may go out while nothing private was read", lead, "send-email", mail, True),
        ("private data may be read", lead, "customer-lookup", {"customer": "c-7"}, True),
        ("a child may take in a page", child, "fetch-page", {"url": "https://x.example/"}, True),
        ("now its parent may send nothing out unapproved", lead, "send-email", mail, False),
        ("an argument nobody declared is refused", child, "fetch-page", {"uri": "x"}, False),
    )
    for claim, task, tool, arguments, expected in calls:
        agent = story.broker.client(task.agent, task.task_id)
        answer = agent.check_tool_call(task.task_id, tool, arguments)
        story.check(claim, expected=expected, found=answer.decision)
        if answer.decision:
            agent.report_execution(task.task_id, answer.decision_id, "succeeded")
        else:
            said = answer.context.get("advice") or answer.context["reason_user"].values()
            screen.say(" ".join(said))
    story.orchestrator.complete(lead.task_id)


def signed_log(story: Story) -> None:
    """What was written is signed, and verified without the broker."""
    screen = story.screen
    screen.step("All of it is in a log that can't be changed quietly")
    report, spoilt = story.broker.verify_log()
    screen.say(report)
    claim = "nothing in it was changed, by its signed checkpoints"
    story.check(claim, expected=True, found=bool(report))
    story.check("and one changed byte is found", expected=True, found=spoilt)


def revoke_all(story: Story) -> None:
    """An operator stops everything, and lets it go on again."""
    screen, operator = story.screen, story.operator
    screen.step("An operator revokes everything, and freezes issuing")
    reader = story.open("report-writer", "three reports at once", "orders-read", "orders-api")
    clerk = story.open("order-clerk", "correct an order", "orders-read", "orders-write")
    asks = [(reader, "orders-read")] * 3 + [(clerk, "orders-read"), (clerk, "orders-write")]
    live = [story.issue(task, capability) for task, capability in asks]
    working = [refusal(_dsn(issued)) for issued in live].count(None)
    story.check(f"{working} credentials of two agents work", expected=len(live), found=working)
    asked = _clock.monotonic()
    done = operator.revoke({"all": True}, "a drill", freeze=True)
    took = (_clock.monotonic() - asked) * 1000
    story.check(
        f"all {done.revoked} are revoked and confirmed dead, in {took:.0f} ms",
        expected=(len(live), len(live), 0),
        found=(done.matched, done.revoked, done.revoking),
    )
    working = [refusal(_dsn(issued)) for issued in live].count(None)
    story.check("PostgreSQL refuses every one", expected=0, found=working)
    code, words = _refused(lambda: story.open("report-writer", "go on", "orders-read"))
    story.check("the next request is refused", expected="frozen", found=code)
    screen.say(words)
    operator.thaw({"all": True}, "the drill is over")
    task = story.open("report-writer", "go on", "orders-read")
    story.issue(task, "orders-read")
    end = story.orchestrator.complete(task.task_id)
    story.check("after a thaw the broker issues again", expected=1, found=end.grants.revoked)
    left = [grant for state in ("active", "revoking", "stuck") for grant in _grants(story, state)]
    story.check("nothing is live any more", expected=[], found=left)


def audit(story: Story, first: tuple[Task, IssuedGrant]) -> None:
    """The log of the first task, in order."""
    task, issued = first
    screen = story.screen
    screen.step("The log tells the story of the first task")
    events = list(story.operator.iter_audit_events(task_id=task.task_id))
    screen.log(events)
    wanted = ["task.opened", "grant.reserved", "grant.activated", "task.ended"]
    wanted += ["grant.revoking", "grant.revoked", "task.closed"]
    found = [event.type for event in events if event.type in wanted]
    story.check("every step is there, in order", expected=wanted, found=found)
    text = json.dumps([event.data for event in events], default=str)
    password = (issued.credential.password or Secret("")).reveal()
    story.check("and the password is not in it", expected=False, found=password in text)


def _dsn(issued: IssuedGrant) -> str:
    return (issued.credential.dsn or Secret("")).reveal()


def _grants(story: Story, state: str) -> list[str]:
    return [grant.grant_id for grant in story.operator.iter_grants(state=state)]


def _refused(call: Callable[[], object]) -> tuple[str, str]:
    """Make a call that should be refused; return the code and the words."""
    try:
        call()
    except BrokerClientError as error:
        return error.code, error.detail
    return "accepted", ""
