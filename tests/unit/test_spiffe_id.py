"""SPIFFE IDs: what is one, and everything that only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.spiffe_id import SpiffeId, is_trust_domain

LONGEST = "spiffe://td/" + "a" * (2048 - len("spiffe://td/"))


@pytest.mark.parametrize(
    ("text", "trust_domain", "path"),
    [
        ("spiffe://td/a", "td", "/a"),
        ("spiffe://td", "td", ""),
        (
            "spiffe://prod-1.example_x.com/ns/x/sa/Default",
            "prod-1.example_x.com",
            "/ns/x/sa/Default",
        ),
        ("spiffe://td/...", "td", "/..."),
        ("spiffe://td/a..b/.c", "td", "/a..b/.c"),
        (f"spiffe://{'t' * 255}/a", "t" * 255, "/a"),
        (LONGEST, "td", LONGEST.removeprefix("spiffe://td")),
    ],
)
def test_what_a_spiffe_id_is(text: str, trust_domain: str, path: str) -> None:
    spiffe_id = SpiffeId.parse(text)
    assert (spiffe_id.trust_domain, spiffe_id.path) == (trust_domain, path)
    assert str(spiffe_id) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "td/a",
        "spiffe:td/a",
        "spiffe:/td/a",
        "spiffe:///a",
        "http://td/a",
        "SPIFFE://td/a",
        "Spiffe://td/a",
        "spiffe://TD/a",
        "spiffe://Td/a",
        "spiffe://tđ/a",
        "spiffe://td/ä",
        "spiffe://td/а",  # noqa: RUF001  Cyrillic
        "spiffe://td٣/a",  # a digit to Unicode
        "spiffe://td/",
        "spiffe://td//a",
        "spiffe://td/a/",
        "spiffe://td/a//b",
        "spiffe://td/a/../b",
        "spiffe://td/a/./b",
        "spiffe://td/..",
        "spiffe://td/.",
        "spiffe://td/%61",
        "spiffe://td/a%2Fb",
        "spiffe://td:443/a",
        "spiffe://td:/a",
        "spiffe://user@td/a",
        "spiffe://td/a?q",
        "spiffe://td/a#f",
        "spiffe://td?q",
        "spiffe://td#",
        "spiffe://td/a b",
        "spiffe://td/a\n",
        "spiffe://td\n/a",
        " spiffe://td/a",
        "spiffe://td/a\x00",
        "spiffe://td/a;b",
        "spiffe://td\\a",
        "spiffe://[::1]/a",
        f"spiffe://{'t' * 256}/a",
        LONGEST + "a",
    ],
)
def test_what_only_looks_like_one(text: str) -> None:
    with pytest.raises(ValueError, match="not a SPIFFE ID"):
        SpiffeId.parse(text)


@given(st.text())
def test_what_is_accepted_is_what_it_says(text: str) -> None:
    try:
        spiffe_id = SpiffeId.parse(f"spiffe://{text}")
    except ValueError:
        return
    assert str(spiffe_id) == f"spiffe://{text}"
    assert is_trust_domain(spiffe_id.trust_domain)


@pytest.mark.parametrize("name", ["", "TD", "td/a", "spiffe://td", "td:1", "td\n", "ü"])
def test_what_no_trust_domain_is_called(name: str) -> None:
    assert not is_trust_domain(name)
