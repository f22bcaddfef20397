"""``[quotas]`` and the quotas of capabilities: what is meant, and what can't be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker import settings
from broker.catalog import Rate
from broker.config import parse_config
from broker.errors import ConfigError
from broker.quotas import Bounds, QuotaBounds

SMALLEST = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
"""
CAPABILITY = """
[[capabilities]]
name = "orders-api"
power = "read"
backend = "{backend}"
{key}
"""
TOKEN = 'resource = "https://orders.example.com"\n'
FILE = Path("/nowhere/config.toml")


def capability(key: str = "", backend: str = "token") -> str:
    return CAPABILITY.format(backend=backend, key=TOKEN + key if backend == "token" else key)


def test_nothing_is_limited_unless_it_is_written() -> None:
    config = parse_config(SMALLEST + capability(), FILE)

    assert settings.quota_bounds(config) == QuotaBounds()
    (held,) = config.catalog().capabilities.values()
    assert (held.max_live_total, held.issue_rate) == (0, None)


def test_what_is_written_is_taken() -> None:
    text = """
        [quotas]
        max_live_per_agent = 3
        issue_rate_per_agent = "60/1m"
        max_live_per_orchestrator = 40
        issue_rate_per_orchestrator = "5/10s"
        [quotas.backends.token]
        max_live = 500
        issue_rate = "1000000/24h"
        """
    own = 'max_live_total = 7\nissue_rate = "2/1h30m"'
    config = parse_config(SMALLEST + text + capability(own), FILE)

    assert settings.quota_bounds(config) == QuotaBounds(
        agent=Bounds(3, Rate(60, 60_000)),
        orchestrator=Bounds(40, Rate(5, 10_000)),
        backends={"token": Bounds(500, Rate(1_000_000, 86_400_000))},
    )
    (held,) = config.catalog().capabilities.values()
    assert (held.max_live_total, held.issue_rate) == (7, Rate(2, 5_400_000))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_live_per_agent = 0", "must be from 1 to"),
        ("max_live_per_agent = -1", "must be from 1 to"),
        ("max_live_per_agent = 1.5", "quotas.max_live_per_agent: "),
        ("max_live_per_agent = true", "quotas.max_live_per_agent: "),
        ('max_live_per_agnt = "1"', 'did you mean "max_live_per_agent"'),
        ("issue_rate_per_agent = 60", 'write how many, and in which span: "60/1m"'),
        ('issue_rate_per_agent = "60"', "is not a rate"),
        ('issue_rate_per_agent = "0/1m"', "is not a rate"),
        ('issue_rate_per_agent = "-5/1m"', "is not a rate"),
        ('issue_rate_per_agent = "60/m"', "is not a rate"),
        ('issue_rate_per_agent = "60/0s"', "is not a rate"),
        ('issue_rate_per_agent = "60/1m\\n"', "is not a rate"),
        ('issue_rate_per_agent = "\N{ARABIC-INDIC DIGIT SIX}/1m"', "is not a rate"),
        ('issue_rate_per_agent = "60/500ms"', 'in a span from "1s"'),
        ('issue_rate_per_agent = "60/25h"', "is out of bounds"),
        ('issue_rate_per_agent = "1000001/1m"', "write from 1 to 1000000"),
        ("backends.tokn.max_live = 1", 'did you mean "token"'),
        ("backends.vault.max_live = 1", "is the backend of no capability"),
        ("backends.tool.max_live = 1", "is the backend of no capability"),
        ("backends.token.max_live_total = 1", 'did you mean "max_live"'),
        ("backends.token = 5", "quotas.backends.token"),
        ("backends = 5", "quotas.backends"),
    ],
)
def test_what_cant_be_used_is_said(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"{SMALLEST}{capability()}[quotas]\n{line}\n", FILE)
    assert said in caught.value.detail
    assert "quotas" in caught.value.detail


@pytest.mark.parametrize("key", ["max_live_total = 1", 'issue_rate = "1/1m"'])
def test_a_tool_has_no_quota_since_nothing_is_issued_for_it(key: str) -> None:
    with pytest.raises(ConfigError, match='has no use with backend = "tool"'):
        parse_config(SMALLEST + capability(key, backend="tool"), FILE)
