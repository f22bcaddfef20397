"""``[console]``: what may be written there, and what is said of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.config import Config, parse_config
from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

BROKER = """\
redis.url = "unix:///run/valkey/valkey.sock"
[broker]
issuer = "{issuer}"
[[identity.issuers]]
name = "corp"
issuer = "https://login.example.com"
audience = "broker"
discovery = true
[console]
"""
HERE = "http://127.0.0.1:8700"
CLIENT = 'issuer = "corp"\nclient_id = "broker-console"\n'
FIRST = BROKER.count("\n") + 1
"""The line that the first of a section's keys is in."""


def loaded(tmp_path: Path, section: str, issuer: str = HERE) -> Config:
    for name in ("secret", "key.pem"):
        (tmp_path / name).write_text("canary")
    text = BROKER.replace("{issuer}", issuer) + section
    return parse_config(text, tmp_path / "config.toml")


def test_it_is_there_unless_it_is_off_and_nobody_can_sign_in(tmp_path: Path) -> None:
    console = loaded(tmp_path, "").console
    assert (console.enabled, console.issuer, console.link_issuer) == (True, None, None)
    assert (console.max_session, console.idle, console.fresh) == (43_200_000, 1_800_000, 300_000)
    assert not any(getattr(console.roles, role) for role in type(console.roles).model_fields)
    assert loaded(tmp_path, "enabled = false").console.enabled is False


@pytest.mark.parametrize("file", ["client_secret_file", "client_key_file", ""])
def test_a_client_has_a_secret_or_a_key_or_neither(tmp_path: Path, file: str) -> None:
    more = f'{file} = "secret"' if file else ""
    console = loaded(tmp_path, CLIENT + more).console
    given = {"client_secret_file": console.client_secret_file}
    given["client_key_file"] = console.client_key_file
    assert given == {
        name: tmp_path / "secret" if name == file else None
        for name in ("client_secret_file", "client_key_file")
    }


@pytest.mark.parametrize(
    ("section", "line", "why"),
    [
        ('issuer = "corp"', -1, "client_id: goes with issuer"),
        ('client_id = "x"', 0, "client_id: goes with issuer"),
        ('issuer = "crop"\nclient_id = "x"', 0, "there is no issuer 'crop'\n.*did you mean"),
        ('link_issuer = "dve"', 0, "there is no issuer 'dve'"),
        ('issuer = "corp"\nclient_id = "broker"', 1, "is the audience of issuer 'corp'"),
        ('client_secret_file = "secret"', 0, "has no use without client_id"),
        ('client_key_file = "key.pem"', 0, "has no use without client_id"),
        (
            f'{CLIENT}client_secret_file = "secret"\nclient_key_file = "key.pem"',
            3,
            "has no use beside client_secret_file",
        ),
        (f'{CLIENT}client_secret_file = "nowhere"', 2, "nowhere"),
        (f'{CLIENT}client_secret = "canary"', 2, "client_secret: .*\n.*client_secret_file"),
        ('scopes = ["profile"]', 0, 'lacks "openid"'),
        ('scopes = "openid"', 0, "must be an array"),
        ('groups_claim = ""', 0, "groups_claim"),
        ('max_session = "25h"', 0, "max_session: .*24h"),
        ('max_session = "10s"', 0, "max_session: .*1m"),
        ('max_session = "10m"\nidle = "20m"', 1, "idle: .*max_session"),
        ('fresh = "2h"', 0, "fresh: .*1h"),
        ("fresh = 300", 0, "duration in quotes"),
        ('enabled = "no"', 0, "true or false"),
        ('rolls = "x"', 0, "did you mean .roles"),
        ('[console.roles]\nviewers = ["staff"]', 1, "did you mean .viewer"),
        ('[console.roles]\noperator = "ops"', 1, "must be an array"),
        ('[console.roles]\noperator = [""]', 1, r"console.roles.operator\[0\]"),
    ],
    ids=lambda value: str(value)[:40].replace('"', "") if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_said_with_its_place(
    tmp_path: Path, section: str, line: int, why: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){why}") as caught:
        loaded(tmp_path, section)
    assert f"config.toml:{FIRST + line}: console" in caught.value.detail
    assert "canary" not in caught.value.detail


def test_links_are_for_a_broker_on_this_machine(tmp_path: Path) -> None:
    section = 'link_issuer = "corp"'
    assert loaded(tmp_path, section).console.link_issuer == "corp"
    with pytest.raises(ConfigError, match="link_issuer signs people in by a link"):
        loaded(tmp_path, section, "https://broker.example.com")
