"""How commands end, what they print, and what the command line says of itself."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from broker import __version__
from broker import client as sdk
from broker import errors as server
from broker.cli import failures, text
from broker.cli.main import build
from tests.unit.cli_runner import PROGRAM
from tests.unit.fake_broker import (
    TASK,
    FakeBroker,
    problem,
)

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run

TASK_ID = TASK["task_id"]
OPEN = ("task", "open", "--agent", "report-writer", "--purpose", "nightly", "--capability", "a")
OURS = (
    *("task", "grant", "revoke", "freeze", "thaw", "freezes", "audit", "policy"),
    *("approval", "elevate", "break-glass", "review"),
)
ON_FILES = {
    *(("audit", name) for name in ("verify", "export", "key", "checkpoint", "fingerprint")),
    *(("audit", name) for name in ("prove", "grown", "check")),
    *(("policy", name) for name in ("check", "test", "schema")),
}
"""Commands that ask no broker."""


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 1), (401, 4), (403, 4), (404, 1), (409, 1), (422, 1), (429, 1), (502, 3), (503, 3)],
)
def test_exit_codes_of_refusals(fake: FakeBroker, run: Run, status: int, code: int) -> None:
    fake.answers["GET /v1/tasks/t"].append(problem(status, "a_code", "Not so.", decision_id="d"))
    ran = run("task", "show", "t")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: Not so.")
    ran = run("task", "show", "t", "--json")
    assert ran.code == code
    error = json.loads(ran.err)["error"]
    assert (error["code"], error["status"], error["decision_id"]) == ("a_code", status, "d")


def test_a_denial_says_what_policy_advises_and_how_to_have_it_explained(
    fake: FakeBroker, run: Run
) -> None:
    advised = problem(
        403, "access_denied", "No.", decision_id="dec_1", advice=["Ask for less.\x1b"]
    )
    fake.answers["GET /v1/tasks/t"].append(advised)
    ran = run("task", "show", "t")
    assert ran.code == 4
    assert "advice: Ask for less." in ran.err
    assert "\x1b" not in ran.err
    assert "`broker policy explain dec_1`" in ran.err


def test_advice_of_another_form_is_left_out(fake: FakeBroker, run: Run) -> None:
    fake.answers["GET /v1/tasks/t"].append(problem(403, "access_denied", "No.", advice=7))
    assert "advice" not in run("task", "show", "t").err


def test_every_error_of_ours_and_of_the_servers_ends_with_words() -> None:
    def below(kind: type) -> set[type[Exception]]:
        return {kind, *(k for sub in kind.__subclasses__() for k in below(sub))}

    for kind in below(sdk.BrokerClientError) | below(server.BrokerError):
        error = kind("tool", {}) if issubclass(kind, sdk.ToolDenied) else kind("detail")
        assert failures.report(error, json=False) in {1, 3, 4, 5}
    assert failures.report(server.ConfigError("x"), json=False) == 1
    assert failures.report(server.LedgerUnavailable("x"), json=False) == 3
    assert failures.report(ValueError("a bug"), json=False) is None


def test_a_config_error_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(server.ConfigError("first\nsecond"), json=False)
    assert capsys.readouterr().err == "error: first\n       second\n"


def test_a_broker_that_is_not_there(run: Run) -> None:
    ran = run("task", "show", "t", "--server", "http://127.0.0.1:9")
    assert ran.code == 3
    assert "http://127.0.0.1:9" in ran.err
    assert "broker dev" in ran.err


def test_no_identity(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKER_IDENTITY_TOKEN_FILE")
    ran = run("task", "show", "t")
    assert ran.code == 4
    assert "--token-file" in ran.err
    assert run("task", "show", "t", "--token-file", "/nowhere").code == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ("taks",),
        ("task", "opne"),
        ("task", "open", "--agent", "a"),
        (*OPEN, "--ttl", "5 minutes"),
        (*OPEN, "--context", "novalue"),
        (*OPEN, "--context", "k=1", "--context", "k=2"),
        ("task", "list", "--state", "sleeping"),
        ("task", "show", "t", "--nonsense"),
    ],
    ids=lambda arguments: " ".join(arguments)[-24:],
)
def test_wrong_usage(fake: FakeBroker, run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    ran = run(*arguments, "--json")
    assert ran.code == 2
    assert json.loads(ran.err)["error"]["code"] == "usage"
    assert not fake.seen


def test_an_unknown_command_is_suggested_without_importing_all() -> None:
    code = (
        "import sys; from broker.cli.main import main; code = main(['taks']);"
        "print([m for m in sys.modules if m.startswith('broker.cli')]); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert 'Did you mean "task"?' in ran.stderr
    assert "broker.cli.task" not in ran.stdout


def test_a_reader_that_has_gone_is_no_error(fake: FakeBroker) -> None:
    fake.on("GET /v1/tasks", 200, {"items": [TASK] * 100, "next": None})
    command = [sys.executable, "-c", PROGRAM, "task", "list", "--limit", "100"]
    environ = {**os.environ}
    reader, writer = os.pipe()
    os.close(reader)
    for extra in ((), ("--json",)):
        ran = subprocess.run(
            [*command, *extra], stdout=writer, stderr=subprocess.PIPE, env=environ, check=False
        )
        assert (ran.returncode, ran.stderr) == (141, b"")
    os.close(writer)


def test_what_an_agent_wrote_cannot_drive_the_terminal(fake: FakeBroker, run: Run) -> None:
    evil = "ok\x1b[2J\x1b]0;title\x07[bold]x[/bold]\u202eno\nGRANTED\x9b"
    fake.on("GET /v1/tasks", 200, {"items": [{**TASK, "purpose": evil}], "next": None})
    fake.answers["GET /v1/tasks/t"].append(problem(409, "conflict", evil, approval_id=evil))
    for ran in (run("task", "list"), run("task", "list", "--json"), run("task", "show", "t")):
        shown = ran.out + ran.err
        assert not set(shown) & set("\x1b\x07\x9b\u202e")
        assert "\nGRANTED" not in shown.replace("\n       GRANTED", "")
        assert "[bold]" in shown


def terminal(fake: FakeBroker, width: int, **environ: str) -> str:
    """Run `task list` with a terminal as standard output."""
    main_end, terminal_end = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, "task", "list"]
    settings = {"COLUMNS": str(width), "TERM": "xterm-256color", **environ}
    with subprocess.Popen(command, stdout=terminal_end, env={**os.environ, **settings}) as process:
        os.close(terminal_end)
        chunks: list[bytes] = []
        try:
            while chunk := os.read(main_end, 65536):
                chunks.append(chunk)
        except OSError:  # how Linux says that the other end was closed
            pass
        finally:
            os.close(main_end)
        assert process.wait() == 0
    return b"".join(chunks).decode()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_fit_the_terminal(fake: FakeBroker, width: int) -> None:
    fake.on("GET /v1/tasks", 200, {"items": [{**TASK, "purpose": "p " * 200}], "next": None})
    shown = terminal(fake, width, NO_COLOR="1")
    assert not re.search(r"\x1b\[[34]\d", shown)
    lines = re.sub(r"\x1b\[\d+m", "", shown).splitlines()
    assert max(map(len, lines)) <= width
    assert TASK_ID in shown


def test_colours_are_for_terminals(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/tasks", 200, {"items": [TASK], "next": None})
    assert "\x1b[32mactive" in terminal(fake, 120)
    assert "\x1b" not in run("task", "list").out
    assert TASK_ID in run("task", "list").out


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (timedelta(minutes=4, seconds=10), "in 4m 10s"),
        (timedelta(hours=-3, seconds=-5), "3h ago"),
        (timedelta(days=2, hours=1, minutes=5), "in 2d 1h"),
        (timedelta(milliseconds=400), "now"),
        (timedelta(seconds=-1), "1s ago"),
    ],
    ids=str,
)
def test_times_are_said_as_seen_from_now(offset: timedelta, words: str) -> None:
    assert text.ago(NOW + offset, NOW.timestamp()) == words


def test_the_version_is_answered_without_anything_heavy() -> None:
    code = (
        "import sys; from broker.cli.main import main; code = main(['--version']);"
        "sys.stderr.write(' '.join(sys.modules)); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{__version__}\n"
    loaded = set(ran.stderr.split())
    assert not loaded & {"httpx2", "pydantic", "fastapi", "hvac", "redis", "cryptography"}
    assert "broker.client" not in loaded
    assert not [name for name in loaded if name.startswith("broker.cli.") and name != RUN_MODULE]


RUN_MODULE = "broker.cli.main"


def test_help_documents_the_exit_codes(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    for code in (0, failures.FAILED, failures.USAGE, failures.UNREACHABLE, failures.FORBIDDEN, 5):
        assert re.search(rf"^ +{code}  \w", ran.out, re.MULTILINE)
    assert run().out == ran.out


def commands() -> list[tuple[str, ...]]:
    app = build()
    found: list[tuple[str, ...]] = []
    for name in OURS:
        below = [n for n in app[name] if not n.startswith("-")]
        found += [(name, sub) for sub in below] if below else [(name,)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_json_and_where_to_connect(
    run: Run, command: tuple[str, ...]
) -> None:
    ran = run(*command, "--help")
    assert ran.code == 0
    for option in ("--json", "--server", "--token-file", "BROKER_URL"):
        assert option in ran.out or command in ON_FILES
    assert ("--server" in ran.out) is (command not in ON_FILES)
    assert max(map(len, ran.out.splitlines())) <= 80
