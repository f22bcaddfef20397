"""The server's side of TLS, in real handshakes: who gets in, and what changes without a restart."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from broker.errors import ConfigError
from broker.http.tls import ServerTls, client_chain
from tests.certificates import (
    LIVE,
    PAST,
    authority,
    client_context,
    key_pem,
    pem,
    server_files,
    write_private,
)
from tests.svids import LEAF_KEY, Authority, new_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine
    from pathlib import Path

SERVER_CA = authority("servers")
CLIENTS = authority("clients")
OTHERS = authority("others")
BELOW = CLIENTS.intermediate(window=LIVE)
SPIFFE_ID = "spiffe://prod.example.com/agent/a"
SVID = BELOW.svid(SPIFFE_ID, window=LIVE)


class Server:
    """A listener that tells each client which certificates it has seen."""

    def __init__(self, folder: Path, *authorities: Authority) -> None:
        self.folder = folder
        self.cert_file, self.key_file = server_files(SERVER_CA, folder)
        self.authorities = authorities
        self.down = False
        self.tls = self.load()
        self.seen: list[tuple[bytes, ...]] = []
        self.port = 0

    def load(self) -> ServerTls:
        return ServerTls(self.cert_file, self.key_file, authorities=self.ask)

    async def ask(self) -> tuple[bytes, ...]:
        await asyncio.sleep(0)
        if self.down:
            raise RuntimeError
        return tuple(authority.der for authority in self.authorities)

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        await self.tls.start()
        server = await asyncio.start_server(self.greet, "127.0.0.1", 0, ssl=self.tls.context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen.append(client_chain(writer.get_extra_info("ssl_object")))
        writer.write(b"hello")
        await writer.drain()
        await reader.read()
        writer.close()

    async def lets_in(self, context: ssl.SSLContext, name: str = "localhost") -> Any:
        """The connection's TLS object if it was answered, else None."""
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=context, server_hostname=name
            )
        except OSError:
            return None
        try:
            return writer.get_extra_info("ssl_object") if await reader.read(5) else None
        except OSError:
            return None
        finally:
            writer.close()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path, CLIENTS)


def client(folder: Path, *chain: bytes, server_ca: Authority = SERVER_CA) -> ssl.SSLContext:
    context = client_context(server_ca)
    if chain:
        file = write_private(folder / "client.pem", key_pem(LEAF_KEY) + pem(*chain))
        context.load_cert_chain(file)
    return context


# ── who gets in ──────────────────────────────────────────────────────────────────────────────────


async def test_clients_with_and_without_certificates(server: Server, tmp_path: Path) -> None:
    async with server.listening():
        assert await server.lets_in(client(tmp_path))
        assert await server.lets_in(client(tmp_path, SVID, BELOW.der))
        assert await server.lets_in(client(tmp_path, SVID, BELOW.der), "127.0.0.1")  # no SNI
    assert server.seen == [(), (SVID, BELOW.der), (SVID, BELOW.der)]


def test_all_is_the_same_in_the_event_loop_that_serves(server: Server, tmp_path: Path) -> None:
    async def seen() -> list[tuple[bytes, ...]]:
        async with server.listening():
            assert await server.lets_in(client(tmp_path))
            assert await server.lets_in(client(tmp_path, SVID, BELOW.der))
            assert not await server.lets_in(client(tmp_path, OTHERS.svid(SPIFFE_ID, window=LIVE)))
        return server.seen

    running: Coroutine[Any, Any, list[tuple[bytes, ...]]] = seen()
    assert uvloop.run(running) == [(), (SVID, BELOW.der)]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("what", ["unknown authority", "incomplete", "expired", "another's key"])
async def test_certificates_that_do_not_verify_are_refused(
    version: ssl.TLSVersion, what: str, server: Server, tmp_path: Path
) -> None:
    chains = {
        "unknown authority": (OTHERS.svid(SPIFFE_ID, window=LIVE),),
        "incomplete": (SVID,),
        "expired": (CLIENTS.svid(SPIFFE_ID, window=PAST),),
        # Signed by somebody who calls himself as the authority does.
        "another's key": (authority("clients").svid(SPIFFE_ID, window=LIVE),),
    }
    context = client(tmp_path, *chains[what])
    context.maximum_version = version
    async with server.listening():
        assert not await server.lets_in(context)
    assert server.seen == []


async def test_an_authority_below_another_will_do(tmp_path: Path) -> None:
    server = Server(tmp_path, BELOW)
    async with server.listening():
        assert await server.lets_in(client(tmp_path, SVID))
        assert not await server.lets_in(client(tmp_path, CLIENTS.svid(SPIFFE_ID, window=LIVE)))


async def test_without_authorities_any_certificate_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with server.listening():
        assert await server.lets_in(client(tmp_path))
        assert not await server.lets_in(client(tmp_path, SVID, BELOW.der))


async def test_clients_are_not_asked_unless_configured(server: Server, tmp_path: Path) -> None:
    server.tls = ServerTls(server.cert_file, server.key_file)
    async with server.listening():
        assert await server.lets_in(client(tmp_path, OTHERS.svid(SPIFFE_ID, window=LIVE)))
    assert server.seen == [()]


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE+AES+SHA"),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_old_tls_is_refused(
    version: ssl.TLSVersion, ciphers: str, server: Server, tmp_path: Path
) -> None:
    context = client(tmp_path)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    async with server.listening():
        assert not await server.lets_in(context)


# ── what changes ─────────────────────────────────────────────────────────────────────────────────


async def test_authorities_rotate(server: Server, tmp_path: Path) -> None:
    old, new = client(tmp_path, SVID, BELOW.der), OTHERS.svid(SPIFFE_ID, window=LIVE)
    async with server.listening():
        assert not await server.lets_in(client(tmp_path, new))
        server.authorities = (CLIENTS, OTHERS)
        await server.tls.refresh()
        assert await server.lets_in(client(tmp_path, new))
        assert await server.lets_in(old)
        server.authorities = (OTHERS,)
        await server.tls.refresh()
        assert await server.lets_in(client(tmp_path, new))
        assert not await server.lets_in(old)
        server.authorities = ()
        await server.tls.refresh()
        assert not await server.lets_in(client(tmp_path, new))


async def test_authorities_that_cannot_be_had_stay(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with server.listening():
        server.down = True
        await server.tls.refresh()
        await server.tls.refresh()
        assert await server.lets_in(client(tmp_path, SVID, BELOW.der))
    assert capsys.readouterr().err.count("authorities of client certificates stay") == 1


async def test_the_servers_certificate_rotates(server: Server, tmp_path: Path) -> None:
    async def shown() -> str:
        connection = await server.lets_in(client(tmp_path))
        return x509.load_der_x509_certificate(
            connection.getpeercert(binary_form=True)
        ).subject.rfc4514_string()

    async with server.listening():
        assert await shown() == "CN=broker"
        server_files(SERVER_CA, tmp_path, "renewed")
        await server.tls.refresh()
        assert await shown() == "CN=renewed"
        # Half of a renewal: the certificate is there, its key isn't yet.
        key = server.key_file.read_bytes()
        server_files(SERVER_CA, tmp_path, "again")
        new_key_pem = server.key_file.read_bytes()
        write_private(server.key_file, key)
        await server.tls.refresh()
        assert await shown() == "CN=renewed"
        write_private(server.key_file, new_key_pem)
        await server.tls.refresh()
        assert await shown() == "CN=again"
        server.key_file.chmod(0o644)
        server.key_file.write_bytes(key)
        await server.tls.refresh()
        assert await shown() == "CN=again"
        server.cert_file.unlink()
        await server.tls.refresh()
        assert await shown() == "CN=again"


async def test_a_session_is_not_resumed_by_a_ticket(server: Server, tmp_path: Path) -> None:
    context = client(tmp_path, SVID, BELOW.der)
    async with server.listening():
        connection = await server.lets_in(context)
    assert connection.version() == "TLSv1.3"
    assert connection.session is None or not connection.session.has_ticket


# ── files that can't be used ─────────────────────────────────────────────────────────────────────


def refused(server: Server) -> str:
    with pytest.raises(ConfigError) as caught:
        server.load()
    return caught.value.detail


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o666])
def test_a_key_that_others_can_read_is_refused(mode: int, server: Server) -> None:
    server.key_file.chmod(mode)
    assert f"run chmod 600 {server.key_file}" in refused(server)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_group_may_read_as_where_secrets_are_mounted(mode: int, server: Server) -> None:
    server.key_file.chmod(mode)
    server.load()


def test_a_link_to_the_key_is_followed(server: Server) -> None:
    real = server.key_file.rename(server.folder / "real.key")
    server.key_file.symlink_to(real)
    server.load()
    real.chmod(0o644)
    assert "open to other users" in refused(server)


def test_a_key_of_another_certificate_is_refused(server: Server) -> None:
    write_private(server.key_file, key_pem(new_key()))
    assert "the key is not the certificate's" in refused(server)


@pytest.mark.parametrize("file", ["cert_file", "key_file"])
def test_garbage_is_refused(file: str, server: Server) -> None:
    write_private(getattr(server, file), b"garbage")
    assert str(server.cert_file) in refused(server)


@pytest.mark.parametrize("file", ["cert_file", "key_file"])
def test_a_missing_file_is_named(file: str, server: Server) -> None:
    path: Path = getattr(server, file)
    path.unlink()
    assert f"{path} can't be read: No such file" in refused(server)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(server: Server) -> None:
    key = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    write_private(server.key_file, key)
    assert "encrypted" in refused(server)
