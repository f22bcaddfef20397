"""The SPIFFE section of docs/identity.md: its configuration lets a workload in by either SVID."""

from __future__ import annotations

import copy
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from jwt import decode

from broker.errors import InvalidToken
from tests.docs.blocks import DocumentedWorld, blocks, configuration
from tests.issuers import IssuerKey
from tests.svids import NOW, Authority, Window, bundle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

DOCUMENT = blocks("identity.md")["SPIFFE"]
KEY = IssuerKey.new(kid="jwt-1")
ROOT = Authority.root()
ID = DOCUMENT["principals"][0]["identity"]["subject"]


@asynccontextmanager
async def documented(stack: DevStack, file: Path) -> AsyncGenerator[DocumentedWorld]:
    document = copy.deepcopy(DOCUMENT)
    (domain,) = document["identity"]["trust_domains"]
    del domain["bundle_url"]
    domain["bundle_file"] = str(file)
    world = DocumentedWorld(stack.issuer, configuration(stack, document, as_written=False))
    await world.app.connection.command("FLUSHALL")
    try:
        yield world
    finally:
        await world.close()


def token(key: IssuerKey = KEY, **changes: object) -> str:
    (domain,) = DOCUMENT["identity"]["trust_domains"]
    claims = {"sub": ID, "aud": [domain["audience"]], "exp": int(time.time()) + 300}
    return key.sign({**claims, **changes})


async def test_a_jwt_svid_is_exchanged(engines: tuple[DevStack, Config], tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    file.write_bytes(bundle(KEY, ROOT))
    async with documented(engines[0], file) as world:
        answer = await world.redeem(token())
        assert answer.status_code == 200, answer.text
        claims = decode(answer.json()["access_token"], options={"verify_signature": False})
        assert claims["client_id"] == DOCUMENT["principals"][0]["name"]
        for refused in (
            token(IssuerKey.new(kid="jwt-1")),
            token(sub=ID + "2"),
            token(sub=ID.replace("prod", "test")),
            token(aud=["https://other.example"]),
        ):
            assert (await world.redeem(refused)).status_code == 400
        file.write_bytes(bundle())
        assert (await world.redeem(token())).status_code == 400


async def test_an_x509_svid_proves_the_same(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    file = tmp_path / "bundle.json"
    file.write_bytes(bundle(KEY, ROOT))
    since = time.time() - NOW.timestamp()
    now = Window(since - 60, since + 600)
    async with documented(engines[0], file) as world:
        asked = world.app.authenticator
        by_token = await asked.authenticate(token())
        by_certificate = await asked.authenticate_certificate([ROOT.svid(ID, now)])
        assert (by_token.issuer_name, by_token.subject) == ("prod", ID)
        assert (by_certificate.issuer_name, by_certificate.subject) == ("prod", ID)
        assert await asked.certificate_authorities() == (ROOT.der,)
        with pytest.raises(InvalidToken):
            await asked.authenticate_certificate([Authority.root().svid(ID, now)])
