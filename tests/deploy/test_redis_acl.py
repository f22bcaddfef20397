"""The broker's ACL user: all that the broker does, and nothing else."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis

from broker.ledger import scripts
from tests.deploy.alerting import DEPLOY
from tests.http.parties import party_world
from tests.servers.valkey import ADMIN_PASSWORD, TargetValkey
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

FILE: Final = DEPLOY / "redis/users.acl"
PASSWORD: Final = "password-of-the-broker"
ROOT: Final = DEPLOY.parent / "broker"
OF_THE_LIBRARY: Final = frozenset(
    {
        *("eval", "evalsha", "script|exists", "script|load", "client|setinfo", "hello", "select"),
        *("wait", "asking", "cluster|slots", "command"),
    }
)
"""What is said to run scripts, on each new connection, for replicas, and to find one's way in a
cluster."""


class LedgerValkey(TargetValkey):
    """A Valkey with the ACL file of deploy/, and an admin."""

    def _launch(self) -> None:
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        users = FILE.read_text("utf-8").replace("PASSWORD_SHA256", digest)
        self._acl_file.write_text(f"{users}user admin on >{ADMIN_PASSWORD} ~* &* +@all\n")
        super()._launch()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[LedgerValkey]:
    server = LedgerValkey(tmp_path_factory.mktemp("ledger"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def least(
    engines: tuple[DevStack, Config], valkey: LedgerValkey, tmp_path: Path
) -> AsyncGenerator[World]:
    """A broker that logs in as that user."""
    file = tmp_path / "broker-password"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    section = {
        "url": f"redis://{valkey.place}/0",
        "username": "broker",
        "password_file": str(file),
    }
    valkey.ask("FLUSHALL")
    made = party_world(engines[0], redis=section)
    yield made
    assert made.app.audit is not None
    await made.app.audit.stop()  # or its folder would have a writer still
    await made.close()


def allowed() -> set[str]:
    """The commands that the file allows."""
    return set(re.findall(r"\+([a-z|]+)", FILE.read_text("utf-8")))


def used() -> set[str]:
    """The commands that scripts call, and that the broker's own code sends."""
    found: set[str] = set()
    for name in scripts.NAMES:
        found |= set(re.findall(r"redis\.p?call\(\s*'([A-Z]+)'", scripts.source(name)))
    for module in (*(ROOT / "ledger").glob("*.py"), *ROOT.glob("*.py")):
        text = module.read_text("utf-8")
        found |= set(re.findall(r"\.(?:command|on_every_server)\(\s*\"([A-Z]+)\"", text))
        found |= set(re.findall(r"\bpipe\.([a-z]+)\(", text)) - {"execute"}
    return {name.lower() for name in found}


def test_the_user_has_what_the_broker_uses_and_nothing_else() -> None:
    there = {word.replace("xinfo|stream", "xinfo") for word in allowed()}
    assert there == used() | OF_THE_LIBRARY


async def test_a_broker_lives_by_it(least: World, valkey: LedgerValkey) -> None:
    """Whatever its jobs and its parts ask for, nothing is refused."""
    task = await least.open(ttl="5m", heartbeat="1m")
    grant = await least.grant(task)
    assert await logs_in(grant["credential"])
    path = f"/v1/tasks/{task['task_id']}"
    await least.call(task["agent"], "POST", f"{path}/heartbeat", task_id=task["task_id"])
    asked = {"capability": "deploy"}
    held = await least.open(capabilities=["deploy"])
    await least.call(
        held["agent"], "POST", f"/v1/tasks/{held['task_id']}/grants", asked, task_id=held["task_id"]
    )
    for where in ("/v1/approvals", "/v1/tasks", "/v1/grants", "/v1/audit/events", "/v1/principals"):
        answer = await least.call("operator", "GET", where)
        assert answer.status_code == 200, answer.text
    freeze = {"selector": {"agent": "order-clerk"}, "reason": "a test", "freeze": True}
    assert (await least.call("operator", "POST", "/v1/revocations", freeze)).status_code == 200
    assert (await least.call("operator", "POST", "/v1/reconciliations", {})).status_code == 200

    assert (await least.complete(task))["state"] == "completed"
    assert not await logs_in(grant["credential"])
    app = least.app
    await least.sweep(ahead_ms=3_600_000)
    await app.reaper.look()
    await app.reaper.tend()
    await app.reaper.prune()
    await app.reaper.review()
    await app.rotation.tend()
    await app.gauges.read()
    assert app.audit is not None
    await app.audit.look()
    assert (await app.audit.drain()).drained
    assert (await app.ready())["ledger"] == "ok"

    refusals: list[Any] = valkey.ask("ACL", "LOG")
    assert refusals == []


@pytest.mark.parametrize(
    "words",
    [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "WHOAMI"),
        ("SHUTDOWN",),
        ("REPLICAOF", "NO", "ONE"),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "LIST"),
        ("SUBSCRIBE", "x"),
        ("PUBLISH", "x", "y"),
        ("GET", "session:other"),
        ("SET", "broker:elsewhere", "x"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", "session:other"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ("EVAL", "return redis.call('GET', 'session:other')", "0"),
        ("MONITOR",),
        ("RESTORE", "broker:{s00}:tasks", "0", "x"),
    ],
    ids=" ".join,
)
def test_nothing_else_is_let_through(valkey: LedgerValkey, words: tuple[str, ...]) -> None:
    url = f"redis://broker:{PASSWORD}@{valkey.place}/0"
    with redis.Redis.from_url(url) as client:  # pyright: ignore[reportUnknownMemberType]
        with pytest.raises(redis.ResponseError) as refused:
            client.execute_command(*words)  # pyright: ignore[reportUnknownMemberType]
        assert "permission" in str(refused.value).lower()
    valkey.ask("ACL", "LOG", "RESET")


def test_without_its_password_nobody_is_let_in(valkey: LedgerValkey) -> None:
    for url in (f"redis://{valkey.place}/0", f"redis://broker:wrong@{valkey.place}/0"):
        with (
            redis.Redis.from_url(url) as client,  # pyright: ignore[reportUnknownMemberType]
            pytest.raises((redis.AuthenticationError, redis.ResponseError)),
        ):
            client.execute_command("HGET", "broker:{s00}:tasks", "x")  # pyright: ignore[reportUnknownMemberType]
