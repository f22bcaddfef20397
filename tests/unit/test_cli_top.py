"""``broker top``, ``--watch``, narrow tables, previews and completion, as a person has them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker.cli.main import main
from tests.unit.cli_runner import PROGRAM
from tests.unit.fake_broker import GRANT, TASK, FakeBroker
from tests.unit.terminal import Terminal

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run

STUCK = {**GRANT, "state": "stuck", "error": "the database is down", "grant_id": "grt_" + "0" * 26}
ACTIVE = {**GRANT, "state": "active", "agent": "evil\x1b[2J"}
OVERVIEW: dict[str, Any] = {
    "at": "2026-01-02T03:05:05.000Z",
    "live": {"total": 3, "by_power": {"read": 1, "operate": 0, "privileged": 2}, "by": []},
    "unsettled": {"stuck": 1, "revoking": 0, "pending": 0, "overdue": 4, "unknown": 0},
    "next_to_die": [ACTIVE],
    "not_dead": [STUCK],
    "time_to_dead": {"last": 9, "p50_ms": 12, "p95_ms": 90, "max_ms": 12_000},
    "backends": [
        {
            "backend": "vault",
            "state": "stopped",
            "why": "it can't be reached",
            "live": 3,
            "stuck": 1,
        }
    ],
    "freezes": [
        {"selector": "agent:a", "by": "op", "reason": "drill", "at": "2026-01-02T03:00:00.000Z"}
    ],
    "approvals": 2,
    "reviews": 0,
    "checks": {"ledger": "ok", "revocation": "warning: 1 credentials are stuck"},
}
PREVIEW: dict[str, Any] = {
    "selector": "agent:a",
    "matched": 3,
    "states": {"stuck": 0, "revoking": 0, "pending": 0, "active": 3},
    "tasks": 2,
    "agents": ["a"],
    "agents_in_all": 1,
    "by": [
        {
            "backend": "vault",
            "capability": "orders-read",
            "power": "read",
            "revocability": "ttl_only",
            "count": 3,
        }
    ],
    "grants": [],
}
DONE = {"revocation_id": "rev_1", "matched": 3, "revoked": 2, "revoking": 1, "abandoned": 0}
LOOK = "POST /v1/revocations/preview"


# Top.


@pytest.mark.parametrize("width", [40, 80, 120])
def test_all_of_it_fits_the_width(
    fake: FakeBroker, run: Run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    fake.on("GET /v1/overview", 200, OVERVIEW)
    ran = run("top", "--once")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= width
    for words in ("1 stuck", "4 overdue", "2 approvals waiting", "agent=a", "in 4m", "stopped"):
        assert words in ran.out, words
    titles = [line for line in lines if line.isupper() or line.startswith("NOT DEAD")]
    assert [t.split()[0] for t in titles] == ["CHECKS", "NOT", "BACKENDS", "FROZEN", "NEXT"]
    assert "\x1b" not in ran.out
    assert ("grt_" + "0" * 26 in ran.out) is (width >= 80)


def test_top_for_programs(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/overview", 200, OVERVIEW)
    found = run("top", "--json").json
    assert found["live"] == OVERVIEW["live"]
    assert found["not_dead"][0]["grant_id"] == STUCK["grant_id"]
    assert found["freezes"][0]["selector"] == {"agent": "a"}


def test_top_is_live_says_when_it_is_old_and_ends_by_a_key(fake: FakeBroker) -> None:
    fake.on("GET /v1/overview", 200, OVERVIEW)
    fake.on("GET /v1/overview", 503, {"code": "unavailable", "detail": "Busy."})
    terminal = Terminal("top", "--every", "500ms", TERM="xterm-256color", LINES="50")
    terminal.until("NEXT TO DIE")
    terminal.until("NOT CURRENT")
    os.write(terminal.handle, b"q")
    assert terminal.ended() == 0
    assert "\x1b[?1049h" in terminal.shown, "the alternate screen, so that nothing is left behind"
    assert terminal.shown.rindex("\x1b[?1049l") > terminal.shown.rindex("NOT CURRENT")
    assert "evil\\x1b[2J" in terminal.shown


def test_top_that_never_saw_the_broker_fails(run: Run) -> None:
    assert run("top", "--server", "http://127.0.0.1:9").code == 3


# Watch.


def test_a_list_is_shown_again_until_interrupted(fake: FakeBroker) -> None:
    fake.on("GET /v1/tasks", 200, {"items": [TASK], "next": None})
    fake.on("GET /v1/tasks", 503, {"code": "unavailable", "detail": "Busy."})
    fake.on("GET /v1/tasks", 200, {"items": [], "next": None})
    terminal = Terminal("task", "list", "--watch", "200ms")
    terminal.until("nightly")
    terminal.until("Busy. Trying again")
    terminal.until("No tasks.")
    terminal.process.send_signal(2)
    assert terminal.ended() == 130
    assert "Traceback" not in terminal.shown


def test_for_programs_a_line_whenever_it_has_changed(fake: FakeBroker) -> None:
    for state in ("active", "active", "revoking", "revoked"):
        fake.on(f"GET /v1/grants/{GRANT['grant_id']}", 200, {**GRANT, "state": state})
    command = [sys.executable, "-c", PROGRAM, "grant", "show", GRANT["grant_id"]]
    with subprocess.Popen(
        [*command, "--json", "--watch", "200ms"], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        states = [json.loads(watching.stdout.readline())["state"] for _ in range(3)]
        watching.send_signal(2)
    assert states == ["active", "revoking", "revoked"]
    assert watching.returncode == 130


def test_a_time_that_is_none_is_wrong_usage(fake: FakeBroker, run: Run) -> None:
    ran = run("grant", "show", "--watch", "grt_1", "grt_2")
    assert ran.code == 2
    assert "--watch takes a time" in ran.err
    assert not fake.seen


# Tables.


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_table_breaks_no_word_whatever_the_width(
    fake: FakeBroker, run: Run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    fake.on("GET /v1/tasks", 200, {"items": [TASK, TASK], "next": None})
    ran = run("task", "list")
    assert max(map(len, ran.out.splitlines())) <= width
    for word in (TASK["task_id"], "report-writer", "active", "nightly", "report"):
        assert ran.out.count(word) >= 2, word
    assert ("task  " in ran.out) is (width > 40), "a heading, or blocks"


def test_colours(fake: FakeBroker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.on("GET /v1/tasks", 200, {"items": [TASK], "next": None})
    assert "\x1b[" not in run("task", "list").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[32m" in run("task", "list").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in run("task", "list").out


# Revoking.


def test_a_preview_revokes_nothing(fake: FakeBroker, run: Run) -> None:
    fake.on(LOOK, 200, PREVIEW)
    ran = run("revoke", "--agent", "a", "--preview")
    assert re.search(r"would end +2 tasks, 3 credentials \(3 active\)", ran.out)
    assert re.search(r"orders-read +vault +read +ttl_only +3", ran.out)
    assert "can't be ended at once" in ran.out
    assert [r.path for r in fake.seen] == ["/v1/revocations/preview"]
    assert fake.last.json == {"selector": {"agent": "a"}}
    assert run("revoke", "--agent", "a", "--preview", "--json").json == PREVIEW


@pytest.mark.parametrize(("word", "code"), [("yes", 0), ("no", 1)], ids=["yes", "no"])
def test_a_person_sees_what_dies_before_they_say_yes(
    fake: FakeBroker, word: str, code: int
) -> None:
    fake.on(LOOK, 200, PREVIEW)
    fake.on("POST /v1/revocations", 200, DONE)
    terminal = Terminal("revoke", "--agent", "a", "--reason", "r", "--freeze")
    shown = terminal.until("Type yes to go on:")
    assert "3 credentials" in shown
    assert "agent=a and freezes it" in shown
    terminal.type(word)
    assert terminal.ended() == code
    assert ("/v1/revocations" in [r.path for r in fake.seen]) is (code == 0)


def test_what_cant_be_previewed_can_be_revoked(fake: FakeBroker) -> None:
    fake.on("POST /v1/revocations", 200, DONE)
    terminal = Terminal("revoke", "--agent", "a", "--reason", "r")
    assert "can't be counted" in terminal.until("Type yes to go on:")
    terminal.type("yes")
    assert terminal.ended() == 0


def test_it_is_followed_until_dead(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/revocations", 200, DONE)
    for left in (2, 1, 0):
        fake.on(LOOK, 200, {**PREVIEW, "states": {"revoking": left, "active": 5}})
    ran = run("revoke", "--agent", "a", "--reason", "r", "--wait", "1m")
    assert ran.code == 0
    assert "2 credentials not dead yet: 2 revoking" in ran.err
    assert "all of it is confirmed dead" in ran.out


def test_what_isnt_dead_in_time_is_a_failure(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/revocations", 200, DONE)
    fake.on(LOOK, 200, {**PREVIEW, "states": {"stuck": 1}})
    ran = run("revoke", "--agent", "a", "--reason", "r", "--wait", "100ms")
    assert ran.code == 1
    assert "1 stuck" in ran.err
    assert run("revoke", "--agent", "a").code == 2
    assert run("revoke", "--agent", "a", "--reason", "r", "--wait", "soon").code == 2


# Completion, and what the page says.


def test_bash_completes_commands_and_options(tmp_path: Path, capsys: Any) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "broker.bash"
    script.write_text(capsys.readouterr().out)
    ask = (
        f"source {script}; complete -p broker >/dev/null; "
        'COMP_WORDS=(broker "$@"); COMP_CWORD=$#; _broker; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def completed(*words: str) -> list[str]:
        ran = subprocess.run(
            ["bash", "-c", ask, "bash", *words], capture_output=True, text=True, check=True
        )
        return ran.stdout.split()

    assert {"task", "top"} <= set(completed("t"))
    assert completed("task", "st") == ["story"]
    assert "--preview" in completed("revoke", "--p")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(shell: str, run: Run) -> None:
    ran = run("completion", shell)
    assert ran.code == 0
    assert "top" in ran.out


def test_the_page_says_the_exit_codes_that_help_says(run: Run) -> None:
    text = run("--help").out
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text("utf-8")
    said = dict(re.findall(r"^ +(\d+)  (.+)$", text.partition("Exit codes:")[2], re.MULTILINE))
    assert len(said) >= 7
    table = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE))
    assert said.items() <= table.items()
