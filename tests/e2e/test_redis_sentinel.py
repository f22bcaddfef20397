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
from tests.svids import leaf_extensions, new_key
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.svids import Authority


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


@contextlib.asynccontextmanager
async def behind_tls(path: str, folder: Path, *, asks: bool) -> AsyncGenerator[tuple[str, Login]]:
    """The embedded Valkey behind TLS; the wheel has none itself. Yields the way in, for a client.

    ``asks`` is whether clients must have a certificate.
    """
    authority = certificates.authority("redis")
    ca = certificates.write_private(folder / "ca.crt", certificates.pem(authority.der))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.load_cert_chain(*certificates.server_files(authority, folder))
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED

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
    cert, key = client_files(authority, folder)
    yield f"rediss://127.0.0.1:{port}/0", Login(ca_file=ca, cert_file=cert, key_file=key)
    server.close()


def client_files(issuer: Authority, folder: Path) -> tuple[Path, Path]:
    """A certificate to ask with, and its key, as files."""
    key = new_key()
    certificate = issuer.sign(leaf_extensions(), key=key, window=certificates.LIVE, subject="us")
    return (
        certificates.write_private(folder / "client.crt", certificates.pem(certificate)),
        certificates.write_private(folder / "client.key", certificates.key_pem(key)),
    )


@pytest.fixture
def path(engines: tuple[DevStack, Config]) -> str:
    """The socket of the embedded Valkey."""
    valkey = engines[0].valkey
    assert valkey is not None
    return valkey.url.removeprefix("unix://").partition("?")[0]


async def works(url: str, login: Login) -> bool:
    """Whether the ledger can be written and read there."""
    redis = Connection(url, login=login, shards=4)
    try:
        await redis.command("SET", keys.table(1, "token:tls"), "x", "PX", 60_000)
        return await redis.command("GET", keys.table(1, "token:tls")) == b"x"
    except LedgerUnavailable:
        return False
    finally:
        await redis.close()


async def test_tls_is_spoken_with_the_files_of_the_configuration(path: str, tmp_path: Path) -> None:
    async with behind_tls(path, tmp_path, asks=False) as (url, login):
        assert await works(url, Login(ca_file=login.ca_file))
        assert not await works(url, Login())  # nobody the world knows has signed it
        assert not await works(url.replace("rediss:", "redis:"), login)


async def test_a_server_that_asks_for_a_certificate_is_shown_ours(
    path: str, tmp_path: Path
) -> None:
    async with behind_tls(path, tmp_path, asks=True) as (url, login):
        assert await works(url, login)
        assert not await works(url, Login(ca_file=login.ca_file))
        other = tmp_path / "other"
        other.mkdir()
        cert, key = client_files(certificates.authority("other"), other)
        assert not await works(url, Login(ca_file=login.ca_file, cert_file=cert, key_file=key))


async def test_a_broker_lives_over_tls_with_a_certificate(
    engines: tuple[DevStack, Config], path: str, tmp_path: Path
) -> None:
    """As its configuration says it, through to a credential and its end."""
    stack, config = engines
    async with behind_tls(path, tmp_path, asks=True) as (url, login):
        files = {name: getattr(login, name) for name in ("ca_file", "cert_file", "key_file")}
        section = config.redis.model_copy(update={"url": url, **files})
        world = World(stack.issuer, config.model_copy(update={"redis": section}))
        await world.empty()
        task = await world.open()
        grant = await world.grant(task)
        await world.complete(task)
        assert not await logs_in(grant["credential"])
        assert (await world.app.ready())["ledger"] == "ok"
        await world.close()
