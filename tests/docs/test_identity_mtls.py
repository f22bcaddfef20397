"""The mTLS section of docs/identity.md: its configuration serves TLS, and believes its proxy.

Handshakes are in ``tests/unit/test_tls.py`` and ``tests/e2e/test_mtls.py``.
"""

from __future__ import annotations

import copy
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.certificates import LIVE, authority, server_files
from tests.docs.blocks import DocumentedWorld, blocks, configuration
from tests.svids import bundle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

DOCUMENT = blocks("identity.md")["mTLS"]
(PRINCIPAL,) = DOCUMENT["principals"]
(PROXY,) = DOCUMENT["broker"]["trusted_proxies"]
ROOT = authority("mesh")
SVID = ROOT.svid(PRINCIPAL["identity"]["subject"], window=LIVE)
OTHER = ROOT.svid(PRINCIPAL["identity"]["subject"] + "2", window=LIVE)


@pytest.fixture
async def world(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> AsyncGenerator[DocumentedWorld]:
    document: dict[str, Any] = copy.deepcopy(DOCUMENT)
    (tmp_path / "bundle.json").write_bytes(bundle(ROOT))
    document["identity"]["trust_domains"][0]["bundle_file"] = str(tmp_path / "bundle.json")
    cert_file, key_file = server_files(ROOT, tmp_path)
    document["tls"].update(cert_file=str(cert_file), key_file=str(key_file))
    stack = engines[0]
    made = DocumentedWorld(stack.issuer, configuration(stack, document, as_written=False))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


def client(world: DocumentedWorld, address: str, *certificate: bytes) -> httpx2.AsyncClient:
    """Somebody at an address, who sends the header of a proxy."""
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(world.app.http(), client=(address, 50_000)),
        base_url=world.config.broker.issuer,
        headers=[("Client-Cert", f":{b64encode(der).decode()}:") for der in certificate],
    )


async def ask(http: httpx2.AsyncClient, world: DocumentedWorld) -> httpx2.Response:
    form = {
        "grant_type": "client_credentials",
        "client_id": PRINCIPAL["name"],
        "resource": world.config.broker.issuer,
    }
    return await http.post("/oauth/token", data=form)


async def test_the_proxys_word_is_a_proof_and_binds_the_token(world: DocumentedWorld) -> None:
    async with client(world, PROXY, SVID) as http:
        answer = await ask(http, world)
        assert answer.status_code == 200, answer.text
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert (await http.get("/v1/tasks", headers=bearer)).status_code == 200
    for address, chain in ((PROXY, ()), (PROXY, (OTHER,)), ("10.0.3.8", (SVID,))):
        async with client(world, address, *chain) as http:
            assert (await ask(http, world)).status_code == 400
            assert (await http.get("/v1/tasks", headers=bearer)).status_code == 401


async def test_the_broker_serves_tls_and_asks_for_certificates(world: DocumentedWorld) -> None:
    tls = world.app.tls()
    assert tls is not None
    await tls.start()
    assert tls.context.verify_mode.name == "CERT_OPTIONAL"
