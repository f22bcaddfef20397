"""The base package against a running broker."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from broker.secret import REDACTED
from tests.audit_bench import segments
from tests.dev.broker_process import Started, broker, eventually
from tests.e2e.test_cli_live import address, config_of
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.packaging.bare import Bare

pytestmark = pytest.mark.usefixtures("empty_ledger")

PROGRAM = """
import sys
from broker.client import Client, token_file

with Client(sys.argv[1], token_file(sys.argv[2])) as broker:
    with broker.task("report-writer", "nightly report", ["orders-read", "send-email"]) as task:
        print(task.grant("orders-read").dsn())
        print(task.tool("send-email")(lambda to, subject: "sent")(["a@example.com"], "Orders"))
    print(task.end.state)
"""
OPEN = (
    *("task", "open", "--agent", "report-writer", "--purpose", "nightly report"),
    *("--capability", "orders-read", "--json"),
)


@pytest.fixture(scope="module")
def config(engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return config_of(engines[0], tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def url(config: Path) -> Iterator[str]:
    with Started(config.with_name("log"), "serve", "--config", config) as server:
        server.wait_ready()
        yield address(config)
        assert server.end(signal.SIGTERM) == 0


@pytest.fixture
def identity(engines: tuple[DevStack, Config], tmp_path: Path) -> Path:
    file = tmp_path / "orchestrator.jwt"
    file.write_text(engines[0].issuer.token(SUBJECTS["orchestrator"]).reveal())
    return file


def test_commands(bare: Bare, url: str, identity: Path) -> None:
    env = {"BROKER_URL": url, "BROKER_IDENTITY_TOKEN_FILE": str(identity)}
    task = bare.broker(*OPEN, **env).json["task_id"]
    listed = bare.broker("task", "list", **env)
    assert listed.code == 0, listed.err
    assert task in listed.out
    ended = bare.broker("task", "complete", task, **env)
    assert (ended.code, ended.out) == (0, f"{task}: completed, 0 grants revoked\n")


def test_a_command_with_a_credential(bare: Bare, url: str, identity: Path) -> None:
    env = {"BROKER_URL": url, "BROKER_IDENTITY_TOKEN_FILE": str(identity)}
    ran = bare.broker(
        *("exec", "--agent", "report-writer", "--capability", "orders-read"),
        *("--purpose", "nightly report", "--", "printenv", "PGUSER"),
        **env,
    )
    assert ran.code == 0, ran.err
    assert ran.out.startswith("v-")


def test_the_sdk(bare: Bare, url: str, identity: Path) -> None:
    ran = bare.script(PROGRAM, url, identity)
    assert (ran.code, ran.out) == (0, f"{REDACTED}\nsent\ncompleted\n"), ran.err


def test_an_auditor_verifies_the_log(bare: Bare, url: str, config: Path, identity: Path) -> None:
    env = {"BROKER_URL": url, "BROKER_IDENTITY_TOKEN_FILE": str(identity)}
    task = bare.broker(*OPEN, **env).json["task_id"]
    assert bare.broker("task", "complete", task, **env).code == 0
    key = identity.with_name("log.key")
    key.write_text(broker("audit", "key", "--config", config).out)
    log = config.parent / "state" / "audit"
    eventually(lambda: any(task in part.read_text() for part in segments(log)), "in the log")
    ran = bare.broker("audit", "verify", log, "--key", key, "--json")
    assert ran.code == 0, ran.out
    assert ran.json["ok"]
