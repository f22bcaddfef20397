"""Keys found through an issuer's discovery document, and addresses keys may come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from broker.errors import ConfigError, Unavailable
from broker.identity.jwks_sources import KeySourceError, keys_address
from tests.clocks import ManualClock
from tests.issuers import Answer, IssuerKey, IssuerServer, jwks
from tests.unit.jwks_world import KEY, NEXT, new_issuer

if TYPE_CHECKING:
    from collections.abc import Generator

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def server() -> Generator[IssuerServer]:
    with IssuerServer() as running:
        running.answers["/jwks"] = Answer(jwks(KEY))
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


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


LISTED = ("keys.example", "keys.example:8443", "localhost:2", "[::1]:2")


@pytest.mark.parametrize(
    ("issuer", "address"),
    [
        ("https://issuer.example", "http://issuer.example/jwks"),
        ("https://issuer.example", "http://keys.example/jwks"),
        ("https://issuer.example", "http://localhost:2/jwks"),
        ("https://issuer.example", "https://user@keys.example/jwks"),
        ("https://issuer.example", "https://issuer.example@keys.example/jwks"),
        ("http://127.0.0.1:1", "http://keys.example/jwks"),
        ("http://127.0.0.1:1", "ftp://127.0.0.1:1/jwks"),
    ],
)
def test_an_https_issuer_keeps_its_keys_at_https(issuer: str, address: str) -> None:
    with pytest.raises(KeySourceError, match="not an https URL"):
        keys_address(metadata(issuer=issuer, jwks_uri=address).body, issuer, LISTED)


@pytest.mark.parametrize(
    ("issuer", "address"),
    [
        ("https://issuer.example", "https://issuer.example/other/jwks"),
        ("https://issuer.example", "https://ISSUER.example:443/jwks"),
        ("https://issuer.example:443/realm", "https://issuer.example/jwks"),
        ("https://issuer.example", "https://keys.example/jwks"),
        ("https://issuer.example", "https://keys.example:8443/jwks?v=1"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1/jwks"),
        ("http://127.0.0.1:1", "http://localhost:2/jwks"),
        ("http://127.0.0.1:1", "http://[::1]:2/jwks"),
        ("http://127.0.0.1:1", "https://keys.example/jwks"),
    ],
)
def test_keys_are_on_the_issuers_own_host_or_one_that_is_listed(issuer: str, address: str) -> None:
    assert keys_address(metadata(issuer=issuer, jwks_uri=address).body, issuer, LISTED) == address


@pytest.mark.parametrize(
    "address",
    [
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/jwks",
        "https://127.0.0.1:8200/v1/sys/health",
        "https://[::ffff:169.254.169.254]/",
        "https://0x7f.1/",
        "https://vault.internal/v1/secret",
        "https://issuer.example.evil.example/jwks",
        "https://issuer.example:8443/jwks",
        "https://issuer.example./jwks",
        "https://xissuer.example/jwks",
        "https://sub.keys.example/jwks",
        "https://keys.example:9999/jwks",
        "https://evil.example/?https://issuer.example",
        "https://evil.example/#issuer.example",
        "https://evil.example\\.issuer.example/",
    ],
)
def test_discovery_cannot_send_us_to_servers_nobody_listed(address: str) -> None:
    issuer = "https://issuer.example"
    with pytest.raises(KeySourceError, match=r"not listed in jwks_hosts|not an https URL"):
        keys_address(metadata(issuer=issuer, jwks_uri=address).body, issuer, LISTED)


async def test_no_request_is_made_to_a_host_that_is_not_listed(
    server: IssuerServer, clock: ManualClock
) -> None:
    with IssuerServer() as internal:
        internal.answers["/jwks"] = Answer(jwks(KEY))
        server.answers[DISCOVERY] = metadata(issuer=server.url, jwks_uri=f"{internal.url}/jwks")
        issuer = new_issuer(clock, issuer=server.url, discovery=True)
        with pytest.raises(Unavailable) as caught:
            await issuer.verify(discovery_token(clock, server.url))
        assert "is not listed in jwks_hosts" in str(caught.value.__cause__)
        assert "jwks_hosts" not in caught.value.detail
        assert not internal.requests
        listed = internal.url.removeprefix("http://")
        issuer = new_issuer(clock, issuer=server.url, discovery=True, jwks_hosts=(listed,))
        await issuer.verify(discovery_token(clock, server.url))
        assert internal.requests == ["/jwks"]


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks"])
async def test_no_redirect_is_followed_on_the_way_to_the_keys(
    path: str, server: IssuerServer, clock: ManualClock
) -> None:
    good = {"issuer": server.url, "jwks_uri": f"{server.url}/jwks"}
    server.answers[DISCOVERY] = metadata(**good)
    with IssuerServer() as internal:
        internal.answers = dict(server.answers)
        moved = {"location": f"{internal.url}{path}"}
        server.answers[path] = Answer(status=307, headers=moved)
        issuer = new_issuer(clock, issuer=server.url, discovery=True)
        with pytest.raises(Unavailable) as caught:
            await issuer.verify(discovery_token(clock, server.url))
        assert "redirects aren't followed" in str(caught.value.__cause__)
        assert not internal.requests


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
