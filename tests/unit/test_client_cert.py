"""Client certificates in headers: from trusted proxies, exactly as RFC 9440 writes them."""

from __future__ import annotations

from base64 import b64encode
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Address

from broker.errors import InvalidRequest
from broker.http.transport import MAX_CERTIFICATES, forwarded, is_proxy, transport_of
from tests.certificates import pem
from tests.svids import Authority

ROOT = Authority.root()
BELOW = ROOT.intermediate()
LEAF = BELOW.svid("spiffe://prod.example.com/agent/a")
OTHER = ROOT.svid("spiffe://prod.example.com/agent/b")
PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/64"), ip_network("192.0.2.7"))


def written(der: bytes) -> str:
    return f":{b64encode(der).decode()}:"


def request(
    *headers: tuple[str, str],
    client: str | None = "10.0.0.1",
    tls: tuple[bytes, ...] = (),
    **scope: Any,
) -> Request:
    app = FastAPI()
    app.state.broker = SimpleNamespace(access=SimpleNamespace(issuer="https://b.example:8443/x"))
    app.state.trusted_proxies = PROXIES
    chain = [pem(certificate).decode() for certificate in tls]
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": "/v1/tasks",
            "raw_path": b"/v1/tasks",
            "query_string": b"state=active",
            "scheme": "http",
            "server": ("127.0.0.1", 1),
            "client": (client, 5) if client else None,
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in headers
            ],
            "extensions": {"tls": {"client_cert_chain": chain}} if tls else {},
            "app": app,
            **scope,
        }
    )


def certificates(*headers: tuple[str, str], **more: Any) -> tuple[bytes, ...]:
    return transport_of(request(*headers, **more)).certificates


# ── whom we believe ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "10.255.255.255", "192.0.2.7", "2001:db8::7", "::ffff:10.1.2.3", "::ffff:a01:203"],
)
def test_a_proxy_says_whose_certificate_it_saw(address: str) -> None:
    assert certificates(("Client-Cert", written(LEAF)), client=address) == (LEAF,)


@pytest.mark.parametrize(
    "address",
    [
        "11.0.0.1",
        "127.0.0.1",
        "192.0.2.8",
        "2001:db8:0:1::7",
        "::1",
        "::a00:1",
        "64:ff9b::a00:1",
        "testclient",
        "10.0.0.1.evil.example",
        "10.0.0.1 ",
        "",
        None,
    ],
)
def test_nobody_else_is_even_read(address: str | None) -> None:
    spoofed = [
        ("Client-Cert", written(LEAF)),
        ("Client-Cert", "garbage"),
        ("Client-Cert-Chain", ""),
    ]
    assert certificates(*spoofed, client=address) == ()
    assert certificates(*spoofed, client=address, tls=(OTHER, ROOT.der)) == (OTHER, ROOT.der)


@pytest.mark.parametrize(
    "header",
    [
        ("X-Forwarded-For", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("X-Real-IP", "10.0.0.1"),
        ("X-Client-Cert", written(LEAF)),
        ("X-SSL-Cert", written(LEAF)),
        ("Client_Cert", written(LEAF)),
    ],
)
def test_no_other_header_counts(header: tuple[str, str]) -> None:
    assert certificates(header, ("Client-Cert", written(LEAF)), client="11.0.0.1") == ()
    assert certificates(header) == ()


def test_a_proxys_own_certificate_is_never_its_clients() -> None:
    assert certificates(("Client-Cert", written(LEAF)), tls=(OTHER,)) == (LEAF,)
    assert certificates(tls=(OTHER,)) == ()


def test_without_proxies_nobody_is_one() -> None:
    assert not is_proxy(Address("10.0.0.1", 1), ())


# ── how it is written ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("gap", [",", ", ", " ,\t", " , "])
def test_the_chain_follows_in_order(gap: str) -> None:
    chain = gap.join(map(written, (BELOW.der, ROOT.der)))
    found = certificates(("Client-Cert", f" {written(LEAF)} "), ("Client-Cert-Chain", chain))
    assert found == (LEAF, BELOW.der, ROOT.der)


BARE = b64encode(LEAF).decode()


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":",
        "::",
        ":=:",
        ":====:",
        BARE,
        f":{BARE}",
        f"{BARE}:",
        f"::{BARE}::",
        f":{BARE}:;a=1",
        f":{BARE}:, :{BARE}:",
        f'"{BARE}"',
        f":{BARE[:-8]}:",
        f":{BARE.rstrip('=')}:" if BARE.endswith("=") else f":{BARE}=:",
        f":{BARE[:40]} {BARE[40:]}:",
        f":{BARE[:40]}\t{BARE[40:]}:",
        f":-_{BARE[2:]}:",
        written(LEAF + b"\x00"),
        written(b"\x30\x00"),
        written(b"not a certificate"),
        written(pem(LEAF)),
        "%3A" + BARE + "%3A",
        f":{BARE}:\xff",
    ],
)
def test_what_a_proxy_garbles_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="RFC 9440"):
        certificates(("Client-Cert", value))
    if value not in ("", f":{BARE}:, :{BARE}:"):
        with pytest.raises(InvalidRequest, match="RFC 9440"):
            certificates(("Client-Cert", written(LEAF)), ("Client-Cert-Chain", value))


@pytest.mark.parametrize(
    "headers",
    [
        [("Client-Cert", written(LEAF)), ("Client-Cert", written(LEAF))],
        [("Client-Cert", written(LEAF)), ("Client-Cert", written(OTHER))],
        [("Client-Cert-Chain", written(ROOT.der))],
        [
            ("Client-Cert", written(LEAF)),
            ("Client-Cert-Chain", written(BELOW.der)),
            ("Client-Cert-Chain", written(ROOT.der)),
        ],
        [("Client-Cert", written(LEAF)), ("Client-Cert-Chain", "")],
        [("Client-Cert", written(LEAF)), ("Client-Cert-Chain", written(ROOT.der) + ",")],
        [("Client-Cert", written(LEAF)), ("Client-Cert-Chain", "," + written(ROOT.der))],
        [
            ("Client-Cert", written(LEAF)),
            ("Client-Cert-Chain", ",".join([written(ROOT.der)] * MAX_CERTIFICATES)),
        ],
        [("Client-Cert", f":{'A' * 70_000}:")],
        [("Client-Cert", written(LEAF)), ("Client-Cert-Chain", "," * 70_000)],
    ],
    ids=range(10),
)
def test_what_can_be_meant_in_two_ways_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidRequest, match="Client-Cert"):
        certificates(*headers)


@given(st.text(), st.lists(st.text(), max_size=3))
def test_anything_else_is_refused_or_nothing(own: str, others: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        forwarded([own], others)


# ── the rest of a transport ──────────────────────────────────────────────────────────────────────


def test_the_url_is_the_public_one_whatever_the_host_header_says() -> None:
    found = transport_of(
        request(
            ("Host", "evil.example/v1/grants?"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Proto", "ftp"),
            ("X-Forwarded-Prefix", "/evil"),
        )
    )
    assert (found.method, found.url) == ("POST", "https://b.example:8443/v1/tasks")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/v1/tasks/a%2Fb", "/v1/tasks/a%2Fb"),
        (b"/v1/tasks/%c3%a9", "/v1/tasks/%c3%a9"),
        (b"/v1/tasks/\xc3\xa9", "/v1/tasks/%C3%A9"),
        (b"/v1//tasks", "/v1//tasks"),
        (b"/v1/a b#c?d", "/v1/a%20b%23c%3Fd"),
    ],
)
def test_the_path_is_as_it_was_sent(raw: bytes, path: str) -> None:
    assert transport_of(request(raw_path=raw)).url == f"https://b.example:8443{path}"


def test_every_proof_of_possession_is_passed_on() -> None:
    assert transport_of(request(("DPoP", "a"), ("dpop", "b"))).dpop == ("a", "b")
