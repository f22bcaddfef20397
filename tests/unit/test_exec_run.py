"""``broker exec`` as a process, against a real HTTP server that answers as the broker does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from broker.clock import SystemClock
from tests.unit.cli_runner import PROGRAM
from tests.unit.fake_broker import GRANT, TASK, FakeBroker, problem
from tests.unit.fake_broker import ISSUED as LONG_AGO

if TYPE_CHECKING:
    from pathlib import Path

TASK_ID, GRANT_ID = TASK["task_id"], GRANT["grant_id"]
FAR = "2099-01-02T03:04:05Z"
ISSUED: dict[str, Any] = {**LONG_AGO, "expires_at": FAR}
LIVE = {**GRANT, "state": "active", "expires_at": FAR}
ORDER = ("--agent", "report-writer", "--purpose", "count", "--capability", "orders-read")


def opening(fake: FakeBroker, **task: Any) -> FakeBroker:
    """It opens a task, issues, and has all of it dead at its end."""
    fake.on("POST /v1/tasks", 201, {**TASK, "notes": [], **task})
    fake.on(f"POST /v1/tasks/{TASK_ID}/grants", 201, ISSUED)
    fake.on(f"POST /v1/tasks/{TASK_ID}/heartbeat", 200, TASK)
    fake.on(f"GET /v1/grants/{GRANT_ID}", 200, LIVE)
    fake.on(f"GET /v1/tasks/{TASK_ID}", 200, {**TASK, "state": "revoked", "reason": "operator"})
    fake.on(f"POST /v1/tasks/{TASK_ID}/complete", 200, {"state": "completed"})
    return fake


def dead(fake: FakeBroker) -> None:
    fake.on("GET /v1/grants", 200, {"items": [{**GRANT, "state": "revoked"}], "next": None})


class Exec:
    """One ``broker exec``, from its start."""

    def __init__(self, *words: str, order: tuple[str, ...] = ORDER, **env: str) -> None:
        command = [sys.executable, "-W", "error", "-c", PROGRAM, "exec", *order, *words]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        self.err = ""

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def code(self) -> int:
        rest, self.err = self.process.communicate(timeout=60)
        assert "Traceback" not in self.err, self.err
        assert rest == "", rest
        return self.process.returncode


def python(code: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-u", "-c", code)


def ended(fake: FakeBroker) -> Any:
    (request,) = [seen for seen in fake.seen if seen.path.endswith("/complete")]
    return request.json


@pytest.mark.parametrize(
    ("code", "outcome", "summary"),
    [
        ("import sys; sys.exit(0)", "completed", "exit code 0"),
        ("import sys; sys.exit(7)", "failed", "exit code 7"),
        ("import os; os.kill(os.getpid(), 9)", "failed", "killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 15)", "cancelled", "killed by SIGTERM"),
    ],
)
def test_the_exit_code_and_the_outcome(
    fake: FakeBroker, code: str, outcome: str, summary: str
) -> None:
    dead(opening(fake))
    ran = Exec(*python(code))
    expected = {"exit code 0": 0, "exit code 7": 7, "killed by SIGKILL": 137}.get(summary, 143)
    assert ran.code() == expected
    assert ran.err == ""
    assert ended(fake) == {"outcome": outcome, "summary": summary}
    opened = fake.seen[0].json
    assert (opened["heartbeat"], opened["purpose"]) == ("30s", "count")
    assert fake.seen[1].json == {"capability": "orders-read", "intent": "count"}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_to_us_alone_reaches_the_child_once(fake: FakeBroker, name: str) -> None:
    dead(opening(fake))
    child = f"""
import signal
blocked = {{signal.{name}, signal.SIGALRM}}
assert signal.pthread_sigmask(signal.SIG_BLOCK, blocked) == set(), "our mask came with it"
print("ready")
signal.sigwait({{signal.{name}}})
print("got it", signal.sigtimedwait({{signal.{name}}}, 0.3))
signal.raise_signal(signal.SIGKILL) if "{name}".startswith("SIGUSR") else None
signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
signal.signal(signal.{name}, signal.SIG_DFL)
signal.raise_signal(signal.{name})
"""
    ran = Exec(*python(child))
    assert ran.line() == "ready"
    number = signal.Signals[name]
    ran.process.send_signal(number)
    assert ran.line() == "got it None"
    ending = not name.startswith("SIGUSR")
    assert ran.code() == 128 + (number if ending else 9)
    assert ended(fake)["outcome"] == ("cancelled" if ending else "failed")


def test_what_is_ignored_here_is_ignored_there(fake: FakeBroker) -> None:
    dead(opening(fake))
    child = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN); input()"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        ran = Exec(*python(child.replace("input()", "import sys; sys.exit(3)")))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ran.line() == "True"
    assert ran.code() == 3


def test_interrupted_before_it_began_nothing_is_left(fake: FakeBroker) -> None:
    opening(fake)
    pending: dict[str, Any] = {
        "approval_id": "apr_1",
        "state": "pending",
        "needs": [],
        "task_id": TASK_ID,
    }
    fake.answers[f"POST /v1/tasks/{TASK_ID}/grants"].clear()
    fake.on(f"POST /v1/tasks/{TASK_ID}/grants", 202, pending)
    fake.on("GET /v1/approvals/apr_1", 200, {**pending, "expires_at": "2099-01-01T00:00:00Z"})
    dead(fake)
    ran = Exec("--wait", "1m", *python("print('never')"))
    assert ran.process.stderr is not None
    assert "waiting for approval apr_1" in ran.process.stderr.readline()
    ran.process.send_signal(signal.SIGTERM)
    assert ran.code() == 143
    assert ended(fake) == {"outcome": "cancelled", "summary": "interrupted"}


def test_a_human_says_yes_and_the_task_is_kept_alive_meanwhile(fake: FakeBroker) -> None:
    opening(fake, heartbeat="1s")
    pending: dict[str, Any] = {
        "approval_id": "apr_1",
        "state": "pending",
        "needs": [],
        "task_id": TASK_ID,
    }
    grants = fake.answers[f"POST /v1/tasks/{TASK_ID}/grants"]
    grants.clear()
    fake.on(f"POST /v1/tasks/{TASK_ID}/grants", 202, pending)
    fake.on(f"POST /v1/tasks/{TASK_ID}/grants", 201, ISSUED)
    for _ in range(4):
        fake.on("GET /v1/approvals/apr_1", 200, pending)
    fake.on("GET /v1/approvals/apr_1", 200, {**pending, "state": "approved"})
    dead(fake)
    ran = Exec("--wait", "1m", *python("import os; print(os.environ['PGUSER'])"))
    assert ran.line() == "v-orders"
    assert ran.code() == 0
    asked = [seen.path.rpartition("/")[2] for seen in fake.seen if seen.method == "POST"]
    assert asked[:3] == ["tasks", "grants", "heartbeat"]
    first, second = [r for r in fake.seen if r.path.endswith("/grants") and r.method == "POST"]
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("status", "document", "says"),
    [
        (403, {"code": "access_denied", "detail": "too much", "advice": ["ask less"]}, "too much"),
        (202, {"approval_id": "apr_1", "state": "pending"}, "apr_1"),
        (503, {"code": "unavailable", "detail": "no ledger"}, "no ledger"),
    ],
)
def test_refused_it_says_why_and_ends_the_task(
    fake: FakeBroker, status: int, document: dict[str, Any], says: str
) -> None:
    dead(opening(fake))
    fake.answers[f"POST /v1/tasks/{TASK_ID}/grants"].clear()
    fake.on(f"POST /v1/tasks/{TASK_ID}/grants", status, document)
    ran = Exec(*python("print('never')"))
    assert ran.code() == 125
    assert says in ran.err
    assert ended(fake) == {"outcome": "failed", "summary": "the command was not started"}


def test_a_member_that_is_not_there_is_found_after_and_all_is_ended(fake: FakeBroker) -> None:
    dead(opening(fake))
    ran = Exec("--env", "A={{passwort}}", *python("print('never')"))
    assert ran.code() == 125
    assert "has no 'passwort'" in ran.err
    assert ISSUED["credential"]["password"] not in ran.err
    assert ended(fake)["outcome"] == "failed"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--env", "A={{b.c}}", "--", "true"), 125),
        (("--capability", "orders-read", "--", "true"), 125),
        (("--task", "tsk_1", "--", "true"), 125),
        (("--ttl", "soon", "--", "true"), 125),
        (("--nonsense", "--", "true"), 125),
        (("--pass-env", "NOT_SET", "--", "true"), 125),
        (("--workdir", "/nowhere", "--", "true"), 125),
        ((), 125),
        (("--", "no-such-command"), 127),
        (("--", "/no/such/command"), 127),
        (("--", "/etc/passwd"), 126),
        (("--", "/etc"), 126),
    ],
)
def test_what_can_be_refused_before_anything_is_asked_for_is(
    fake: FakeBroker, words: tuple[str, ...], code: int
) -> None:
    ran = Exec(*words)
    assert ran.code() == code
    assert ran.err
    assert fake.seen == []


def test_what_cannot_be_executed_after_all(fake: FakeBroker, tmp_path: Path) -> None:
    dead(opening(fake))
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    ran = Exec("--", str(program))
    assert ran.code() == 126
    assert ended(fake)["outcome"] == "failed"


@pytest.mark.parametrize(
    ("state", "more", "code", "says"),
    [
        ("revoking", {}, 124, "not confirmed dead: revoking"),
        ("stuck", {}, 124, "not confirmed dead: stuck"),
        ("abandoned", {}, 124, "not confirmed dead: abandoned"),
        ("abandoned", {"revocability": "never"}, 3, "can't be revoked"),
        (
            "revoking",
            {"revocability": "ttl_only", "ends_by_itself_at": "2030-01-02T03:04:05Z"},
            3,
            "it may live until 2030-01-02 03:04:05Z",
        ),
    ],
)
def test_what_is_not_confirmed_dead_is_said(
    fake: FakeBroker, state: str, more: dict[str, str], code: int, says: str
) -> None:
    opening(fake).on(
        "GET /v1/grants", 200, {"items": [{**GRANT, "state": state, **more}], "next": None}
    )
    ran = Exec("--confirm", "1s", *python("import sys; sys.exit(3)"))
    assert ran.code() == code
    assert says in ran.err
    assert ("the command's own end: exit code 3" in ran.err) is (code == 124)


def test_it_waits_until_the_last_is_dead(fake: FakeBroker) -> None:
    opening(fake)
    for state in ("revoking", "revoking", "revoked"):
        fake.on("GET /v1/grants", 200, {"items": [{**GRANT, "state": state}], "next": None})
    assert Exec(*python("")).code() == 0
    assert len([seen for seen in fake.seen if seen.path == "/v1/grants"]) == 3


def test_a_broker_that_is_gone_at_the_end_is_asked_again_and_then_said(fake: FakeBroker) -> None:
    opening(fake)
    fake.answers[f"POST /v1/tasks/{TASK_ID}/complete"].clear()
    fake.answers[f"POST /v1/tasks/{TASK_ID}/complete"].append(problem(503, "unavailable", "down"))
    ran = Exec("--confirm", "2s", *python(""))
    assert ran.code() == 124
    assert "not confirmed dead: down" in ran.err
    assert len([seen for seen in fake.seen if seen.path.endswith("/complete")]) > 1


@pytest.mark.parametrize(("policy", "code"), [("terminate", 123), ("keep", 0)])
def test_revoked_meanwhile(fake: FakeBroker, policy: str, code: int) -> None:
    dead(opening(fake, heartbeat="1s"))
    beats = fake.answers[f"POST /v1/tasks/{TASK_ID}/heartbeat"]
    beats.clear()
    beats.append(problem(409, "task_not_active", "It has ended."))
    child = "import time; print('ready'); time.sleep(30)"
    if policy == "keep":
        child = "import time; print('ready'); time.sleep(2)"
    ran = Exec("--on-revoked", policy, *python(child))
    assert ran.line() == "ready"
    assert ran.code() == code
    what = {"terminate": "the command is told to end", "keep": "the command goes on without"}
    assert f"its task was ended: revoked (operator); {what[policy]}" in ran.err


def test_who_does_not_end_is_killed(fake: FakeBroker) -> None:
    dead(opening(fake, heartbeat="1s"))
    fake.answers[f"GET /v1/grants/{GRANT_ID}"].clear()
    fake.on(f"GET /v1/grants/{GRANT_ID}", 200, {**GRANT, "reason": "operator_request"})
    child = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("no"))
print("ready")
while True: time.sleep(30)
"""
    ran = Exec("--grace", "200ms", *python(child))
    assert [ran.line(), ran.line()] == ["ready", "no"]
    assert ran.code() == 123
    assert "its credential of orders-read was revoked: operator request" in ran.err


def test_a_credential_is_renewed_and_its_end_is_said_when_it_cannot_be(fake: FakeBroker) -> None:
    def in_s(seconds: float) -> str:
        return datetime.fromtimestamp(SystemClock().now() + seconds, UTC).isoformat()

    opening(fake, heartbeat="1s")
    issued = fake.answers[f"POST /v1/tasks/{TASK_ID}/grants"]
    issued.clear()
    fake.on(f"POST /v1/tasks/{TASK_ID}/grants", 201, {**ISSUED, "expires_at": in_s(1)})
    renewed = {**LIVE, "expires_at": in_s(2)}
    fake.on(f"POST /v1/grants/{GRANT_ID}/renew", 200, renewed)
    refusal = problem(409, "not_renewable", "It lives as long as it may.")
    fake.answers[f"POST /v1/grants/{GRANT_ID}/renew"].append(refusal)
    fake.answers[f"GET /v1/grants/{GRANT_ID}"].clear()
    fake.on(f"GET /v1/grants/{GRANT_ID}", 200, renewed)
    dead(fake)
    ran = Exec(*python("print('ready'); import time; time.sleep(3)"))
    assert ran.line() == "ready"
    assert ran.code() == 0
    assert len([seen for seen in fake.seen if seen.path.endswith("/renew")]) == 2
    assert "can't live longer than it does" in ran.err


class TestUnderATaskThatGoesOn:
    order = ("--task", TASK_ID, "--capability", "orders-read")

    @pytest.fixture
    def there(self, fake: FakeBroker) -> FakeBroker:
        fake.on(f"GET /v1/tasks/{TASK_ID}", 200, {**TASK, "notes": []})
        fake.on(f"POST /v1/tasks/{TASK_ID}/grants", 201, ISSUED)
        fake.on(f"POST /v1/tasks/{TASK_ID}/heartbeat", 200, TASK)
        fake.on(f"DELETE /v1/grants/{GRANT_ID}", 200, GRANT)
        fake.on(f"GET /v1/grants/{GRANT_ID}", 200, GRANT)
        return fake

    def test_only_its_own_credentials_end(self, there: FakeBroker) -> None:
        ran = Exec(*python("import sys; sys.exit(5)"), order=self.order)
        assert ran.code() == 5
        asked = [f"{seen.method} {seen.path}" for seen in there.seen]
        assert f"DELETE /v1/grants/{GRANT_ID}" in asked
        assert not [path for path in asked if path.endswith("/complete")]
        (request,) = [seen for seen in there.seen if seen.path.endswith("/grants")]
        assert request.json["intent"].startswith("run python")

    def test_the_task_of_the_environment(self, there: FakeBroker) -> None:
        ran = Exec(*python(""), order=("--capability", "orders-read"), BROKER_TASK_ID=TASK_ID)
        assert ran.code() == 0
        assert TASK_ID in there.exchanges[0].form["authorization_details"][0]

    def test_an_answer_that_was_lost_is_looked_for(self, there: FakeBroker) -> None:
        grants = there.answers[f"POST /v1/tasks/{TASK_ID}/grants"]
        grants.clear()
        grants.append(problem(503, "unavailable", "Nobody knows."))
        lost = problem(409, "credential_already_delivered", "Lost.", grant_id=GRANT_ID)
        grants.append(lost)
        ran = Exec(*python("print('never')"), order=self.order)
        assert ran.code() == 125
        assert f"/v1/grants/{GRANT_ID}" in [s.path for s in there.seen if s.method == "DELETE"]

    def test_of_another_agent(self, there: FakeBroker) -> None:
        ran = Exec(*python(""), order=(*self.order, "--agent", "order-clerk"))
        assert ran.code() == 125
        assert "is of report-writer" in ran.err
        assert {seen.method for seen in there.seen} == {"GET"}


def test_errors_can_be_read_by_programs(fake: FakeBroker) -> None:
    fake.on("POST /v1/tasks", 403, {"code": "frozen", "detail": "no"})
    ran = Exec("--json", *python(""))
    assert ran.code() == 125
    assert json.loads(ran.err)["error"]["code"] == "frozen"
