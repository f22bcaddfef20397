"""The commands, against a real HTTP server that answers as the broker does."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from broker.cli import failures
from tests.unit.cli_runner import PROGRAM
from tests.unit.fake_broker import (
    DSN,
    EVENT,
    GRANT,
    ISSUED,
    PASSWORD,
    TASK,
    FakeBroker,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli_runner import Run

TASK_ID = TASK["task_id"]
GRANT_ID = GRANT["grant_id"]


OPEN = ("task", "open", "--agent", "report-writer", "--purpose", "nightly", "--capability", "a")


def test_open_a_task(fake: FakeBroker, run: Run, tmp_path: Path) -> None:
    fake.on("POST /v1/tasks", 201, TASK)
    person = tmp_path / "person"
    person.write_text("person.jwt")
    more = ("--capability", "b", "--ttl", "1h30m", "--context", "k=v=w", "--heartbeat", "30s")
    ran = run(*OPEN, *more, "--parent", "tsk_0", "--on-behalf-of", str(person))
    assert ran.code == 0
    assert fake.last.json == {
        "agent": "report-writer",
        "purpose": "nightly",
        "capabilities": ["a", "b"],
        "ttl": "1h30m",
        "parent_task_id": "tsk_0",
        "on_behalf_of": "person.jwt",
        "context": {"k": "v=w"},
        "heartbeat": "30s",
    }
    assert TASK_ID in ran.out
    assert "2026-01-02 04:04:05Z (" in ran.out
    assert "note: ttl clamped from 2h to 1h" in ran.err


def test_json_is_one_document(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/tasks", 201, TASK)
    ran = run(*OPEN, "--json")
    assert ran.json["task_id"] == TASK_ID
    assert ran.json["expires_at"] == TASK["expires_at"]
    assert ran.err == ""


def test_list_reads_as_many_pages_as_asked_for(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/tasks", 200, {"items": [TASK] * 2, "next": "c1"})
    fake.on("GET /v1/tasks", 200, {"items": [TASK], "next": "c2"})
    ran = run("task", "list", "--state", "active", "--agent", "a", "--limit", "3", "--json")
    assert (len(ran.json["items"]), ran.json["next"]) == (3, "c2")
    assert [r.query["limit"] for r in fake.seen] == ["3", "1"]
    assert fake.last.query["cursor"] == "c1"
    ran = run("task", "list", "--limit", "1", "--cursor", "c1")
    assert "--cursor c2" in ran.err
    assert run("task", "list", "--limit", "0").code == 2


def test_an_empty_list_says_so(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/tasks", 200, {"items": [], "next": None})
    assert run("task", "list") == (0, "", "No tasks.\n")
    assert run("task", "list", "--json").json == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("verb", "outcome"), [("complete", "completed"), ("fail", "failed"), ("cancel", "cancelled")]
)
def test_end_a_task(fake: FakeBroker, run: Run, verb: str, outcome: str) -> None:
    answer = {"state": outcome, "grants": {"revoked": 1, "revoking": 2, "abandoned": 3}}
    fake.on(f"POST /v1/tasks/{TASK_ID}/complete", 200, answer)
    ran = run("task", verb, TASK_ID, "--summary", "so it goes")
    assert ran.out == f"{TASK_ID}: {outcome}, 1 grant revoked\n"
    assert "2 grants not yet confirmed dead" in ran.err
    assert "3 grants given up, never confirmed dead" in ran.err
    assert fake.last.json == {"outcome": outcome, "summary": "so it goes"}
    assert run("task", verb, TASK_ID, "--json").json == answer


def test_show_and_heartbeat_as_an_agent(fake: FakeBroker, run: Run) -> None:
    fake.on(f"GET /v1/tasks/{TASK_ID}", 200, TASK)
    fake.on(f"POST /v1/tasks/{TASK_ID}/heartbeat", 200, TASK)
    assert "nightly report" in run("task", "show", TASK_ID, "--as-task", TASK_ID).out
    assert TASK_ID in fake.exchanges[0].form["authorization_details"][0]
    assert "active, next heartbeat due -" in run("task", "heartbeat", TASK_ID).out
    assert "authorization_details" not in fake.exchanges[1].form


REQUEST = ("grant", "request", "tsk_1", "orders-read")


@pytest.fixture
def issuing(fake: FakeBroker) -> FakeBroker:
    fake.on("POST /v1/tasks/tsk_1/grants", 201, ISSUED)
    return fake


def test_a_credential_is_printed_once_for_a_person(issuing: FakeBroker, run: Run) -> None:
    ran = run(*REQUEST, "--ttl", "5m", "--parameter", "k=v", "--intent", "count")
    assert f"dsn       {DSN}\n" in ran.out
    assert "isn't shown again" in ran.err
    assert PASSWORD not in ran.err
    assert issuing.last.json["parameters"] == {"k": "v"}


def test_a_credential_for_a_script(issuing: FakeBroker, run: Run) -> None:
    assert run(*REQUEST, "--json").json["credential"] == ISSUED["credential"]
    assert run(*REQUEST, "--field", "dsn") == (0, f"{DSN}\n", "")
    ran = run(*REQUEST, "--env")
    script = ran.out + 'printf %s "$BROKER_CREDENTIAL_PASSWORD $BROKER_GRANT_ID"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == f"{PASSWORD} {GRANT_ID}"


def test_a_member_that_is_not_there(issuing: FakeBroker, run: Run) -> None:
    ran = run(*REQUEST, "--field", "token")
    assert (ran.code, ran.out) == (1, "")
    assert GRANT_ID in ran.err
    assert "dsn" in ran.err
    assert PASSWORD not in ran.err


def test_only_one_form_of_a_credential_is_printed(issuing: FakeBroker, run: Run) -> None:
    assert run(*REQUEST, "--env", "--json").code == 2
    assert not issuing.seen


def test_approval_is_its_own_exit_code(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/tasks/tsk_1/grants", 202, {"approval_id": "apr_1", "state": "pending"})
    ran = run(*REQUEST)
    assert ran.code == failures.PENDING
    assert "apr_1" in ran.err


def test_grants_are_listed_shown_and_revoked(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/grants", 200, {"items": [GRANT], "next": None})
    assert GRANT_ID in run("grant", "list", "--task", "t", "--state", "stuck").out
    assert fake.last.query == {"task_id": "t", "state": "stuck", "limit": "50"}
    fake.on(f"GET /v1/grants/{GRANT_ID}", 200, GRANT)
    assert "12 ms" in run("grant", "show", GRANT_ID).out
    fake.on(f"DELETE /v1/grants/{GRANT_ID}", 200, GRANT)
    assert run("grant", "revoke", GRANT_ID) == (0, f"{GRANT_ID}: revoked\n", "")


REVOKED = {
    "revocation_id": "rev_1",
    "matched": 6,
    "revoked": 2,
    "revoking": 1,
    "abandoned": 3,
}


@pytest.mark.parametrize(
    ("option", "selector"),
    [
        (("--task", "t"), {"task_id": "t"}),
        (("--agent", "a"), {"agent": "a"}),
        (("--owner", "o"), {"owner": "o"}),
        (("--capability", "c"), {"capability": "c"}),
        (("--backend", "b"), {"backend": "b"}),
        (("--grant", "g"), {"grant_id": "g"}),
        (("--all", "--yes"), {"all": True}),
    ],
    ids=["task", "agent", "owner", "capability", "backend", "grant", "all"],
)
def test_revoke_by_each_selector(
    fake: FakeBroker, run: Run, option: tuple[str, ...], selector: dict[str, object]
) -> None:
    fake.on("POST /v1/revocations", 200, REVOKED)
    ran = run("revoke", *option, "--reason", "r", "--freeze")
    assert fake.last.json == {"selector": selector, "reason": "r", "freeze": True}
    assert "6 grants matched, 2 revoked, 1 being revoked (rev_1)" in ran.out
    assert "3 grants given up, never confirmed dead" in ran.err
    assert run("revoke", *option, "--reason", "r", "--json").json == REVOKED


@pytest.mark.parametrize("command", ["revoke", "freeze", "thaw"])
@pytest.mark.parametrize(
    "options",
    [(), ("--task", "t", "--agent", "a"), ("--agent", ""), ("--all", "--task", "t")],
    ids=["none", "two", "empty", "all-and-one"],
)
def test_anything_but_one_selector_is_refused(
    fake: FakeBroker, run: Run, command: str, options: tuple[str, ...]
) -> None:
    assert run(command, *options, "--reason", "r").code == 2
    assert not fake.seen


@pytest.mark.parametrize("command", [("revoke",), ("revoke", "--freeze"), ("freeze",)], ids=str)
def test_all_is_refused_where_nobody_can_be_asked(
    fake: FakeBroker, run: Run, command: tuple[str, ...]
) -> None:
    ran = run(*command, "--all", "--reason", "r", "--json")
    assert ran.code == 2
    assert "--yes" in json.loads(ran.err)["error"]["detail"]
    assert not fake.seen


@pytest.mark.parametrize(("word", "code"), [("yes", 0), ("y", 1), ("", 1)], ids=["yes", "y", "-"])
def test_all_asks_at_a_terminal(fake: FakeBroker, word: str, code: int) -> None:
    fake.on("POST /v1/revocations", 200, REVOKED)
    main_end, terminal = pty.openpty()
    try:
        os.write(main_end, f"{word}\n".encode())
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, "revoke", "--all", "--reason", "r"],
            stdin=terminal,
            capture_output=True,
            text=True,
            env={**os.environ},
            check=False,
        )
    finally:
        os.close(main_end)
        os.close(terminal)
    asked = [r for r in fake.seen if r.path == "/v1/revocations"]
    assert (ran.returncode, len(asked)) == (code, 1 - code)
    assert "Type yes" in ran.stderr


def test_freeze_thaw_and_what_is_frozen(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/freezes", 201, {"selector": {"agent": "a"}})
    assert run("freeze", "--agent", "a", "--reason", "r").out.startswith("agent=a: frozen")
    fake.on("DELETE /v1/freezes", 200, {})
    assert run("thaw", "--agent", "a", "--reason", "r").out == "agent=a: thawed\n"
    row = {"selector": {"agent": "a"}, "reason": "why", "by": "op", "at": 1_767_323_045_678}
    fake.on("GET /v1/freezes", 200, {"items": [row], "next": None})
    assert re.search(r"agent=a +why +op +2026-01-02 03:04:05Z", run("freezes").out)


def test_the_log(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/audit/events", 200, {"items": [EVENT], "next": "evt_1"})
    ran = run("audit", "list", "--task", TASK_ID, "--after", "evt_0", "--limit", "1")
    assert "task.opened" in ran.out
    assert "--after evt_1" in ran.err
    assert fake.last.query == {"task_id": TASK_ID, "after": "evt_0", "limit": "1"}
    assert run("audit", "list", "--limit", "1", "--json").json["items"][0]["data"] == EVENT["data"]
