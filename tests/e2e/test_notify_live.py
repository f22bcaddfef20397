"""`broker serve` tells its channels of what happens, on real engines, and no secret with it."""

from __future__ import annotations

import asyncio
import json
import signal
import tomllib
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import redis
import tomli_w

from broker.config import load_config
from broker.ledger.redis import RedisLedger
from broker.settings import connect, times
from tests.dev.broker_process import Server, broker, eventually
from tests.e2e.test_cli_live import Cli, address, config_of
from tests.issuers import Answer
from tests.loopback import Asked, Loopback
from tests.notify_world import APPROVAL, GLASS, REQUESTED, WEBHOOK_KEY
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack


class Hooks:
    """A receiver: what is posted to /chat fails until told otherwise."""

    def __init__(self) -> None:
        self.up = False
        self.server = Loopback(self._answer)

    def _answer(self, asked: Asked) -> Answer:
        return Answer(status=200 if self.up or "chat" not in asked.path else 503)

    def at(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(asked.body) for asked in self.server.asked if path in asked.path]


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    made = Hooks()
    with made.server:
        yield made


@pytest.fixture
def config(engines: tuple[DevStack, Config], tmp_path: Path, hooks: Hooks) -> Path:
    """A broker of its own, with an empty ledger and three channels."""
    redis.Redis.from_url(engines[1].redis.url).flushall()  # pyright: ignore[reportUnknownMemberType]
    (tmp_path / "key").write_text(WEBHOOK_KEY)
    (tmp_path / "chat").write_text(f"{hooks.server.url}/chat/hunter2canary")
    (tmp_path / "mail").write_text(hooks.server.url.replace("http", "json") + "/mail")
    (tmp_path / "tokens").mkdir()
    for name, subject in SUBJECTS.items():
        (tmp_path / "tokens" / name).write_text(engines[0].issuer.token(subject).reveal())
    file = config_of(engines[0], tmp_path)
    document: dict[str, Any] = tomllib.loads(file.read_text())
    document["channels"] = [
        {
            "name": "hook",
            "kind": "webhook",
            "url": f"{hooks.server.url}/hook",
            "secret_file": "key",
        },
        {"name": "security", "kind": "slack", "url_file": "chat", "timeout": "1s"},
        {"name": "mail", "kind": "apprise", "url_file": "mail", "events": ["break_glass"]},
    ]
    file.write_text(tomli_w.dumps(document))
    return file


def happens(file: Path, *events: tuple[str, dict[str, Any]]) -> None:
    """Let events happen in the broker's ledger, as another replica's scripts would."""

    async def record() -> None:
        config = load_config(file)
        connection = connect(config)
        ledger = RedisLedger(connection, times(config))
        for kind, data in events:
            await ledger.record(kind, shard=3, actor="ci", data=data)
        await connection.close()

    asyncio.run(record())


def test_channels_are_told_of_what_is_in_the_log_and_of_no_secret(
    config: Path, tmp_path: Path, hooks: Hooks
) -> None:
    requested = {**REQUESTED, "expires_at": 4_000_000_000_000, "request": {"x": "hunter2canary"}}
    cli = Cli(address(config), config, tmp_path / "tokens")
    with Server(tmp_path / "out", "serve", "--config", config) as server:
        server.wait_ready()
        task = cli.open()
        ran = cli.run("report-writer", "grant", "request", task, "orders-read", "--json")
        credential = json.loads(ran.out)["credential"]
        happens(config, ("approval.requested", requested), ("glass.broken", GLASS))

        eventually(lambda: len(hooks.at("/hook")) == 2, "the webhook is told")
        eventually(lambda: len(hooks.at("/mail")) == 1, "apprise's service is told")

        def warned() -> bool:
            checks = httpx2.get(f"{cli.url}/readyz").json()["checks"]
            return "channel security fails: it answered 503" in checks["audit"]

        eventually(warned, "readiness warns of the one that is down")
        shown = httpx2.get(f"{cli.url}/metrics").text
        assert 'broker_notifications_total{channel="hook",outcome="told"} 2.0' in shown
        assert 'broker_audit_sink_failures_total{sink="channel:security"}' in shown
        tried = len(hooks.at("/chat"))
        hooks.up = True
        eventually(lambda: len(hooks.at("/chat")) >= tried + 2, "it is told once it is there")
        assert cli.json("orchestrator", "task", "complete", task)["state"] == "completed"
        assert server.end(signal.SIGTERM) == 0
        logged = server.log.read_text()

    first, second = hooks.at("/hook")
    issuer = tomllib.loads(config.read_text())["broker"]["issuer"]
    assert first["link"] == f"{issuer}/console/approvals/{APPROVAL}"
    assert second["title"] == "Glass broken, without approval: deployer → deploy-prod"
    assert hooks.at("/chat")[-1]["text"].startswith("Glass broken")
    assert "a delivery fails" in logged
    told = "".join(str(asked.body) for asked in hooks.server.asked)
    for secret in (credential["password"], "hunter2canary", WEBHOOK_KEY):
        assert secret not in told
        assert secret not in logged


def test_after_a_restart_nothing_is_missing_and_nothing_told_again(
    config: Path, tmp_path: Path, hooks: Hooks
) -> None:
    with Server(tmp_path / "one", "serve", "--config", config) as server:
        server.wait_ready()
        happens(config, ("glass.broken", GLASS))
        eventually(lambda: len(hooks.at("/hook")) == 1, "it is told")
        assert server.end(signal.SIGTERM) == 0
    happens(config, ("glass.broken", {**GLASS, "by": "another"}))
    with Server(tmp_path / "two", "serve", "--config", config) as server:
        server.wait_ready()
        eventually(lambda: len(hooks.at("/hook")) == 2, "what happened meanwhile is told")
        assert server.end(signal.SIGTERM) == 0
    assert [message["data"]["by"] for message in hooks.at("/hook")] == ["incident-bot", "another"]


def test_doctor_and_the_test_command_look_at_them(
    config: Path, tmp_path: Path, hooks: Hooks
) -> None:
    for name in ("key", "chat", "mail"):
        (tmp_path / name).chmod(0o600)
    found = {f["check"]: f for f in broker("doctor", "-c", config, "--json").json["findings"]}
    assert found["channel hook"]["verdict"] == "ok"
    (tmp_path / "chat").write_text("no url: hunter2canary")
    (tmp_path / "key").chmod(0o644)
    ran = broker("doctor", "-c", config, "--json")
    rows = [(f["check"], f["verdict"], f["detail"]) for f in ran.json["findings"]]
    assert ("file modes", "failed", f"{tmp_path / 'key'} is open to others") in rows
    assert ("channel security", "failed") in [row[:2] for row in rows]
    assert "hunter2canary" not in ran.out
    tested = broker("notify", "test", "mail", "--config", config)
    assert (tested.code, tested.out) == (0, "mail: arrived\n")
