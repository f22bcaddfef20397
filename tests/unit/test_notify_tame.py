"""What others wrote can be read in a message, and does nothing there."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.notify.tame import quoted, raw, tame, word

ACTIVE = set("<>@`[]\u201c\u201d")


@pytest.mark.parametrize(
    ("text", "tamed"),
    [
        ("release 7, for the café", "release 7, for the café"),
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("ok\nApproved by: alice", "ok Approved by: alice"),
        ("<!channel> <@U1>", "\u2039!channel\u203a \u2039\uff20U1\u203a"),
        ("<https://evil.example|approve>", "\u2039https(:)//evil.example|approve\u203a"),
        ("@here [approve](https://evil.example)", "\uff20here (approve)(https(:)//evil.example)"),
        ("`code` \u201dend\u201c", "'code' 'end'"),
        ("\x1b[31mred\x07\x00", "(31mred"),
        ("left\u202eright\u2066\u200b\ufeff\U000e0041", "leftright"),
        ("a\u2028b\u2029c\u00a0d", "a b c d"),
        ("lone \ud800 half", "lone half"),
        ("z" + "\u0301" * 50, "z" + "\u0301" * 3),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_left_of_it(text: str, tamed: str) -> None:
    assert tame(text) == tamed


@given(st.text() | st.text("a:/<>@[]`\u201c\u201d\u0301\u202e ", max_size=40), st.integers(1, 60))
def test_nothing_in_it_is_obeyed_and_it_is_never_longer_than_said(text: str, limit: int) -> None:
    found = tame(text, limit)

    assert len(found) <= limit
    assert not ACTIVE & set(found)
    assert "://" not in found
    assert not any(unicodedata.category(char)[0] == "C" for char in found)
    assert "\n" not in found
    assert tame(found, limit) == found
    assert found.encode() is not None


def test_long_ones_are_cut_where_it_shows() -> None:
    assert tame("x" * 1000, 10) == "x" * 9 + "…"
    assert tame("\u200b" * 4000 + "x", 10) == ""


@pytest.mark.parametrize("name", ["report-writer", "apr_03b", "call:mail.send", "a@example.com"])
def test_names_stay_as_they_are(name: str) -> None:
    assert word(name) == name


@pytest.mark.parametrize("name", ["@here", "<x>", "a b", "x\n", "https://evil.example", "x" * 101])
def test_what_is_no_name_is_in_quotes(name: str) -> None:
    assert word(name) == quoted(name, 100)
    assert word(name).startswith("\u201c")


@given(st.text(alphabet=st.characters(codec=None)))
def test_for_programs_it_is_well_formed(text: str) -> None:
    assert raw(text).encode("utf-8") is not None
    assert len(raw(text)) <= 1000
