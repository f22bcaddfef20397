"""DPoP proofs are for one request, now, and one token (RFC 9449 section 4.3: 8, 9, 11, 12)."""

from __future__ import annotations

import pytest

from tests.possession import ath
from tests.unit.dpop_world import NOW, TOKEN, URL, WINDOW_S, proof, refusal, verified

# ── 8 and 9: the request ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("htm", ["GET", "post", "POST ", "", "POST,GET", 1])
def test_the_method_is_compared_exactly(htm: object) -> None:
    assert "method" in refusal(proof(htm=htm))


@pytest.mark.parametrize(
    ("htu", "url"),
    [
        ("HTTPS://Broker.EXAMPLE/oauth/token", URL),
        ("https://broker.example:443/oauth/token", URL),
        ("https://broker.example:/oauth/token", URL),
        (f"{URL}?a=b", URL),
        (f"{URL}#a", URL),
        (f"{URL}?", f"{URL}?x=y"),
        ("https://broker.example/%6Fauth/to%6ben", URL),
        ("https://broker.example/a%2fb", "https://broker.example/a%2Fb"),
        ("https://broker.example/%7Eme", "https://broker.example/~me"),
        ("https://broker.example", "https://broker.example/"),
        ("http://127.0.0.1:80/x", "http://127.0.0.1/x"),
        ("http://[::1]:8700/x", "http://[::1]:8700/x"),
        ("http://[::FFFF]:8700/x", "http://[::ffff]:8700/x"),
    ],
)
def test_urls_are_compared_by_what_they_mean(htu: str, url: str) -> None:
    assert verified(proof(htu=htu), url=url)
    assert verified(proof(htu=url), url=htu)


@pytest.mark.parametrize(
    "htu",
    [
        "https://broker.example/oauth/introspect",
        "https://broker.example/oauth/token/",
        "https://broker.example/oauth//token",
        "https://broker.example/OAuth/token",
        "https://broker.example/x/../oauth/token",
        "https://broker.example/./oauth/token",
        "https://broker.example/%2e/oauth/token",
        "https://broker.example/oauth%2Ftoken",
        "https://broker.example/oauth/token%00",
        "https://broker.example/oauth/token%",
        "https://broker.example/oauth/token%zz",
        "https://broker.example/oauth/token;x",
        "https://broker.example\\@evil.example/oauth/token",
        "https://evil@broker.example/oauth/token",
        "https://broker.example.evil.example/oauth/token",
        "https://broker.example./oauth/token",
        "https://broker.example:8443/oauth/token",
        "https://broker.example:0443/oauth/token",
        "https://broker.example:80/oauth/token",
        "http://broker.example/oauth/token",
        "http://broker.example:443/oauth/token",
        "ftp://broker.example/oauth/token",
        "//broker.example/oauth/token",
        "/oauth/token",
        "https:/oauth/token",
        "https:///oauth/token",
        " https://broker.example/oauth/token",
        "https://broker.example/oauth/token\n",
        "https://broker.example/oauth/to\tken",
        "https://bröker.example/oauth/token",
        "https://broker.example/oauth/tok\u0435n",
        "https://%62roker.example/oauth/token",
        "https://broker.example/oauth/token?é",
    ],
)
def test_a_proof_for_another_url_is_refused(htu: str) -> None:
    assert "URL" in refusal(proof(htu=htu))


@pytest.mark.parametrize("url", ["", "https://broker.example/é", "https://broker.example/a b"])
def test_a_request_whose_url_is_none_has_no_proof(url: str) -> None:
    assert "URL" in refusal(proof(htu=url), url=url)


# ── 11: the time ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ago", [0, WINDOW_S, -WINDOW_S, 0.5])
def test_a_proof_is_good_within_the_window(ago: float) -> None:
    assert verified(proof(iat=NOW - ago)).issued_at == NOW - ago


@pytest.mark.parametrize("ago", [WINDOW_S + 1, -WINDOW_S - 1, 3600, -3600, NOW, -1e11])
def test_a_proof_of_another_time_is_refused(ago: float) -> None:
    assert "seconds of now" in refusal(proof(iat=NOW - ago))


@pytest.mark.parametrize("iat", ["1800000000", -1, 1e18, True, [NOW]])
def test_iat_is_a_date(iat: object) -> None:
    assert "iat" in refusal(proof(iat=iat))


def test_a_proof_that_says_when_it_ends_is_held_to_it() -> None:
    assert verified(proof(exp=NOW + 5, nbf=NOW - 5))
    assert "expired" in refusal(proof(exp=NOW - 3600))
    assert "not valid yet" in refusal(proof(nbf=NOW + 3600))
    assert refusal(proof(exp="soon"))


# ── 12: the access token ─────────────────────────────────────────────────────────────────────────


def test_a_proof_for_a_resource_names_the_token() -> None:
    assert verified(proof(access_token=TOKEN), access_token=TOKEN)


@pytest.mark.parametrize(
    "given",
    [None, ath("another"), ath(TOKEN) + "=", ath(TOKEN).lower(), TOKEN, "", 7, [ath(TOKEN)]],
)
def test_a_proof_without_the_tokens_digest_is_refused(given: object) -> None:
    assert "ath" in refusal(proof(ath=given), access_token=TOKEN)


@pytest.mark.parametrize("token", ["ключ", "\udcff", "é"])
@pytest.mark.parametrize("given", [None, "x", ath("?")])
def test_no_proof_is_for_a_token_that_is_not_ascii(token: str, given: object) -> None:
    assert "ath" in refusal(proof(ath=given), access_token=token)


def test_an_empty_token_is_a_token() -> None:
    assert "ath" in refusal(proof(), access_token="")
