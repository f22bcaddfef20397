"""Trust bundles: what is in one, and how it is kept fresh, rotated and emptied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from broker.errors import ConfigError, InvalidToken, Unavailable
from broker.identity.bundles import parse_bundle
from broker.identity.spiffe import TrustDomain
from tests.clocks import ManualClock
from tests.issuers import Answer, IssuerKey, IssuerServer
from tests.svids import LEAF_USAGE, Authority, bundle
from tests.unit.spiffe_world import (
    KEY,
    ME,
    ROOT,
    Published,
    claims,
    domain_with,
    from_file,
    settings,
    verify,
)

if TYPE_CHECKING:
    from pathlib import Path

NEXT = IssuerKey.new(kid="jwt-2")
NEXT_ROOT = Authority.root("next")
TOKEN = KEY.sign(claims())


async def proves(domain: TrustDomain, token: str = TOKEN) -> bool:
    try:
        return (await verify(domain, token)).subject == ME
    except InvalidToken:
        return False


async def certifies(domain: TrustDomain, root: Authority = ROOT) -> bool:
    try:
        return (await domain.verify_certificate([root.svid(ME)])).subject == ME
    except InvalidToken:
        return False


# ── the document ─────────────────────────────────────────────────────────────────────────────────


def test_what_a_bundle_holds() -> None:
    found = parse_bundle(bundle(KEY, ROOT, spiffe_sequence=7, spiffe_refresh_hint=60))
    assert len(found) == 2
    assert found.knows("jwt-1")
    assert found.authorities == (ROOT.certificate,)
    assert found.refresh_s == 60
    assert found.unusable == ()


def test_the_first_certificate_of_an_entry_is_the_authority() -> None:
    first, second = ROOT.jwk()["x5c"], NEXT_ROOT.jwk()["x5c"]
    found = parse_bundle(bundle(ROOT.jwk(x5c=[*first, *second])))
    assert found.authorities == (ROOT.certificate,)


SPOILED: list[object] = [
    {"kty": "AKP", "use": "jwt-svid", "alg": "ML-DSA-44", "kid": "pq"},
    {"kty": "oct", "use": "jwt-svid", "k": "c2VjcmV0", "kid": "hmac"},
    KEY.jwk(use=None),
    KEY.jwk(use="wit-svid"),
    KEY.jwk(use="JWT-SVID"),
    KEY.jwk(use="jwt-svid", kty=None),
    {**KEY.jwk(use="jwt-svid"), "d": "private"},
    IssuerKey.new("EdDSA").jwk(use="jwt-svid"),
    ROOT.jwk(use=None),
    ROOT.jwk(x5c=None),
    ROOT.jwk(x5c=[]),
    ROOT.jwk(x5c="text"),
    ROOT.jwk(x5c=[1]),
    ROOT.jwk(x5c=["not base64!"]),
    ROOT.jwk(x5c=["bm8gY2VydGlmaWNhdGU="]),
    ROOT.jwk(kty=None),
    ROOT.jwk(kty="AKP"),
    Authority.root("no-ca", ca=False).jwk(),
    Authority.root("no-ca", ca=False, key_usage=LEAF_USAGE).jwk(),
    "text",
    None,
    [],
    {},
    {"use": ["jwt-svid"]},
]


@pytest.mark.parametrize("entry", SPOILED)
def test_entries_that_are_left_out(entry: Any) -> None:
    document = json.dumps({"keys": [entry, KEY.jwk(use="jwt-svid"), ROOT.jwk()]}).encode()
    found = parse_bundle(document)
    assert (len(found.jwt), len(found.authorities), len(found.unusable)) == (1, 1, 1)
    assert found.unusable[0].startswith("key 0: ")


@pytest.mark.parametrize(
    "document",
    [b"", b"x", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b"\xff", b"[" * 100_000],
)
def test_what_is_no_bundle(document: bytes) -> None:
    with pytest.raises(ValueError, match="not a JWK Set"):
        parse_bundle(document)


def test_a_bundle_of_too_many_keys() -> None:
    with pytest.raises(ValueError, match="more than 256"):
        parse_bundle(b'{"keys": [' + b",".join([b"{}"] * 257) + b"]}")


@pytest.mark.parametrize("hint", [0, -5, True, "60", 1.5, None, [60]])
def test_hints_that_say_nothing(hint: object) -> None:
    assert parse_bundle(bundle(spiffe_refresh_hint=hint)).refresh_s is None


# ── keeping it fresh ─────────────────────────────────────────────────────────────────────────────


async def test_a_new_key_is_found_by_the_first_token_it_signed() -> None:
    source, clock = Published(KEY, ROOT), ManualClock()
    domain = domain_with(source=source, clock=clock)
    assert await proves(domain)
    source.publish(KEY, NEXT, ROOT, NEXT_ROOT)
    assert await proves(domain, NEXT.sign(claims()))
    assert await certifies(domain, NEXT_ROOT)
    assert source.fetched == 2


async def test_a_new_authority_is_found_by_the_first_certificate_it_signed() -> None:
    source = Published(ROOT)
    domain = domain_with(source=source)
    assert await certifies(domain)
    source.publish(ROOT, NEXT_ROOT)
    assert await certifies(domain, NEXT_ROOT)


async def test_strangers_do_not_make_us_fetch_for_ever() -> None:
    source, clock = Published(KEY, ROOT), ManualClock()
    domain = domain_with(source=source, clock=clock)
    stranger, unknown = Authority.root("stranger"), IssuerKey.new(kid="unknown")
    for _ in range(5):
        assert not await certifies(domain, stranger)
        assert not await proves(domain, unknown.sign(claims()))
    assert source.fetched == 2
    clock.advance(10)
    assert not await certifies(domain, stranger)
    assert source.fetched == 3


async def test_an_emptied_bundle_revokes_at_the_next_refresh() -> None:
    source, clock = Published(KEY, ROOT), ManualClock()
    domain = domain_with(source=source, clock=clock, leeway_s=300)
    assert await proves(domain)
    source.publish()
    clock.advance(299)
    assert await proves(domain)
    clock.advance(1)
    assert not await proves(domain)
    assert not await certifies(domain)
    assert await domain.authorities() == ()


@pytest.mark.parametrize(("hint", "age"), [(60, 60), (1, 10), (3600, 300)])
async def test_a_bundle_says_how_soon_to_come_back(hint: int, age: int) -> None:
    """But never oftener than the cooldown, nor later than configured."""
    source, clock = Published(KEY, spiffe_refresh_hint=hint), ManualClock()
    domain = domain_with(source=source, clock=clock)
    assert await proves(domain)
    clock.advance(age - 1)
    assert await proves(domain)
    assert source.fetched == 1
    clock.advance(1)
    await proves(domain)
    assert source.fetched == 2


@pytest.mark.parametrize("nonsense", [None, b"", b"{}", b"<html>", b'{"keys": 1}'])
async def test_an_old_bundle_serves_for_a_while(nonsense: bytes | None) -> None:
    source, clock = Published(KEY, ROOT), ManualClock()
    domain = domain_with(source=source, clock=clock, max_stale_s=1000, leeway_s=300)
    assert await proves(domain)
    source.document = nonsense
    clock.advance(400)
    assert await proves(domain)
    clock.advance(601)
    for ask in (proves, certifies):
        with pytest.raises(Unavailable, match="'prod'"):
            await ask(domain)
    source.publish(KEY, ROOT)
    clock.advance(10)
    assert await certifies(domain)


async def test_a_bundle_that_was_never_there() -> None:
    source = Published()
    source.document = None
    domain = domain_with(source=source)
    for ask in (proves, certifies):
        with pytest.raises(Unavailable):
            await ask(domain)
    with pytest.raises(Unavailable):
        await domain.authorities()


# ── from a file, and from an endpoint ────────────────────────────────────────────────────────────


async def test_a_file_is_read_again_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    domain = from_file(path)
    with pytest.raises(Unavailable):
        await proves(domain)
    domain = from_file(path)
    for entries, expected in ((KEY, ROOT), True), ((NEXT, NEXT_ROOT), False), ((), False):
        path.with_suffix(".new").write_bytes(bundle(*entries, spiffe_sequence=len(entries)))
        path.with_suffix(".new").replace(path)
        assert await proves(domain) is expected
        assert await certifies(domain) is expected
    path.write_bytes(bundle(KEY, ROOT))
    assert await proves(domain)
    path.write_bytes(b"not a bundle")
    assert await proves(domain)


async def test_an_endpoint_is_asked() -> None:
    with IssuerServer() as server:
        clock = ManualClock()
        given = settings(bundle_url=f"{server.url}/bundle", leeway_s=300)
        domain = TrustDomain(given, clock)
        server.answers["/bundle"] = Answer(bundle(KEY, ROOT))
        assert await proves(domain)
        assert await certifies(domain)
        server.answers["/bundle"] = Answer(bundle())
        clock.advance(300)
        assert not await proves(domain)
        assert server.requests == ["/bundle"] * 3  # the last for the token that no key fitted
        await domain.aclose()


async def test_an_endpoint_leads_nowhere_else() -> None:
    """The specification lets it redirect; whoever can make it do so would choose our keys."""
    with IssuerServer() as server:
        server.answers["/bundle"] = Answer(status=302, headers={"location": "/elsewhere"})
        server.answers["/elsewhere"] = Answer(bundle(KEY))
        with pytest.raises(Unavailable):
            await proves(TrustDomain(settings(bundle_url=f"{server.url}/bundle"), ManualClock()))
        assert server.requests == ["/bundle"]


# ── settings ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    ["http://bundle.example/", "ftp://x", "https://u:p@x.example", "//x", "", "spiffe://td", "x\n"],
)
def test_a_bundle_does_not_travel_unprotected(url: str) -> None:
    with pytest.raises(ConfigError, match="bundle_url must be an https URL") as caught:
        TrustDomain(settings(bundle_url=url), ManualClock())
    assert "u:p" not in caught.value.detail


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"bundle_url": None}, "exactly one"),
        ({"workload_api": "unix:///x"}, "exactly one"),
        ({"name": ""}, "must not be empty"),
        ({"audience": ""}, "must not be empty"),
        ({"trust_domain": "Prod"}, "lower case"),
        ({"trust_domain": "spiffe://prod"}, "lower case"),
        ({"leeway_s": 301}, "leeway_s"),
        ({"refresh_s": 0}, "more than 0"),
        ({"max_stale_s": 299}, "at least refresh_s"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        settings(**changes)


async def test_authorities_are_handed_out_in_der() -> None:
    found = await domain_with(KEY, ROOT, NEXT_ROOT).authorities()
    loaded = [x509.load_der_x509_certificate(der) for der in found]
    assert loaded == [ROOT.certificate, NEXT_ROOT.certificate]
