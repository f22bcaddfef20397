"""Approvals, elevations and reviews on the command line, against `broker serve`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from broker.config import load_config
from tests.dev.broker_process import PROGRAM, Server, environment, eventually
from tests.e2e.test_cli_live import Cli, logs_in
from tests.http.consenting import PEOPLE, consent_document, give_rights
from tests.ports import free_port
from tests.unit.terminal import Terminal
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

pytestmark = pytest.mark.usefixtures("empty_ledger")

SECRET = ("grant", "request")
AGENT = "report-writer"


@pytest.fixture(scope="module")
def cli(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cli]:
    folder = tmp_path_factory.mktemp("consents")
    document = consent_document(engines[0], folder / "policies")
    own = {"listen": f"127.0.0.1:{free_port()}", "state_dir": str(folder / "state")}
    document["broker"] |= own
    config = folder / "config.toml"
    config.write_text(tomli_w.dumps(document), "utf-8")
    asyncio.run(give_rights(engines[0], load_config(config)))
    subjects = {**SUBJECTS, **{name: f"operator/{name}" for name in PEOPLE}}
    for name, subject in subjects.items():
        (folder / name).write_text(engines[0].issuer.token(subject).reveal())
    with Server(folder / "log", "serve", "--config", config) as server:
        server.wait_ready()
        yield Cli(f"http://{document['broker']['listen']}", config, folder)
        assert server.end(signal.SIGTERM) == 0


class Running:
    """A command that goes on while the test does something else."""

    def __init__(self, cli: Cli, name: str, folder: Path, *words: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [PROGRAM, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(**cli.environment(name)),
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, words: str) -> str:
        """Wait until it has said this, and return all that it has said."""
        eventually(lambda: words in self.out + self.err, words)
        return self.out + self.err

    def ended(self) -> int:
        return self.process.wait(60)


def asked_for(text: str) -> str:
    found = re.search(r"apr_\w+", text)
    assert found is not None, text
    return found[0]


def pending(cli: Cli, task: str) -> list[dict[str, Any]]:
    return cli.json("alice", "approval", "list", "--task", task, "--state", "pending")["items"]


def test_a_credential_waits_for_a_human(cli: Cli, tmp_path: Path) -> None:
    task = cli.open(capability="orders-admin")
    command = (*SECRET, task, "orders-admin", "--field", "dsn")
    ran = cli.run(AGENT, *command)
    assert (ran.code, ran.out) == (5, "")
    approval = asked_for(ran.err)

    waiting = Running(cli, AGENT, tmp_path, *command, "--wait", "2m")
    waiting.says("1 operator (0 so far)")
    assert [a["approval_id"] for a in pending(cli, task)] == [approval], "nobody is asked twice"
    shown = cli.run("alice", "approval", "show", approval).out
    for words in ("report-writer", "orders-admin (privileged)", "parameters", "ttl_ms", "digest"):
        assert words in shown

    # Not by who asked, and not without a reason.
    assert cli.run("orchestrator", "approval", "approve", approval, "--reason", "x").code == 4
    assert cli.run("alice", "approval", "approve", approval).code == 2
    ran = cli.run("alice", "approval", "approve", approval, "--reason", "ticket 7")
    assert (ran.code, ran.out) == (
        0,
        f"{approval}: approved: the same request goes ahead, once\n",
    )

    assert waiting.ended() == 0, waiting.err
    assert logs_in(waiting.out.strip())
    used = cli.json("alice", "approval", "show", approval)
    assert (used["state"], used["request"], used["votes"][0]["by"]) == ("used", None, "alice")
    assert used["used_by"].startswith("grt_")
    # The agent sees it under its task, and not who it was.
    seen = cli.json(AGENT, "approval", "show", approval, "--as-task", task)
    assert (seen["state"], seen["votes"]) == ("used", [])
    late = cli.run("bob", "approval", "deny", approval, "--reason", "x", "--json")
    assert (late.code, late.problem["code"], late.problem["state"]) == (1, "conflict", "used")


def test_a_denial_is_the_answer(cli: Cli, tmp_path: Path) -> None:
    task = cli.open(capability="orders-admin")
    command = (*SECRET, task, "orders-admin", "--json")
    waiting = Running(cli, AGENT, tmp_path, *command, "--wait", "2m")
    eventually(lambda: bool(pending(cli, task)), "it is asked for")
    approval = pending(cli, task)[0]["approval_id"]
    ran = cli.run("alice", "approval", "deny", approval, "--reason", "not today")
    assert (ran.code, ran.out) == (0, f"{approval}: denied (not today)\n")
    assert waiting.ended() == 4
    assert json.loads(waiting.err)["error"]["code"] == "approval_denied"
    assert "not today" in cli.run("bob", "approval", "show", approval).out
    ran = cli.run(AGENT, *command)
    assert (ran.code, ran.problem["code"]) == (4, "approval_denied")


def test_two_of_a_group(cli: Cli) -> None:
    task = cli.open(capability="deploy-twice")
    approval = asked_for(cli.run(AGENT, *SECRET, task, "deploy-twice").err)
    ran = cli.run("carol", "approval", "approve", approval, "--reason", "x")
    assert ran.code == 4
    assert "security" in ran.err
    ran = cli.run("alice", "approval", "approve", approval, "--reason", "fine")
    assert ran.out == f"{approval}: pending, 1/2 security said yes\n"
    assert cli.run("alice", "approval", "approve", approval, "--reason", "again").code == 1
    ran = cli.run("bob", "approval", "approve", approval, "--reason", "fine too")
    assert "approved" in ran.out
    assert cli.run(AGENT, *SECRET, task, "deploy-twice").code == 0


def test_withdrawn_and_ended(cli: Cli, tmp_path: Path) -> None:
    task = cli.open(capability="orders-admin")
    approval = asked_for(cli.run(AGENT, *SECRET, task, "orders-admin").err)
    ran = cli.run(AGENT, "approval", "withdraw", approval, "--task", task)
    assert (ran.code, ran.out) == (0, f"{approval}: cancelled (withdrawn)\n")
    waiting = Running(cli, AGENT, tmp_path, *SECRET, task, "orders-admin", "--wait", "2m")
    waiting.says("it needs")
    assert cli.run("orchestrator", "task", "cancel", task).code == 0
    # Its task is over, so is its identity's right to look: said, not waited out.
    assert waiting.ended() in (1, 4), waiting.err
    assert waiting.out == ""
    assert "Traceback" not in waiting.err


def test_watching(cli: Cli, tmp_path: Path) -> None:
    watching = Running(cli, "alice", tmp_path, "approval", "watch", "--json")
    task = cli.open(capability="orders-admin")
    approval = asked_for(cli.run(AGENT, *SECRET, task, "orders-admin").err)
    watching.says(approval)
    cli.run("bob", "approval", "deny", approval, "--reason", "no")
    watching.says('"state": "denied"')
    lines = [json.loads(line) for line in watching.out.splitlines()]
    mine = [(a["state"], a["reason"]) for a in lines if a["approval_id"] == approval]
    assert mine == [("pending", None), ("denied", "no")]
    watching.process.send_signal(signal.SIGINT)
    assert watching.ended() == 130
    assert "Traceback" not in watching.err
    assert cli.run(AGENT, "approval", "watch").code == 4


def test_a_person_at_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    task = cli.open(capability="orders-admin")
    approval = asked_for(cli.run(AGENT, *SECRET, task, "orders-admin").err)
    for name in list(os.environ):
        if name.startswith("BROKER_"):
            monkeypatch.delenv(name)
    for name, value in cli.environment("alice").items():
        monkeypatch.setenv(name, value)
    terminal = Terminal("approval", "approve", approval)
    assert "exactly this is asked for:" in terminal.until("Why approve it?")
    terminal.type("ticket 7")
    terminal.until("Type yes to go on:")
    terminal.type("yes")
    assert terminal.ended() == 0, terminal.shown
    assert cli.json("bob", "approval", "show", approval)["votes"][0]["reason"] == "ticket 7"


def test_an_elevation(cli: Cli, tmp_path: Path) -> None:
    task = cli.open()
    assert cli.run(AGENT, *SECRET, task, "orders-admin").code == 4, "the task hasn't got it"
    command = ("elevate", task, "orders-admin", "--intent", "mend order 7", "--ttl", "10m")
    assert cli.run(AGENT, *command).code == 5
    waiting = Running(cli, AGENT, tmp_path, *command, "--wait", "2m", "--json")
    (asked,) = pending(cli, task)
    assert asked["request"]["ttl_ms"] == 600_000
    assert cli.run("alice", "approval", "approve", asked["approval_id"], "--reason", "y").code == 0
    assert waiting.ended() == 0, waiting.err
    elevation = json.loads(waiting.out)
    assert (elevation["state"], elevation["approval_id"]) == ("active", asked["approval_id"])

    dsn = cli.run(AGENT, *SECRET, task, "orders-admin", "--field", "dsn").out.strip()
    assert logs_in(dsn)
    identifier = elevation["elevation_id"]
    listed = cli.run("operator", "elevate", "list", task).out
    assert re.search(rf"{identifier} +active +orders-admin", listed)
    ended = cli.json("operator", "elevate", "end", task, identifier)
    assert (ended["state"], ended["reason"]) == ("ended", "ended")
    assert not logs_in(dsn)
    assert cli.run(AGENT, *SECRET, task, "orders-admin").code == 4


def test_the_glass_isnt_broken_with_a_plain_token(cli: Cli) -> None:
    task = cli.open()
    command = ("break-glass", task, "orders-admin", "--intent", "the shop is down")
    assert cli.run(AGENT, *command).code == 2
    ran = cli.run(AGENT, *command, "--yes")
    assert (ran.code, ran.out) == (4, "")
    assert cli.run("alice", "review", "list").err == "No review is open.\n"
    assert cli.run("alice", "review", "list", "--closed", "--json").json["items"] == []
    assert cli.run("alice", "review", "close", "elv_00" + "0" * 24, "--findings", "x").code == 1
    assert cli.run(AGENT, "review", "list", "--as-task", task).code == 4
