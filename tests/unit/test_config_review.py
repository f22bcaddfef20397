"""``[review]``: its defaults, and what can't be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.config import parse_config
from broker.errors import ConfigError
from broker.reviews import ReviewRules

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """
[broker]
issuer = "https://broker.example.com"
[redis]
url = "redis://127.0.0.1:6379/0"
"""


def test_the_defaults_are_those_of_the_rules(tmp_path: Path) -> None:
    review = parse_config(SMALLEST, tmp_path / "c.toml").review
    rules = ReviewRules()
    assert review.unused_after == rules.unused_after_ms
    assert review.grace == rules.grace_ms
    assert review.suspend is rules.suspend


def test_what_is_written_is_taken(tmp_path: Path) -> None:
    text = SMALLEST + '[review]\nunused_after = "30d"\ngrace = "1h"\nsuspend = false\n'
    review = parse_config(text, tmp_path / "c.toml").review
    assert (review.unused_after, review.grace, review.suspend) == (
        30 * 86_400_000,
        3_600_000,
        False,
    )


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("unused_after = 90", "duration"),
        ('grace = "soon"', "duration"),
        ('suspend = "yes"', "true or false"),
        ('unused_for = "1d"', "unused_after"),
    ],
)
def test_what_cant_be_used_is_said(tmp_path: Path, line: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_config(f"{SMALLEST}[review]\n{line}\n", tmp_path / "c.toml")
