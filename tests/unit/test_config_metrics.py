"""``[metrics]``: its defaults, and what can't be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.config import parse_config
from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """
[broker]
issuer = "https://broker.example.com"
[redis]
url = "redis://127.0.0.1:6379/0"
"""


def test_the_page_is_there_and_open(tmp_path: Path) -> None:
    metrics = parse_config(SMALLEST, tmp_path / "c.toml").metrics
    assert metrics.enabled is True
    assert metrics.token_file is None


def test_what_is_written_is_taken(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    text = SMALLEST + '[metrics]\nenabled = false\ntoken_file = "token"\n'
    metrics = parse_config(text, tmp_path / "c.toml").metrics
    assert metrics.enabled is False
    assert metrics.token_file == tmp_path / "token"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('enabled = "yes"', "true or false"),
        ('token_file = "missing"', "missing"),
        ('token = "x"', "token_file"),
    ],
)
def test_what_cant_be_used_is_said(tmp_path: Path, line: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_config(f"{SMALLEST}[metrics]\n{line}\n", tmp_path / "c.toml")
