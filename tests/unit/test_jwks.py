"""Keys that come, change, vanish and hang, from a real HTTP server and real files."""

from __future__ import annotations

import asyncio
import gzip
import os
from typing import TYPE_CHECKING

import pytest

from broker.errors import InvalidToken, Unavailable
from broker.identity.jwks_sources import MAX_DOCUMENT_BYTES
from tests.clocks import ManualClock
from tests.issuers import Answer, IssuerServer, jwks
from tests.unit.jwks_world import KEY, NEXT, new_issuer, token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.identity.oidc import JwtIssuer


@pytest.fixture
def server() -> Generator[IssuerServer]:
    with IssuerServer() as running:
        running.answers["/jwks"] = Answer(jwks(KEY))
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def issuer(server: IssuerServer, clock: ManualClock) -> AsyncGenerator[JwtIssuer]:
    made = new_issuer(clock, jwks_url=f"{server.url}/jwks")
    yield made
    await made.aclose()


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
