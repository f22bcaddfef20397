"""An exact request in words that no other request has."""

from __future__ import annotations

import pytest

from broker.spelled import Member, spelled


def test_a_member_a_line_and_none_left_out() -> None:
    request = {"ttl_ms": 60_000, "parameters": {"to": ["a", "b"], "deep": {"x": None}}, "no": {}}
    assert list(spelled(request)) == [
        Member("ttl_ms", "60000", (), 60_000),
        Member("parameters.to", '["a", "b"]', (), None),
        Member("parameters.deep.x", "null", (), None),
        Member("no", "{}", (), None),
    ]


def test_no_member_passes_for_another() -> None:
    plain, dotted = spelled({"a": {"b": 1}}), spelled({"a.b": 1})
    assert [m.name for m in plain] != [m.name for m in dotted]
    assert [m.text for m in spelled({"a": 1, "b": "1"})] == ["1", '"1"']


@pytest.mark.parametrize(
    ("value", "text", "odd"),
    [
        ("\u202egpj", '"\\u202egpj"', "right-to-left override"),
        ("a\u200bb", '"a\\u200bb"', "zero width space"),
        ("a\xa0b", '"a\\u00a0b"', "no-break space"),
        ("\U000e0041", '"\\U000e0041"', "tag latin capital letter a"),
        ("p\u0430y", '"p\u0430y"', "cyrillic small letter a"),
    ],
)
def test_what_is_not_seen_is_written_out(value: str, text: str, odd: str) -> None:
    (member,) = spelled({"to": value})
    assert (member.text, member.odd) == (text, (odd,))
