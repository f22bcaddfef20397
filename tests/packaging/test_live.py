"""The base package against a running broker."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.dev.broker_process import Server
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
    task = broker.open_task("report-writer", "nightly report", ["orders-read"])
    grant = broker.request_grant(task.task_id, "orders-read")
    print(type(grant.credential).__name__)
    print(broker.complete(task.task_id).state)
"""


@pytest.fixture(scope="module")
def url(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("serve")
    config = config_of(engines[0], folder)
    with Server(folder / "log", "serve", "--config", config) as server:
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
    opened = bare.broker(
        *("task", "open", "--agent", "report-writer", "--purpose", "nightly report"),
        *("--capability", "orders-read", "--json"),
        **env,
    )
    task = opened.json["task_id"]
    listed = bare.broker("task", "list", **env)
    assert listed.code == 0, listed.err
    assert task in listed.out
    ended = bare.broker("task", "complete", task, **env)
    assert (ended.code, ended.out) == (0, f"{task}: completed, 0 grants revoked\n")


def test_the_sdk(bare: Bare, url: str, identity: Path) -> None:
    ran = bare.script(PROGRAM, url, identity)
    assert (ran.code, ran.out) == (0, "Credential\ncompleted\n"), ran.err
