"""Durations are read and written exactly, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.durations import MAX_MS, format_duration, parse_duration

UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


@given(st.integers(1, MAX_MS))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@given(st.dictionaries(st.sampled_from(list(UNITS)), st.integers(0, 3000), min_size=1))
def test_any_units_in_their_order_add_up(counts: dict[str, int]) -> None:
    text = "".join(f"{counts[unit]}{unit}" for unit in UNITS if unit in counts)
    total = sum(count * UNITS[unit] for unit, count in counts.items())
    if 0 < total <= MAX_MS:
        assert parse_duration(text) == total
    else:
        with pytest.raises(ValueError, match="out of range"):
            parse_duration(text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("90s", 90_000),
        ("15m", 900_000),
        ("1h30m", 5_400_000),
        ("7d", 604_800_000),
        ("5ms", 5),
        ("5m5ms", 300_005),
        ("3650d", MAX_MS),
    ],
)
def test_durations_as_people_write_them(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["", "0s", "0", "15", "m", "-5m", "+5m", "5 m", " 5m", "5m ", "5m\n", "1.5h", "5M", "5m1h",
     "5m5m", "1e3s", "3651d", "9999999999s", "\u0663m", "\uff11\uff15m",
     "5µs", "PT5M", "inf", "5m\x00"],
)  # fmt: skip
def test_nothing_else_is_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_zero_can_be_written() -> None:
    assert format_duration(0) == "0s"
