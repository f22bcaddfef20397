"""Pitfalls 30 and 31: hvac and the environment, and how the embedded Valkey is set up."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.backends.vault_api import VaultGone
from broker.secret import Secret
from broker.settings import admin_api
from tests.admin import READ_PATH, Admin
from tests.world import World, logs_in

if TYPE_CHECKING:
    from broker.config import CapabilityEntry, Config
    from broker.dev.stack import DevStack

NOWHERE = "http://127.0.0.1:1"


async def test_30_nothing_of_the_environment_reaches_vault_calls(
    engines: tuple[DevStack, Config],
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / ".vault-token").write_text("not-a-token")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAULT_TOKEN", "not-a-token")
    monkeypatch.setenv("VAULT_NAMESPACE", "not/ours")
    for name in ("VAULT_ADDR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
        monkeypatch.setenv(name.lower(), NOWHERE)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    misled = World(engines[0].issuer, engines[1])
    try:
        task = await misled.open()
        granted = await misled.grant(task)
        assert await logs_in(granted["credential"])
        assert (await misled.complete(task))["grants"] == {
            "revoked": 1,
            "revoking": 0,
            "abandoned": 0,
        }
    finally:
        await misled.close()


async def test_30_a_call_without_a_token_does_not_borrow_one_from_the_environment(
    engines: tuple[DevStack, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, config = engines
    assert stack.openbao is not None
    assert config.vault is not None
    monkeypatch.setenv("VAULT_TOKEN", stack.openbao.root_token.reveal())
    api = admin_api(config.vault, Secret("wrong"))
    try:
        with pytest.raises(Exception, match="403"):
            await api.as_broker("get", "sys/policies/acl/broker")
    finally:
        api.close()


async def test_30_what_is_not_there_is_an_error_and_not_an_empty_secret(
    engines: tuple[DevStack, Config],
) -> None:
    """hvac's ``read`` returns None on 404."""
    stack, config = engines
    assert stack.openbao is not None
    assert config.vault is not None
    api = admin_api(config.vault, stack.openbao.root_token)
    try:
        with pytest.raises(VaultGone):
            await api.as_task(stack.openbao.root_token, "get", "cubbyhole/nothing/here", lane="x")
    finally:
        api.close()


async def test_30_a_capability_whose_path_is_missing_fails_and_delivers_nothing(
    engines: tuple[DevStack, Config], world: World
) -> None:
    stack, config = engines
    missing = "nowhere/creds/orders-read"
    await Admin(stack).vault(
        "PUT",
        "sys/policies/acl/broker-cap-orders-read",
        {
            "policy": f'path "{READ_PATH}" {{ capabilities = ["read"] }}\n'
            f'path "{missing}" {{ capabilities = ["read"] }}'
        },
    )

    def moved(entry: CapabilityEntry) -> CapabilityEntry:
        return entry.model_copy(update={"path": missing}) if entry.path == READ_PATH else entry

    capabilities = tuple(map(moved, config.capabilities))
    lost = World(stack.issuer, config.model_copy(update={"capabilities": capabilities}))
    try:
        task = await lost.open()
        path = f"/v1/tasks/{task['task_id']}/grants"
        answer = await lost.call("orchestrator", "POST", path, {"capability": "orders-read"})
        assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
        assert "credential" not in answer.json()
        [grant] = await lost.app.pipeline.queries.grants_of(task["task_id"], dead=True)
        assert grant.state == "failed"
        await lost.complete(task)
    finally:
        await lost.close()


async def test_31_the_embedded_valkey_has_a_unix_socket_no_tcp_and_loses_nothing(
    engines: tuple[DevStack, Config], world: World
) -> None:
    stack, config = engines
    assert stack.valkey is not None
    assert config.redis.url.startswith("unix://")
    names = ("port", "tls-port", "appendonly", "appendfsync", "maxmemory-policy")
    found = await world.app.connection.command("CONFIG", "GET", *names)
    assert {_text(name): _text(value) for name, value in found.items()} == {
        "port": "0",
        "tls-port": "0",
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
    }
    assert mode(config.redis.url.removeprefix("unix://").partition("?")[0]) & 0o077 == 0
    assert not listens(stack.valkey.pid)
    assert (await world.app.ready())["ledger"] == "ok"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def mode(path: str) -> int:
    return Path(path).stat().st_mode


def listens(pid: int) -> set[str]:
    """The sockets of a process that are TCP and in the state LISTEN."""
    inodes: set[str] = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[9] for row in rows if row[3] == "0A"} & inodes
