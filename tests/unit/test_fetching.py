"""Keys behind a private CA or a bearer token, and to whom that token is shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import ConfigError, InvalidToken, Unavailable
from broker.identity.fetching import Fetcher, FetchError
from tests.clocks import ManualClock
from tests.issuers import Answer, IssuerKey, jwks
from tests.loopback import Asked, Loopback, private_tls
from tests.unit.jwks_world import KEY, NEXT, new_issuer

if TYPE_CHECKING:
    from pathlib import Path

DISCOVERY = "/.well-known/openid-configuration"
OWN = "the-brokers-own-token"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(OWN)
    return file


def token(clock: ManualClock, issuer: str, key: IssuerKey = KEY) -> str:
    claims = {"iss": issuer, "sub": "a", "aud": "broker", "exp": int(clock.now()) + 600}
    return key.sign(claims)


def keys_at(server: str, *, guarded: bool = False, issuer: str = "") -> Any:
    """Answer as an issuer whose keys are at ``server``; ``guarded`` asks for the token."""

    def answer(asked: Asked) -> Answer:
        if guarded and asked.headers.get("authorization") != f"Bearer {OWN}":
            return Answer(status=401)
        if asked.path == DISCOVERY:
            metadata = {"issuer": issuer, "jwks_uri": f"{server}/jwks"}
            return Answer(json.dumps(metadata).encode())
        return Answer(jwks(KEY), headers={"set-cookie": "session=1"})

    return answer


def shown(server: Loopback) -> list[str | None]:
    """What each request to a server authorised itself with."""
    return [asked.headers.get("authorization") for asked in server.asked]


# ── the token ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("discovery", [False, True])
async def test_keys_that_are_not_for_everyone_are_fetched_with_the_token(
    discovery: bool, clock: ManualClock, token_file: Path
) -> None:
    with Loopback(lambda _: Answer()) as server:
        server.answer = keys_at(server.url, guarded=True, issuer=server.url)
        source: dict[str, object] = (
            {"discovery": True} if discovery else {"jwks_url": f"{server.url}/jwks"}
        )
        issuer = new_issuer(clock, issuer=server.url, token_file=token_file, **source)
        await issuer.verify(token(clock, server.url))
        assert set(shown(server)) == {f"Bearer {OWN}"}
        without = new_issuer(clock, issuer=server.url, **source)
        with pytest.raises(Unavailable) as caught:
            await without.verify(token(clock, server.url))
        assert "answered 401" in str(caught.value.__cause__)
        assert shown(server)[-1] is None


async def test_the_token_goes_to_listed_hosts_and_to_nobody_else(
    clock: ManualClock, token_file: Path
) -> None:
    with Loopback(lambda _: Answer()) as server, Loopback(lambda _: Answer()) as other:
        server.answer = keys_at(other.url, issuer=server.url)
        other.answer = keys_at(other.url, guarded=True)
        settings: dict[str, object] = {
            "issuer": server.url,
            "discovery": True,
            "token_file": token_file,
        }
        with pytest.raises(Unavailable):
            await new_issuer(clock, **settings).verify(token(clock, server.url))
        assert not other.asked
        listed = (other.url.removeprefix("http://"),)
        await new_issuer(clock, jwks_hosts=listed, **settings).verify(token(clock, server.url))
        assert shown(other) == [f"Bearer {OWN}"]


async def test_the_token_does_not_follow_a_redirect(clock: ManualClock, token_file: Path) -> None:
    with Loopback(keys_at("")) as thief, Loopback(lambda _: Answer()) as server:
        moved = {"location": f"{thief.url}/jwks"}
        server.answer = lambda _: Answer(status=302, headers=moved)
        issuer = new_issuer(clock, jwks_url=f"{server.url}/jwks", token_file=token_file)
        with pytest.raises(Unavailable):
            await issuer.verify(token(clock, "https://issuer.example"))
        assert not thief.asked


async def test_a_rotated_token_is_read_and_a_missing_one_is_said(
    clock: ManualClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rotating"
    with Loopback(lambda _: Answer()) as server:
        server.answer = keys_at(server.url, guarded=True)
        issuer = new_issuer(clock, jwks_url=f"{server.url}/jwks", token_file=file)
        seen: list[str] = []
        for content in (None, "canary-7f3a", "canary-7f3a\r\nx: y", "  "):
            if content is not None:
                put(file, content)
            with pytest.raises(Unavailable) as caught:
                await issuer.verify(token(clock, "https://issuer.example"))
            seen.append(f"{caught.value.detail} {caught.value.__cause__}")
            clock.advance(10)
        assert "can't be read: No such file" in seen[0]
        assert "answered 401" in seen[1]
        assert "holds no bearer token" in seen[2]
        assert "holds no bearer token" in seen[3]
        assert "canary" not in "".join(seen) + capsys.readouterr().err
        assert len(server.asked) == 1
        put(file, f"{OWN}\n")
        await issuer.verify(token(clock, "https://issuer.example"))


async def test_no_request_carries_a_token_that_was_not_asked_to(token_file: Path) -> None:
    with Loopback(keys_at("")) as server:
        fetcher = Fetcher(token_file=token_file)
        await fetcher.get(f"{server.url}/jwks")
        await fetcher.get(f"{server.url}/jwks", with_token=True)
        assert shown(server) == [None, f"Bearer {OWN}"]
        # Nothing is kept from one request to the next.
        assert not any("cookie" in asked.headers for asked in server.asked)


# ── the CA ───────────────────────────────────────────────────────────────────────────────────────


async def test_keys_behind_a_private_ca(clock: ManualClock, tmp_path: Path) -> None:
    tls, ca_file = private_tls(tmp_path)
    with Loopback(lambda _: Answer(), tls) as server:
        server.answer = keys_at(server.url, issuer=server.url)
        for source in ({"discovery": True}, {"jwks_url": f"{server.url}/jwks"}):
            issuer = new_issuer(clock, issuer=server.url, ca_file=ca_file, **source)
            await issuer.verify(token(clock, server.url))
            unaware = new_issuer(clock, issuer=server.url, **source)
            with pytest.raises(Unavailable) as caught:
                await unaware.verify(token(clock, server.url))
            assert "ConnectError" in str(caught.value.__cause__)
        assert len(server.asked) == 3


async def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    tls, ca_file = private_tls(tmp_path)
    with Loopback(keys_at(""), tls) as server:
        fetcher = Fetcher(ca_file=ca_file)
        await fetcher.get(f"{server.url}/jwks")
        with pytest.raises(FetchError, match="ConnectError"):
            await fetcher.get(f"{server.url.replace('127.0.0.1', 'localhost')}/jwks")


async def test_a_ca_file_that_breaks_later_keeps_old_keys_serving(
    clock: ManualClock, tmp_path: Path
) -> None:
    tls, ca_file = private_tls(tmp_path)
    with Loopback(lambda _: Answer(), tls) as server:
        server.answer = keys_at(server.url)
        issuer = new_issuer(clock, jwks_url=f"{server.url}/jwks", ca_file=ca_file)
        good = token(clock, "https://issuer.example")
        await issuer.verify(good)
        put(ca_file, "half a certificate")
        clock.advance(301)
        await issuer.verify(good)
        assert len(server.asked) == 1
        with pytest.raises(InvalidToken):
            await issuer.verify(token(clock, "https://issuer.example", NEXT))


def test_a_ca_file_that_is_none_is_found_at_the_start(clock: ManualClock, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a file of CA certificates in PEM"):
        new_issuer(clock, jwks_url="https://issuer.example/jwks", ca_file=tmp_path / "none")


def put(file: Path, content: str) -> None:
    """Replace a file."""
    file.write_text(content)
