"""The ledger behind a Sentinel, and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest

from broker.errors import LedgerUnavailable
from broker.ledger import keys
from broker.ledger.connection import Connection
from broker.ledger.durability import durability
from broker.ledger.topology import Login
from tests import certificates
from tests.servers.valkeys import Node, Sentinel
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack


async def test_the_one_that_the_sentinel_names_is_the_ledger(
    engines: tuple[DevStack, Config], tmp_path: Path, pristine: None
) -> None:
    stack, config = engines
    master = Node(tmp_path / "master")
    replica = Node(tmp_path / "replica", {"replicaof": f"127.0.0.1 {master.port}"})
    sentinel = Sentinel(tmp_path / "sentinel", "orders", master.port, 1)
    with master, replica, sentinel:
        redis = config.redis.model_copy(
            update={"url": f"redis+sentinel://127.0.0.1:{sentinel.port}/orders/0", "replicas": 1}
        )
        state = config.broker.model_copy(update={"state_dir": tmp_path / "state"})
        world = World(stack.issuer, config.model_copy(update={"redis": redis, "broker": state}))

        async def followed() -> bool:
            return "slave0" in str(await asyncio.to_thread(sentinel.ask, "INFO")) or (
                "slaves=1" in str(await asyncio.to_thread(sentinel.ask, "INFO", "sentinel"))
                or "'slaves': 1" in str(await asyncio.to_thread(sentinel.ask, "INFO", "sentinel"))
            )

        await wait_until(followed, "the sentinel knows the replica")
        task = await world.open()
        grant = await world.grant(task)
        assert await durability(world.app.connection) == []

        master.kill()

        async def known() -> bool:
            with contextlib.suppress(LedgerUnavailable):
                return bool(await world.app.pipeline.queries.task(task["task_id"]))
            return False

        await wait_until(known, "the replica has taken over")
        refused = await world.call(
            task["agent"],
            "POST",
            f"/v1/tasks/{task['task_id']}/grants",
            {"capability": "orders-read"},
            task_id=task["task_id"],
        )
        assert refused.status_code == 503  # no replica is left that could know of it
        await world.complete(task)
        assert not await logs_in(grant["credential"])
        await world.close()


@pytest.fixture
async def behind_tls(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> AsyncGenerator[tuple[str, Login]]:
    """The embedded Valkey behind TLS; the wheel has none itself."""
    authority = certificates.authority("redis")
    ca = certificates.write_private(tmp_path / "ca.crt", certificates.pem(authority.der))
    cert, key = certificates.server_files(authority, tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.load_cert_chain(cert, key)
    valkey = engines[0].valkey
    assert valkey is not None
    path = valkey.url.removeprefix("unix://").partition("?")[0]

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(path)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    yield f"rediss://127.0.0.1:{port}/0", Login(ca_file=ca, cert_file=cert, key_file=key)
    server.close()


async def test_tls_is_spoken_with_the_files_of_the_configuration(
    behind_tls: tuple[str, Login],
) -> None:
    url, login = behind_tls
    redis = Connection(url, login=login, shards=4)
    await redis.command("SET", keys.table(1, "token:tls"), "x", "PX", 60_000)
    assert await redis.command("GET", keys.table(1, "token:tls")) == b"x"
    await redis.close()


async def test_a_server_of_another_authority_is_refused(behind_tls: tuple[str, Login]) -> None:
    url, _ = behind_tls
    redis = Connection(url, shards=4)
    with pytest.raises(LedgerUnavailable):
        await redis.command("GET", keys.table(1, "token:tls"))
    await redis.close()
