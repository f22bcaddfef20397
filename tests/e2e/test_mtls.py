"""`broker serve` over TLS: client certificates from the handshake, and from a proxy's headers."""

from __future__ import annotations

import os
import socket
import ssl
import tomllib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import tomli_w

from tests.certificates import (
    LIVE,
    authority,
    client_context,
    key_pem,
    pem,
    server_files,
    write_private,
)
from tests.dev.broker_process import Server, eventually
from tests.e2e.test_cli_live import config_of
from tests.svids import LEAF_KEY, Authority, bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

pytestmark = pytest.mark.usefixtures("empty_ledger")

SERVER_CA = authority("servers")
CLIENTS = authority("clients")
NEXT = authority("next")
OTHERS = authority("others")
ID = "spiffe://prod.example.com/orchestrator"
BELOW = CLIENTS.intermediate(window=LIVE)
SVID = BELOW.svid(ID, window=LIVE)
STRANGER = CLIENTS.svid("spiffe://prod.example.com/stranger", window=LIVE)
MESH = {"name": "mesh", "trust_domain": "prod.example.com", "bundle_file": "bundle.json"}
ORCHESTRATOR = {
    "name": "mesh-orchestrator",
    "role": "orchestrator",
    "owner": "data@example.com",
    "identity": {"issuer": "mesh", "subject": ID},
}


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(content)
    fresh.replace(path)


class Served:
    """A broker over TLS, and clients of it."""

    def __init__(self, stack: DevStack, folder: Path, **broker: Any) -> None:
        self.folder = folder
        cert_file, key_file = server_files(SERVER_CA, folder)
        self.trust(CLIENTS)
        file = config_of(stack, folder, broker=broker)
        document = tomllib.loads(file.read_text("utf-8"))
        self.listen = document["broker"]["listen"]
        self.issuer = document["broker"]["issuer"] = f"https://{self.listen}"
        del document["console"]["link_issuer"]  # links are for http on this machine
        document["tls"] = {
            "cert_file": str(cert_file),
            "key_file": str(key_file),
            "client_certificates": True,
        }
        document["identity"]["trust_domains"] = [MESH]
        document["principals"].append(ORCHESTRATOR)
        file.write_text(tomli_w.dumps(document), "utf-8")
        self.process = Server(folder / "log", "serve", "--config", file)

    def trust(self, *authorities: Authority) -> None:
        replace(self.folder / "bundle.json", bundle(*authorities))

    def client(self, *chain: bytes) -> httpx2.Client:
        context = client_context(SERVER_CA)
        if chain:
            pair = write_private(self.folder / "pair.pem", key_pem(LEAF_KEY) + pem(*chain))
            context.load_cert_chain(pair)
        return httpx2.Client(base_url=self.issuer, verify=context, trust_env=False)

    def lets_in(self, *chain: bytes) -> bool:
        try:
            with self.client(*chain) as http:
                return http.get("/healthz").status_code == 200
        except httpx2.TransportError:
            return False

    def ask_token(self, http: httpx2.Client, **headers: str) -> httpx2.Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": "mesh-orchestrator",
            "resource": self.issuer,
        }
        return http.post("/oauth/token", data=form, headers=headers)


def header(*chain: bytes) -> dict[str, str]:
    """What a proxy writes (RFC 9440)."""
    own, *others = (f":{b64encode(der).decode()}:" for der in chain)
    return {"Client-Cert": own} | ({"Client-Cert-Chain": ", ".join(others)} if others else {})


@pytest.fixture(scope="module")
def served(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    made = Served(engines[0], tmp_path_factory.mktemp("tls"))
    with made.process as process:
        process.wait_ready()
        yield made


@pytest.fixture(scope="module")
def proxied(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """As ``served``, and this machine's loopback address is a proxy's."""
    made = Served(
        engines[0], tmp_path_factory.mktemp("proxied"), trusted_proxies=["127.0.0.1", "10.9.0.0/16"]
    )
    with made.process as process:
        process.wait_ready()
        yield made


# ── the handshake ────────────────────────────────────────────────────────────────────────────────


def test_a_certificate_is_the_proof_and_the_token_is_bound_to_it(served: Served) -> None:
    task = {"agent": "report-writer", "purpose": "x", "capabilities": ["orders-read"]}
    with served.client(SVID, BELOW.der) as http:
        answer = served.ask_token(http)
        assert answer.status_code == 200, answer.text
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert http.post("/v1/tasks", json=task, headers=bearer).status_code == 201
    for other in (served.client(), served.client(STRANGER)):
        with other as http:
            assert http.post("/v1/tasks", json=task, headers=bearer).status_code == 401


def test_without_a_certificate_nothing_is_proved(served: Served) -> None:
    assert served.lets_in()
    for chain in ((), (STRANGER,)):
        with served.client(*chain) as http:
            refused = served.ask_token(http)
            assert refused.status_code == 400
            assert refused.json()["error"] == "invalid_client"


def test_a_certificate_of_somebody_else_is_refused_by_the_handshake(served: Served) -> None:
    assert served.lets_in(SVID, BELOW.der)
    assert not served.lets_in(OTHERS.svid(ID, window=LIVE))
    assert not served.lets_in(SVID)  # without the authority between


def test_headers_about_certificates_are_nothing_from_a_stranger(served: Served) -> None:
    spoofed = header(SVID, BELOW.der)
    with served.client() as http:
        assert served.ask_token(http, **spoofed).status_code == 400
        forwarded = {"X-Forwarded-For": "10.9.0.1", **spoofed}
        assert served.ask_token(http, **forwarded).status_code == 400
        # Not even read: garbage is no error.
        assert served.ask_token(http, **{"Client-Cert": "garbage"}).status_code == 400
    with served.client(STRANGER) as http:
        assert served.ask_token(http, **spoofed).status_code == 400
    with served.client(SVID, BELOW.der) as http:
        assert served.ask_token(http, **header(STRANGER)).status_code == 200


def test_authorities_and_the_servers_certificate_rotate_while_it_serves(served: Served) -> None:
    renewed = NEXT.svid(ID, window=LIVE)
    with served.client(SVID, BELOW.der) as open_before:
        assert served.ask_token(open_before).status_code == 200
        assert not served.lets_in(renewed)
        try:
            served.trust(NEXT)
            eventually(lambda: served.lets_in(renewed), "the next authority is believed")
            eventually(lambda: not served.lets_in(SVID, BELOW.der), "the last one isn't")
            with served.client(renewed) as http:
                assert served.ask_token(http).status_code == 200
            # A connection made before is still open, and proves nothing more.
            assert served.ask_token(open_before).status_code == 400
        finally:
            served.trust(CLIENTS)
            eventually(lambda: served.lets_in(SVID, BELOW.der), "as it was")

    host, port = served.listen.split(":")
    before = ssl.get_server_certificate((host, int(port)))
    server_files(SERVER_CA, served.folder, "renewed")
    eventually(
        lambda: ssl.get_server_certificate((host, int(port))) != before, "the new certificate"
    )
    assert served.lets_in(SVID, BELOW.der)


def test_a_resumed_session_proves_nothing_that_is_not_trusted_now(served: Served) -> None:
    """TLS 1.2 resumes without showing the certificate again; who it is, is asked all the same."""
    context = client_context(SERVER_CA)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    pair = write_private(served.folder / "resuming.pem", key_pem(LEAF_KEY) + pem(SVID, BELOW.der))
    context.load_cert_chain(pair)
    form = f"grant_type=client_credentials&client_id=mesh-orchestrator&resource={served.issuer}"
    ask = (
        f"POST /oauth/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n{form}"
    ).encode()
    host, port = served.listen.split(":")

    def answered(session: ssl.SSLSession | None) -> tuple[str, bool | None, ssl.SSLSession | None]:
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as wrapped,
        ):
            wrapped.sendall(ask)
            status = wrapped.recv(64).decode().split()[1]
            return status, wrapped.session_reused, wrapped.session

    status, _, session = answered(None)
    assert status == "200"
    try:
        served.trust(NEXT)
        eventually(lambda: not served.lets_in(SVID, BELOW.der), "the authority isn't believed")
        status, reused, _ = answered(session)
        assert (status, reused) == ("400", True)
    finally:
        served.trust(CLIENTS)
        eventually(lambda: served.lets_in(SVID, BELOW.der), "as it was")


# ── a proxy ──────────────────────────────────────────────────────────────────────────────────────


def test_a_proxy_says_whose_certificate_it_has_seen(proxied: Served) -> None:
    with proxied.client() as http:
        assert proxied.ask_token(http, **header(SVID, BELOW.der)).status_code == 200
        # Verified by us all the same.
        assert proxied.ask_token(http, **header(SVID)).status_code == 400
        assert proxied.ask_token(http, **header(OTHERS.svid(ID, window=LIVE))).status_code == 400
        assert proxied.ask_token(http).status_code == 400
        garbled = proxied.ask_token(http, **{"Client-Cert": "garbage"})
        assert garbled.status_code == 400
        assert garbled.json()["error"] == "invalid_request"


def test_a_proxys_own_certificate_is_not_its_clients(proxied: Served) -> None:
    with proxied.client(SVID, BELOW.der) as http:
        assert proxied.ask_token(http).status_code == 400
        assert proxied.ask_token(http, **header(STRANGER)).status_code == 400


def test_no_key_is_in_the_log(served: Served, proxied: Served) -> None:
    for each in (served, proxied):
        said = (each.folder / "log").read_text()
        assert "PRIVATE" not in said
        assert "Traceback" not in said
        assert os.fspath(each.folder / "server.key") not in said
