"""How the configuration says when signing keys rotate."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import parse_config
from broker.errors import ConfigError

SMALLEST = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
"""
DAY_MS = 86_400_000


def parse(*lines: str) -> tuple[str, int | None, int]:
    text = SMALLEST + "".join(f"broker.{line}\n" for line in lines)
    broker = parse_config(text, Path("/nowhere/config.toml")).broker
    return broker.signing_algorithm, broker.key_rotation, broker.key_publish


@pytest.mark.parametrize(
    ("lines", "meant"),
    [
        ([], ("ES256", 30 * DAY_MS, 600_000)),
        (['signing_algorithm = "RS256"'], ("RS256", 30 * DAY_MS, 600_000)),
        (['key_rotation = "off"'], ("ES256", None, 600_000)),
        (['key_rotation = "off"', 'key_publish = "40d"'], ("ES256", None, 40 * DAY_MS)),
        (['key_rotation = "6m"', 'key_publish = "6m"'], ("ES256", 360_000, 360_000)),
    ],
)
def test_what_is_meant(lines: list[str], meant: tuple[str, int | None, int]) -> None:
    assert parse(*lines) == meant


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ('signing_algorithm = "HS256"', "signing_algorithm", "one of: ES256, RS256"),
        ('signing_algorithm = "none"', "signing_algorithm", "one of: ES256, RS256"),
        ("signing_algorithm = 256", "signing_algorithm", "must be a string"),
        ('key_rotation = "0"', "key_rotation", "is not a duration"),
        ('key_rotation = "0s"', "key_rotation", "out of range"),
        ("key_rotation = false", "key_rotation", "must be a duration"),
        ("key_rotation = 30", "key_rotation", "must be a duration"),
        ('key_rotation = "1500ms"', "key_rotation", "whole number of seconds"),
        ('key_rotation = "5m"', "key_publish", "longer than key_rotation"),
        ('key_publish = "31d"', "key_publish", "longer than key_rotation"),
        ('key_publish = "5m"', "key_publish", 'write "6m" or more'),
        ('key_publish = "off"', "key_publish", "is not a duration"),
    ],
)
def test_what_is_refused(line: str, key: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(line)
    assert f"broker.{key}: " in caught.value.detail
    assert said in caught.value.detail
