"""Whom the client trusts and what it shows, at real TLS servers; certificates are renewed."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from broker.client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    InvalidRequest,
    Retries,
    Secret,
    Tls,
)
from tests.certificates import LIVE, authority, key_pem, pem, server_files, write_private
from tests.issuers import Answer
from tests.loopback import Asked, Loopback
from tests.svids import LEAF_KEY
from tests.unit.fake_broker import JWT, TASK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVERS, OTHERS, CLIENTS = authority("servers"), authority("others"), authority("clients")
ID = "spiffe://prod.example.com/a"
ONCE = Retries(attempts=1)


def identity() -> Secret:
    return Secret(JWT)


def answer(asked: Asked) -> Answer:
    if asked.path == "/oauth/token":
        return Answer(json.dumps({"access_token": "t", "expires_in": 300}).encode())
    return Answer(json.dumps(TASK).encode() if asked.path == "/v1/tasks/a" else b"{}")


class Peer(Loopback):
    """A broker behind TLS; remembers the serial number of each connection's certificate."""

    def __init__(self, folder: Path, *, mutual: bool) -> None:
        cert, key = server_files(SERVERS, folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=CLIENTS.der)
        super().__init__(answer, context)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path, mutual=False) as made:
        yield made


@pytest.fixture
def mutual(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path, mutual=True) as made:
        yield made


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return write_private(tmp_path / "ca.pem", pem(SERVERS.der))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A client's certificate and its key."""
    certificate = CLIENTS.svid(ID, window=LIVE)
    return (
        write_private(tmp_path / "client.pem", pem(certificate)),
        write_private(tmp_path / "client.key", key_pem(LEAF_KEY)),
    )


def works(url: str, tls: Tls | None) -> bool:
    with Client(url, identity, tls=tls, retries=ONCE) as client:
        try:
            return client.get_task("a").state == "active"
        except ConnectionFailed:
            return False


async def works_async(url: str, tls: Tls | None) -> bool:
    async with AsyncClient(url, identity, tls=tls, retries=ONCE) as client:
        try:
            return (await client.get_task("a")).state == "active"
        except ConnectionFailed:
            return False


async def test_the_authority_that_is_named_is_trusted_and_no_other(
    peer: Peer, ca_file: Path, tmp_path: Path
) -> None:
    other = write_private(tmp_path / "other.pem", pem(OTHERS.der))
    assert works(peer.url, Tls(ca_file))
    assert await works_async(peer.url, Tls(str(ca_file)))
    for tls in (None, Tls(other)):
        assert not works(peer.url, tls)
        assert not await works_async(peer.url, tls)
    assert not works(peer.url.replace("127.0.0.1", "localhost.localdomain"), Tls(ca_file))


async def test_the_client_shows_its_certificate(
    mutual: Peer, ca_file: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    both = write_private(tmp_path / "both.pem", pair[0].read_bytes() + pair[1].read_bytes())
    assert works(mutual.url, Tls(ca_file, *pair))
    assert works(mutual.url, Tls(ca_file, both))
    assert await works_async(mutual.url, Tls(ca_file, *pair))
    assert not works(mutual.url, Tls(ca_file))
    assert not await works_async(mutual.url, Tls(ca_file))


async def test_renewed_files_are_read_again(
    mutual: Peer, ca_file: Path, pair: tuple[Path, Path]
) -> None:
    good = pair[0].read_bytes()
    stranger = pem(OTHERS.svid(ID, window=LIVE))
    write_private(pair[0], stranger)
    tls = Tls(ca_file, *pair)
    with Client(mutual.url, identity, tls=tls, retries=ONCE) as client:
        async with AsyncClient(mutual.url, identity, tls=tls, retries=ONCE) as other:
            with pytest.raises(ConnectionFailed):
                client.get_task("a")
            with pytest.raises(ConnectionFailed):
                await other.get_task("a")
            write_private(pair[0], good)
            assert client.get_task("a").state == "active"
            assert (await other.get_task("a")).state == "active"
            # Halfway through the next renewal what was read last goes on.
            write_private(pair[0], b"-----BEGIN CERT")
            assert client.get_task("a").state == "active"
            assert (await other.get_task("a")).state == "active"
            # A connection from before isn't used with another certificate.
            write_private(pair[0], stranger)
            with pytest.raises(ConnectionFailed):
                client.get_task("a")
            with pytest.raises(ConnectionFailed):
                await other.get_task("a")


def test_the_environment_names_the_files(
    mutual: Peer, ca_file: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_CA_FILE", str(ca_file))
    monkeypatch.setenv("BROKER_CLIENT_CERT", str(pair[0]))
    monkeypatch.setenv("BROKER_CLIENT_KEY", str(pair[1]))
    assert works(mutual.url, None)
    with pytest.raises(InvalidRequest, match="isn't https"):
        Client("http://127.0.0.1:8700", identity)
    # A transport of one's own brings its own.
    Client("http://127.0.0.1:8700", identity, http_transport=httpx2.HTTPTransport()).close()
    with pytest.raises(InvalidRequest, match="either tls or http_transport"):
        Client(mutual.url, identity, tls=Tls(ca_file), http_transport=httpx2.HTTPTransport())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ca_file": "none.pem"}, "none.pem: No such file"),
        ({"ca_file": "client.key"}, "CA file"),
        ({"cert_file": "none.pem"}, "none.pem: No such file"),
        ({"cert_file": "client.pem"}, "not the right kind"),
        ({"cert_file": "client.pem", "key_file": "other.key"}, "another's"),
        ({"cert_file": "client.pem", "key_file": "locked.key"}, "encrypted"),
        ({"key_file": "client.key"}, "without its certificate"),
    ],
    ids=["no-ca", "no-authority", "no-certificate", "no-key", "another", "locked", "alone"],
)
def test_files_that_cannot_be_used_are_said_at_once(
    tmp_path: Path, pair: tuple[Path, Path], change: dict[str, str], said: str
) -> None:
    assert all(file.exists() for file in pair)
    other = CLIENTS.key
    write_private(tmp_path / "other.key", key_pem(other))
    locked = LEAF_KEY.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    write_private(tmp_path / "locked.key", locked)
    files: dict[str, Any] = {name: tmp_path / file for name, file in change.items()}
    with pytest.raises(InvalidRequest, match=said) as caught:
        Client("https://broker.example", identity, tls=Tls(**files))
    assert caught.value.code == "invalid_tls"
