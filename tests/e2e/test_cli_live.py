"""The command line against `broker serve`, on real engines: as an orchestrator, agent, operator."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import psycopg
import pytest
import tomli_w

from broker.clock import SystemClock
from broker.dev.engines import OpenBao
from broker.dev.vault import admin, mount_orders
from tests.dev.broker_process import PROGRAM, Ran, Server, broker, environment
from tests.ports import free_port
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

pytestmark = pytest.mark.usefixtures("empty_ledger")

UNKNOWN_TASK = "tsk_00" + "0" * 24


def config_of(stack: DevStack, folder: Path, **sections: dict[str, Any]) -> Path:
    """Copy the dev configuration with an address and a state of its own, and with these changes."""
    document = tomllib.loads((stack.data / "config.toml").read_text("utf-8"))
    own = {"listen": f"127.0.0.1:{free_port()}", "state_dir": str(folder / "state")}
    document["broker"] |= own
    for name, changes in sections.items():
        document[name] |= changes
    file = folder / "config.toml"
    file.write_text(tomli_w.dumps(document), "utf-8")
    return file


def address(config: Path) -> str:
    return "http://" + tomllib.loads(config.read_text("utf-8"))["broker"]["listen"]


@dataclass
class Cli:
    """The client commands, as each of the dev principals."""

    url: str
    config: Path
    tokens: Path

    def run(self, name: str, *arguments: object, **env: str) -> Ran:
        return broker(*arguments, **self.environment(name), **env)

    def environment(self, name: str) -> dict[str, str]:
        return {"BROKER_URL": self.url, "BROKER_IDENTITY_TOKEN_FILE": str(self.tokens / name)}

    def json(self, name: str, *arguments: object, **env: str) -> Any:
        ran = self.run(name, *arguments, "--json", **env)
        assert ran.code == 0, ran.err
        return ran.json

    def open(self, agent: str = "report-writer", capability: str = "orders-read") -> str:
        command = ("task", "open", "--agent", agent, "--purpose", "x", "--capability", capability)
        return self.json("orchestrator", *command)["task_id"]


@pytest.fixture(scope="module")
def tokens(engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    for name, subject in SUBJECTS.items():
        (folder / name).write_text(engines[0].issuer.token(subject).reveal())
    return folder


@pytest.fixture(scope="module")
def cli(
    engines: tuple[DevStack, Config], tokens: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cli]:
    folder = tmp_path_factory.mktemp("serve")
    config = config_of(engines[0], folder)
    with Server(folder / "log", "serve", "--config", config) as server:
        server.wait_ready()
        yield Cli(address(config), config, tokens)
        assert server.end(signal.SIGTERM) == 0


def logs_in(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=10).close()
    except psycopg.OperationalError:
        return False
    return True


def test_the_whole_life_of_a_credential(cli: Cli) -> None:
    task = cli.open()
    # The agent names no task of its own: the command is about one.
    ran = cli.run("report-writer", "grant", "request", task, "orders-read", "--field", "dsn")
    assert ran.code == 0, ran.err
    dsn = ran.out.strip()
    assert logs_in(dsn)
    assert cli.json("report-writer", "task", "show", task)["state"] == "active"
    (grant,) = cli.json("report-writer", "grant", "list", "--task", task)["items"]
    assert grant["state"] == "active"
    assert "credential" not in grant
    ran = cli.run("report-writer", "task", "complete", task, "--summary", "done")
    assert (ran.code, ran.out) == (0, f"{task}: completed, 1 grant revoked\n")
    assert not logs_in(dsn)
    shown = cli.json("operator", "grant", "show", grant["grant_id"])
    assert (shown["state"], shown["reason"]) == ("revoked", "task_completed")
    events = cli.json("auditor", "audit", "list", "--task", task)["items"]
    assert [e["type"] for e in events if e["type"].startswith("task.")] == [
        "task.opened",
        "task.ended",
        "task.closed",
    ]
    assert dsn not in json.dumps(events)


def test_an_agent_may_still_say_which_task_it_acts_under(cli: Cli) -> None:
    task, other = cli.open(), cli.open()
    command = ("grant", "request", task, "orders-read")
    assert cli.run("report-writer", *command, "--as-task", task).code == 0
    assert cli.run("report-writer", *command, BROKER_TASK_ID=task).code == 0
    ran = cli.run("report-writer", *command, "--as-task", other)
    assert ran.code != 0
    assert ran.out == ""
    # Another agent's task looks like one that doesn't exist.
    first, second = (
        cli.run("order-clerk", "task", "show", identifier) for identifier in (task, UNKNOWN_TASK)
    )
    assert (first.code, first.err) == (second.code, second.err) == (4, second.err)
    ran = cli.run("report-writer", "task", "list")
    assert ran.code == 4
    assert "--as-task" in ran.err


def test_an_agent_opens_a_child_of_its_task(cli: Cli) -> None:
    task = cli.open()
    command = ("task", "open", "--agent", "order-clerk", "--purpose", "half of it")
    command += ("--capability", "orders-read", "--parent", task, "--heartbeat", "30s")
    child = cli.json("report-writer", *command)
    assert child["parent_task_id"] == task
    assert cli.run("order-clerk", "task", "heartbeat", child["task_id"]).code == 0
    assert cli.json("orchestrator", "task", "cancel", task)["state"] == "cancelled"
    assert cli.json("operator", "task", "show", child["task_id"])["state"] == "cancelled"


def test_a_chain_is_drawn_until_all_of_it_is_dead(cli: Cli) -> None:
    task = cli.open()
    command = ("task", "open", "--agent", "order-clerk", "--capability", "orders-read")
    purpose = ("--purpose", "half \u202e[red]of it[/red]", "--parent", task)
    child = cli.json("report-writer", *command, *purpose)["task_id"]
    ran = cli.run("order-clerk", "grant", "request", child, "orders-read", "--field", "dsn")
    assert logs_in(ran.out.strip())

    drawn = cli.run("orchestrator", "task", "tree", child, "--whole", COLUMNS="60").out

    assert max(map(len, drawn.partition("\n\n")[2].splitlines())) <= 60
    assert re.search(rf"\n└── {child}  order-clerk  active\s+│?\s*ends in", drawn)
    assert "half \\u202e[red]of it[/red]" in drawn
    assert re.search(r"└── orders-read  active  dies in \d+m", drawn)
    assert drawn.count("<- this one") == 1
    (grant,) = cli.json("operator", "task", "tree", child)["nodes"][0]["grants"]
    assert grant["grant_id"] in drawn
    assert cli.run("order-clerk", "task", "tree", child, "--whole").code == 4
    assert cli.run("order-clerk", "task", "tree", task).code == 4

    with subprocess.Popen(
        [PROGRAM, "task", "tree", task, "--watch"],
        env=environment(**cli.environment("operator")),
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        cli.run("orchestrator", "task", "cancel", task)
        rest, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert first == f"chain {task}: 2 tasks, 1 grant, 0 calls\n"
    last = rest.rpartition(first)[2]
    assert f"{child}  order-clerk  cancelled" in last
    assert grant["grant_id"] in rest.partition(first)[0]
    assert grant["grant_id"] not in last
    assert not logs_in(ran.out.strip())


def test_a_shell_takes_the_credential(cli: Cli) -> None:
    task = cli.open()
    script = f'eval "$({PROGRAM} grant request {task} orders-read --env)" && '
    script += 'echo "$BROKER_GRANT_ID $BROKER_CREDENTIAL_USERNAME"'
    ran = subprocess.run(
        ["sh", "-ec", script],
        env=environment(**cli.environment("report-writer")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"grt_\w+ v-\S+\n", ran.stdout)


def test_everything_is_revoked_and_frozen(cli: Cli) -> None:
    task = cli.open()
    dsn = cli.run("report-writer", "grant", "request", task, "orders-read", "--field", "dsn").out
    ran = cli.run("operator", "revoke", "--all", "--reason", "drill")
    assert (ran.code, ran.out) == (2, "")
    assert "--all needs --yes" in ran.err
    assert logs_in(dsn.strip())
    assert cli.run("orchestrator", "revoke", "--all", "--reason", "x", "--yes").code == 4
    done = cli.json("operator", "revoke", "--all", "--reason", "drill", "--yes", "--freeze")
    assert done["matched"] == done["revoked"] >= 1
    assert not logs_in(dsn.strip())
    try:
        (frozen,) = cli.json("operator", "freezes")["items"]
        assert (frozen["selector"], frozen["by"]) == ({"all": True}, "operator")
        command = ("task", "open", "--agent", "report-writer", "--purpose", "x")
        ran = cli.run("orchestrator", *command, "--capability", "orders-read", "--json")
        assert (ran.code, ran.out, ran.problem["code"]) == (4, "", "frozen")
    finally:
        ran = cli.run("operator", "thaw", "--all", "--reason", "over")
    assert (ran.code, ran.out) == (0, "all: thawed\n")
    assert cli.run("operator", "freeze", "--agent", "order-clerk", "--reason", "y").code == 0
    assert cli.run("operator", "thaw", "--agent", "order-clerk", "--reason", "y").code == 0
    assert cli.run("operator", "thaw", "--agent", "order-clerk", "--reason", "y").code == 1
    assert cli.run("operator", "freezes").err == "Nothing is frozen.\n"
    cli.open()


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("operator", ("task", "show", UNKNOWN_TASK), 1),
        ("operator", ("task", "shwo", UNKNOWN_TASK), 2),
        ("operator", ("task", "list", "--server", "http://127.0.0.1:9"), 3),
        ("operator", ("task", "list", "--token-file", __file__), 4),
        ("orchestrator", ("audit", "list"), 4),
        ("orders-service", ("task", "list"), 0),
    ],
)
def test_exit_codes(cli: Cli, name: str, arguments: tuple[str, ...], code: int) -> None:
    ran = cli.run(name, *arguments, "--json")
    assert ran.code == code, ran.err
    if code:
        assert ran.out == ""
        assert ran.problem["detail"]
    else:
        assert ran.json["items"] == []


def test_lists_go_on_where_they_stopped(cli: Cli) -> None:
    for _ in range(3):
        cli.open()
    first = cli.json("operator", "task", "list", "--limit", 2)
    assert len(first["items"]) == 2
    more = cli.json("operator", "task", "list", "--limit", 2, "--cursor", first["next"])
    seen = [task["task_id"] for task in first["items"] + more["items"]]
    assert len(set(seen)) == len(seen)
    ran = cli.run("operator", "task", "list", "--limit", 2)
    assert "--cursor" in ran.err
    assert cli.run("operator", "audit", "list", "--limit", 2).code == 0


def test_a_second_replica_sees_the_same(
    cli: Cli, engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    task = cli.open()
    state = {"state_dir": str(cli.config.parent / "state")}
    config = config_of(engines[0], tmp_path, broker=state)
    with Server(tmp_path / "log", "serve", "--config", config) as server:
        server.wait_ready()
        there = Cli(address(config), config, cli.tokens)
        assert there.json("orchestrator", "task", "show", task)["state"] == "active"
        issued = there.json("report-writer", "grant", "request", task, "orders-read")
        assert logs_in(issued["credential"]["dsn"])
        # Issued there, revoked here.
        assert cli.json("orchestrator", "task", "complete", task)["grants"]["revoked"] == 1
        assert not logs_in(issued["credential"]["dsn"])
        assert server.end(signal.SIGINT) == 0


def test_serve_says_why_it_cannot(cli: Cli, tmp_path: Path) -> None:
    ran = broker("serve", "--config", cli.config)
    assert (ran.code, ran.out) == (1, "")
    assert "can't listen on 127.0.0.1:" in ran.err
    ran = broker("serve", "--config", tmp_path / "none.toml")
    assert (ran.code, ran.out) == (1, "")
    assert "there is no configuration file" in ran.err


def test_the_doctor_finds_everything_well(cli: Cli) -> None:
    ran = broker("doctor", "--config", cli.config)
    assert ran.code == 0, ran.out
    assert {line.split()[0] for line in ran.out.splitlines()} == {"ok"}
    found = broker("doctor", "--config", cli.config, "--json").json
    assert found["healthy"] is True
    assert {f["check"] for f in found["findings"]} >= {"redis", "vault", "vault rights"}
    assert broker("check-config", "--config", cli.config, "--json").json["valid"] is True


def test_the_doctor_finds_what_is_down(engines: tuple[DevStack, Config], tmp_path: Path) -> None:
    redis = {"url": "unix:///nowhere/valkey.sock"}
    config = config_of(engines[0], tmp_path, redis=redis, vault={"address": "http://127.0.0.1:9"})
    ran = broker("doctor", "--config", config, "--json")
    assert ran.code == 1
    failed = {f["check"]: f["advice"] for f in ran.json["findings"] if f["verdict"] == "failed"}
    assert failed.keys() == {"redis", "vault"}
    assert all(failed.values())
    with Server(tmp_path / "log", "serve", "--config", config) as server:
        server.wait_ready()
        answer = httpx2.get(address(config) + "/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert httpx2.get(address(config) + "/healthz").status_code == 200
        assert server.end(signal.SIGTERM) == 0


def test_a_fresh_vault_is_set_up(
    engines: tuple[DevStack, Config], tokens: Path, tmp_path: Path
) -> None:
    stack, _ = engines
    assert stack.postgres is not None
    with OpenBao(tmp_path / "data") as bao:
        api = admin(bao, SystemClock())
        asyncio.run(mount_orders(api, stack.postgres))
        api.close()
        vault = {
            "address": bao.address,
            "role_id_file": str(tmp_path / "secrets" / "role-id"),
            "secret_id_file": str(tmp_path / "secrets" / "secret-id"),
        }
        config = config_of(stack, tmp_path, vault=vault)
        command = ("vault", "bootstrap", "--config", config, "--token-file", bao.root_token_file)
        ran = broker(*command)
        assert ran.code == 1
        assert "role-id" in ran.err  # nobody was asked to write them
        ran = broker(*command, "--approle")
        assert ran.code == 0, ran.err
        assert "policy broker-cap-orders-read: read database/creds/orders-read" in ran.out
        for name in ("role-id", "secret-id"):
            assert (tmp_path / "secrets" / name).stat().st_mode & 0o777 == 0o600
        again = broker(*command, "--json")
        assert again.code == 0, again.err
        assert len(again.json["written"]) == len(ran.out.splitlines()) - 1
        with Server(tmp_path / "log", "serve", "--config", config) as server:
            server.wait_ready()
            there = Cli(address(config), config, tokens)
            task = there.open()
            issued = there.json("report-writer", "grant", "request", task, "orders-read")
            assert logs_in(issued["credential"]["dsn"])
            assert there.json("orchestrator", "task", "fail", task)["grants"]["revoked"] == 1
            assert not logs_in(issued["credential"]["dsn"])
