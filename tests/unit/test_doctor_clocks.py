"""What `broker doctor` says of clocks: only what is sure, however long it took to ask."""

from __future__ import annotations

import pytest

from broker.doctor import _skew  # pyright: ignore[reportPrivateUsage]  servers here have one clock


@pytest.mark.parametrize(
    ("least_ms", "most_ms", "verdict", "says"),
    [
        (-1, 1, "ok", "+0.00 s"),
        (-990, 10, "ok", "-0.49 s"),
        (-3000, 40, "ok", "-1.48 s"),
        (-900, -499, "ok", "-0.70 s"),
        (-1600, -600, "warning", "-1.10 s"),
        (600, 1600, "warning", "+1.10 s"),
        (-7000, -5000, "failed", "-6.00 s"),
        (5000, 9000, "failed", "+7.00 s"),
    ],
)
def test_a_clock_is_judged_by_what_is_sure(
    least_ms: float, most_ms: float, verdict: str, says: str
) -> None:
    found = _skew("a clock", least_ms, most_ms)
    assert (found.verdict, found.detail.startswith(says)) == (verdict, True)
