"""``[oauth]``: what may be written there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.config import Config, parse_config
from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
"""


def loaded(tmp_path: Path, section: str = "") -> Config:
    return parse_config(f"{SMALLEST}\n[oauth]\n{section}\n", tmp_path / "config.toml")


def test_nonces_are_wanted_unless_said_otherwise(tmp_path: Path) -> None:
    oauth = loaded(tmp_path).oauth

    assert oauth.dpop_nonce is True
    assert oauth.dpop_window == 60_000
    assert loaded(tmp_path, "dpop_nonce = false").oauth.dpop_nonce is False
    assert loaded(tmp_path, 'dpop_window = "5m"').oauth.dpop_window == 300_000


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ('dpop_window = "5m1s"', "too long"),
        ('dpop_window = "500ms"', "duration|seconds"),
        ('dpop_window = "0s"', "more than zero"),
        ("dpop_window = 60", "duration in quotes"),
        ('dpop_nonce = "yes"', "true or false"),
        ("dpop_nonces = true", "did you mean .dpop_nonce"),
    ],
    ids=lambda value: value.replace('"', ""),
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, section: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        loaded(tmp_path, section)
    assert "config.toml:5" in caught.value.detail
