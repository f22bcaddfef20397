"""Keys that come, change, vanish and hang, from a real HTTP server and real files."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import ConfigError, InvalidToken, Unavailable
from broker.identity.jwk import MAX_KEYS, KeySet, UnusableKey, parse_key, parse_key_set
from broker.identity.jwks_sources import MAX_DOCUMENT_BYTES, KeySourceError, keys_address
from broker.identity.models import IssuerSettings
from broker.identity.oidc import JwtIssuer
from tests.clocks import ManualClock
from tests.issuers import Answer, IssuerKey, IssuerServer, jwks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

KEY = IssuerKey.new()
NEXT = IssuerKey.new(kid="k2")
DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def server() -> Generator[IssuerServer]:
    with IssuerServer() as running:
        running.answers["/jwks"] = Answer(jwks(KEY))
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def new_issuer(clock: ManualClock, **changes: object) -> JwtIssuer:
    values: dict[str, Any] = {
        "name": "ci",
        "issuer": "https://issuer.example",
        "audience": "broker",
        "algorithms": ("ES256", "RS256"),
        **changes,
    }
    return JwtIssuer(IssuerSettings(**values), clock)


@pytest.fixture
async def issuer(server: IssuerServer, clock: ManualClock) -> AsyncGenerator[JwtIssuer]:
    made = new_issuer(clock, jwks_url=f"{server.url}/jwks")
    yield made
    await made.aclose()


def token(clock: ManualClock, key: IssuerKey = KEY, **header: object) -> str:
    now = int(clock.now())
    claims = {"sub": "a", "aud": "broker", "iat": now, "exp": now + 600}
    return key.sign({"iss": "https://issuer.example", **claims}, **header)


async def arrival(server: IssuerServer) -> None:
    """Wait until the next request has reached the server."""
    assert await asyncio.to_thread(server.arrived.acquire, timeout=10)


# ── a URL ────────────────────────────────────────────────────────────────────────────────────────


async def test_keys_are_fetched_once_and_again_when_due(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    for _ in range(5):
        await issuer.verify(token(clock))
    assert server.requests == ["/jwks"]
    clock.advance(299)
    await issuer.verify(token(clock))
    assert len(server.requests) == 1
    clock.advance(1)
    await issuer.verify(token(clock))
    assert len(server.requests) == 2


async def test_callers_at_once_share_one_fetch(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    server.open.clear()
    callers = [asyncio.create_task(issuer.verify(token(clock))) for _ in range(20)]
    await arrival(server)
    # One who gives up takes nobody along.
    callers[0].cancel()
    server.open.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert not any(isinstance(result, BaseException) for result in results[1:])
    assert len(server.requests) == 1


async def test_a_rotation_is_picked_up_through_the_unknown_kid(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    await issuer.verify(token(clock))
    server.answers["/jwks"] = Answer(jwks(KEY, NEXT))
    server.open.clear()
    first = asyncio.create_task(issuer.verify(token(clock, NEXT)))
    await arrival(server)
    await arrival(server)
    # The second one with the new key comes while the first is waiting.
    second = asyncio.create_task(issuer.verify(token(clock, NEXT)))
    server.open.set()
    await asyncio.gather(first, second)
    assert len(server.requests) == 2


@pytest.mark.parametrize("kid", [None, "k"])
async def test_a_rotation_is_picked_up_without_a_kid_too(
    kid: str | None, server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    server.answers["/jwks"] = Answer(jwks(KEY.jwk(kid=kid)))
    await issuer.verify(token(clock, kid=None))
    server.answers["/jwks"] = Answer(jwks(NEXT.jwk(kid=kid)))
    await issuer.verify(token(clock, NEXT, kid=None))


async def test_a_flood_of_unknown_kids_causes_one_fetch_per_cooldown(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    await issuer.verify(token(clock))
    for flood in range(3):
        for number in range(20):
            with pytest.raises(InvalidToken):
                await issuer.verify(token(clock, kid=f"random-{flood}-{number}"))
        assert len(server.requests) == 2 + flood
        clock.advance(10)


async def test_a_bad_signature_under_a_known_kid_fetches_nothing(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    await issuer.verify(token(clock))
    with pytest.raises(InvalidToken):
        await issuer.verify(token(clock, NEXT, kid="k1"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("how", ["stopped", "error", "garbage"])
async def test_old_keys_serve_while_the_endpoint_fails_and_not_for_ever(
    how: str, server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    await issuer.verify(token(clock))
    if how == "stopped":
        server.stop()
    else:
        # An error page is not to be read, even if it looks like an answer.
        failure = Answer(jwks(), status=503) if how == "error" else Answer(b"<html>")
        server.answers["/jwks"] = failure
    for _ in range(4):
        clock.advance(21_600)
        await issuer.verify(token(clock))
    clock.advance(1)
    with pytest.raises(Unavailable, match="'ci'") as caught:
        await issuer.verify(token(clock))
    assert caught.value.retry_after == 10
    assert server.url not in caught.value.detail
    # It comes back, and so does the issuer after the cooldown.
    if how == "stopped":
        server.start()
    server.answers["/jwks"] = Answer(jwks(KEY))
    clock.advance(10)
    await issuer.verify(token(clock))


async def test_a_failing_endpoint_is_asked_once_per_cooldown(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    server.answers["/jwks"] = Answer(status=500)
    for attempt in range(3):
        for _ in range(5):
            with pytest.raises(Unavailable):
                await issuer.verify(token(clock))
        assert len(server.requests) == attempt + 1
        clock.advance(10)


async def test_nobody_with_old_keys_waits_for_an_endpoint_that_is_failing(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    await issuer.verify(token(clock))
    server.answers["/jwks"] = Answer(status=500)
    clock.advance(300)
    await issuer.verify(token(clock))
    # Now it hangs; the next attempt is due, and held at the server.
    server.open.clear()
    clock.advance(10)
    async with asyncio.timeout(3):
        await issuer.verify(token(clock))
    for _ in range(3):
        await arrival(server)
    async with asyncio.timeout(3):
        await issuer.verify(token(clock))
    assert len(server.requests) == 3


async def test_after_a_long_silence_an_old_failure_does_not_excuse_old_keys(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    await issuer.verify(token(clock))
    server.answers["/jwks"] = Answer(status=500)
    clock.advance(300)
    await issuer.verify(token(clock))
    server.answers["/jwks"] = Answer(jwks())
    clock.advance(3600)
    with pytest.raises(InvalidToken):
        await issuer.verify(token(clock))


@pytest.mark.parametrize("document", [jwks(), jwks(KEY.jwk(use="enc")), jwks({"kty": "oct"})])
async def test_an_emptied_set_revokes_the_keys(
    document: bytes, server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    await issuer.verify(token(clock))
    server.answers["/jwks"] = Answer(document)
    clock.advance(300)
    with pytest.raises(InvalidToken):
        await issuer.verify(token(clock))
    # And they stay revoked when the endpoint goes down.
    server.stop()
    clock.advance(300)
    with pytest.raises(InvalidToken):
        await issuer.verify(token(clock))


async def test_a_redirect_is_not_followed(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    server.answers["/moved"] = server.answers["/jwks"]
    server.answers["/jwks"] = Answer(status=302, headers={"location": f"{server.url}/moved"})
    with pytest.raises(Unavailable):
        await issuer.verify(token(clock))
    assert server.requests == ["/jwks"]


async def test_an_oversized_or_compressed_document_is_refused(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    document = jwks(KEY).ljust(MAX_DOCUMENT_BYTES)
    for answer in (
        Answer(document + b" "),
        Answer(gzip.compress(document), headers={"content-encoding": "gzip"}),
    ):
        server.answers["/jwks"] = answer
        with pytest.raises(Unavailable):
            await issuer.verify(token(clock))
        clock.advance(10)
    server.answers["/jwks"] = Answer(document)
    await issuer.verify(token(clock))


async def test_the_environment_sends_nobody_elsewhere(
    server: IssuerServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    issuer = new_issuer(clock, jwks_url=f"{server.url}/jwks")
    await issuer.verify(token(clock))
    await issuer.aclose()


async def test_closing_ends_a_fetch_under_way(
    server: IssuerServer, clock: ManualClock, issuer: JwtIssuer
) -> None:
    server.open.clear()
    caller = asyncio.create_task(issuer.verify(token(clock)))
    await arrival(server)
    await issuer.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller


# ── discovery ────────────────────────────────────────────────────────────────────────────────────


def discovery_token(clock: ManualClock, url: str, key: IssuerKey = KEY) -> str:
    now = int(clock.now())
    return key.sign({"iss": url, "sub": "a", "aud": "broker", "exp": now + 600})


def metadata(**members: object) -> Answer:
    return Answer(json.dumps(members).encode())


@pytest.mark.parametrize("slash", ["", "/"])
async def test_discovery_leads_to_the_keys(
    slash: str, server: IssuerServer, clock: ManualClock
) -> None:
    url = f"{server.url}/realm{slash}"
    server.answers[f"/realm{DISCOVERY}"] = metadata(issuer=url, jwks_uri=f"{server.url}/jwks")
    issuer = new_issuer(clock, issuer=url, discovery=True)
    await issuer.verify(discovery_token(clock, url))
    # The issuer moves its keys.
    server.answers["/new"] = Answer(jwks(NEXT))
    server.answers[f"/realm{DISCOVERY}"] = metadata(issuer=url, jwks_uri=f"{server.url}/new")
    await issuer.verify(discovery_token(clock, url, NEXT))
    assert server.requests == [f"/realm{DISCOVERY}", "/jwks", f"/realm{DISCOVERY}", "/new"]
    await issuer.aclose()


@pytest.mark.parametrize(
    "members",
    [
        {"issuer": "{url}/"},
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": 1},
        {"jwks_uri": "http://keys.example/jwks"},
        {"jwks_uri": "http://localhost.example/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "//keys.example/jwks"},
        {"jwks_uri": "https:///jwks"},
    ],
    ids=str,
)
async def test_discovery_that_cannot_be_trusted_leads_nowhere(
    members: dict[str, object], server: IssuerServer, clock: ManualClock
) -> None:
    good: dict[str, object] = {"issuer": server.url, "jwks_uri": f"{server.url}/jwks"}
    changed = {
        name: value.replace("{url}", server.url) if isinstance(value, str) else value
        for name, value in members.items()
    }
    server.answers[DISCOVERY] = metadata(**{**good, **changed})
    issuer = new_issuer(clock, issuer=server.url, discovery=True)
    with pytest.raises(Unavailable):
        await issuer.verify(discovery_token(clock, server.url))
    assert server.requests == [DISCOVERY]
    await issuer.aclose()


@pytest.mark.parametrize(
    ("issuer", "address", "accepted"),
    [
        ("https://issuer.example", "https://keys.example/jwks", True),
        ("https://issuer.example", "http://keys.example/jwks", False),
        ("https://issuer.example", "http://127.0.0.1/jwks", False),
        ("https://issuer.example", "https://user@keys.example/jwks", False),
        ("http://127.0.0.1:1", "http://localhost:2/jwks", True),
        ("http://127.0.0.1:1", "http://keys.example/jwks", False),
        ("http://127.0.0.1:1", "https://keys.example/jwks", True),
    ],
)
def test_an_https_issuer_keeps_its_keys_at_https(issuer: str, address: str, accepted: bool) -> None:
    document = metadata(issuer=issuer, jwks_uri=address).body
    if accepted:
        assert keys_address(document, issuer) == address
    else:
        with pytest.raises(KeySourceError, match="jwks_uri"):
            keys_address(document, issuer)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
async def test_discovery_that_is_no_document_leads_nowhere(
    body: bytes, server: IssuerServer, clock: ManualClock
) -> None:
    server.answers[DISCOVERY] = Answer(body)
    issuer = new_issuer(clock, issuer=server.url, discovery=True)
    with pytest.raises(Unavailable):
        await issuer.verify(discovery_token(clock, server.url))
    await issuer.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "http://127.0.0.1.example",
        "http://0.0.0.0:80",
        "https://user:password@issuer.example",
        "http://user@127.0.0.1",
        "ftp://issuer.example",
        "issuer.example",
        "https://",
        "http://[::1",
    ],
)
def test_keys_are_never_fetched_over_an_unprotected_channel(url: str, clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match="https"):
        new_issuer(clock, issuer=url, discovery=True)
    with pytest.raises(ConfigError, match="https"):
        new_issuer(clock, jwks_url=url)


@pytest.mark.parametrize(
    "url", ["https://issuer.example/jwks", "http://localhost:1", "http://[::1]:1/jwks"]
)
async def test_https_and_loopback_are_accepted(url: str, clock: ManualClock) -> None:
    await new_issuer(clock, jwks_url=url).aclose()


# ── a file ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(KEY))
    issuer = new_issuer(clock, jwks_file=path)
    await issuer.verify(token(clock))
    # Replaced as configuration mounts do it: another file under the name, of the same size.
    replacement = tmp_path / "new"
    replacement.write_bytes(jwks(NEXT))
    os.utime(replacement, ns=(0, path.stat().st_mtime_ns))
    replacement.rename(path)
    with pytest.raises(InvalidToken):
        await issuer.verify(token(clock))
    await issuer.verify(token(clock, NEXT))
    # Changed in place.
    path.write_bytes(jwks())
    with pytest.raises(InvalidToken):
        await issuer.verify(token(clock, NEXT))
    await issuer.aclose()


async def test_a_file_that_is_missing_or_broken_is_not_the_tokens_fault(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "jwks.json"
    issuer = new_issuer(clock, jwks_file=path)
    for content in (
        None,
        b"",
        b"[]",
        b"{}",
        b'{"keys":1}',
        jwks(KEY).ljust(MAX_DOCUMENT_BYTES + 1),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(Unavailable):
            await issuer.verify(token(clock))
        clock.advance(10)
    path.write_bytes(jwks(KEY))
    await issuer.verify(token(clock))
    # Half-written, then gone: what was read last goes on serving.
    path.write_bytes(jwks(NEXT)[:-9])
    await issuer.verify(token(clock))
    path.unlink()
    clock.advance(10)
    await issuer.verify(token(clock))


# ── single keys ──────────────────────────────────────────────────────────────────────────────────

RSA = IssuerKey.new("RS256")


@pytest.mark.parametrize(
    ("jwk", "why"),
    [
        ("text", "object"),
        ({}, "kty"),
        ({"kty": ["EC"]}, "kty"),
        ({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, "not used"),
        ({"kty": "AKP", "alg": "ML-DSA-44"}, "not used"),
        (KEY.jwk(crv="secp256k1"), "not used"),
        (KEY.jwk(crv="P-384"), "malformed"),
        (KEY.jwk(crv=["P-256"]), "crv"),
        (KEY.jwk(x="AAAA"), "malformed"),
        (KEY.jwk(y=KEY.jwk()["x"]), "malformed"),
        (KEY.jwk(x=1), "malformed"),
        (KEY.jwk(y=None), "malformed"),
        (KEY.jwk(d="AAAA"), "private"),
        (KEY.jwk(d=1), "private"),
        (RSA.jwk(p="AAAA"), "private"),
        (KEY.jwk(use="enc"), "not for verifying"),
        (KEY.jwk(use=["sig"]), "not for verifying"),
        (KEY.jwk(key_ops=["sign"]), "not for verifying"),
        (KEY.jwk(key_ops="verify"), "not for verifying"),
        (KEY.jwk(alg="ES384"), "doesn't fit"),
        (KEY.jwk(alg="HS256"), "doesn't fit"),
        (KEY.jwk(alg="none"), "doesn't fit"),
        (KEY.jwk(alg=["ES256"]), "doesn't fit"),
        (RSA.jwk(alg="ES256"), "doesn't fit"),
        (RSA.jwk(alg="RSA-OAEP"), "doesn't fit"),
        (RSA.jwk(n="AQAB"), "malformed|weaker"),
        (RSA.jwk(n=None), "malformed"),
        (RSA.jwk(e="AA"), "malformed"),
        (KEY.jwk(kid=1), "kid"),
        (KEY.jwk(kid=""), "kid"),
        (KEY.jwk(kid="k" * 257), "kid"),
        (IssuerKey.new("RS256", bits=1024).jwk(), "1024 bits"),
    ],
)
def test_keys_that_cannot_be_used_are_left_out(jwk: object, why: str) -> None:
    with pytest.raises(UnusableKey, match=why):
        parse_key(jwk)
    document = json.dumps({"keys": [jwk, KEY.jwk()]}).encode()
    found = parse_key_set(document)
    assert len(found) == 1
    assert len(found.unusable) == 1
    assert found.unusable[0].startswith("key 0: ")


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (KEY.jwk(), {"ES256"}),
        (KEY.jwk(use="jwt-svid"), {"ES256"}),
        (KEY.jwk(use=None, key_ops=["verify"]), {"ES256"}),
        (IssuerKey.new("ES384").jwk(), {"ES384"}),
        (IssuerKey.new("ES512").jwk(), {"ES512"}),
        (IssuerKey.new("EdDSA").jwk(), {"EdDSA"}),
        (RSA.jwk(), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (RSA.jwk(alg="PS384"), {"PS384"}),
    ],
)
def test_keys_are_bound_to_their_algorithms(jwk: object, algorithms: set[str]) -> None:
    assert parse_key(jwk).algorithms == algorithms


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys":{}}', b"[" * 100_000, b"\xff"])
def test_what_is_no_key_set_is_no_empty_key_set(document: bytes) -> None:
    with pytest.raises(ValueError, match="not a JWK Set"):
        parse_key_set(document)


def test_key_sets_are_bounded() -> None:
    with pytest.raises(ValueError, match=f"more than {MAX_KEYS}"):
        parse_key_set(jwks(*[{"kty": "EC"}] * (MAX_KEYS + 1)))


def test_an_empty_key_set_is_valid_and_knows_nothing() -> None:
    empty = parse_key_set(jwks())
    assert len(empty) == 0
    assert not empty.knows(None)
    assert not KeySet([]).knows("k1")
