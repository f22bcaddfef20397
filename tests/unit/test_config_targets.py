"""``[[targets]]`` and ``[reconcile]``: defaults, and what can't be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from broker.config import Config, parse_config
from broker.config.targets import TargetKind
from broker.errors import ConfigError
from broker.settings import targets
from tests.unit.test_config_channels import SMALLEST

if TYPE_CHECKING:
    from pathlib import Path

CAPABILITY: Final = """
[[capabilities]]
name = "orders-api"
power = "read"
backend = "token"
resource = "https://orders.example.com"
"""
TARGET: Final = """
[[targets]]
name = "orders"
kind = "postgresql"
dsn_file = "dsn"
accounts = "v-token-br*"
capabilities = ["orders-api"]
"""


def parsed(tmp_path: Path, text: str) -> Config:
    (tmp_path / "dsn").write_text("postgresql://u:hunter2@db.example.com/orders")
    return parse_config(f"{SMALLEST}\n{CAPABILITY}{text}", tmp_path / "config.toml")


def test_only_accounts_that_match_are_the_brokers(tmp_path: Path) -> None:
    config = parsed(tmp_path, TARGET)
    assert (config.reconcile.every, config.reconcile.apply, config.reconcile.shown) == (
        3_600_000,
        False,
        900_000,
    )
    assert config.targets[0].kind is TargetKind.POSTGRESQL
    [target] = targets(config)
    assert target.owns("v-token-brok-orders-r-x")
    assert not target.owns("xv-token-br")
    assert "hunter2" not in repr(target)
    assert parsed(tmp_path, '[reconcile]\nevery = "off"\n').reconcile.every is None


@pytest.mark.parametrize(
    ("text", "does"),
    [
        (TARGET, True),
        (TARGET + "lockout = false", False),
        (TARGET.replace("postgresql", "rabbitmq"), False),  # it can't
    ],
)
def test_accounts_are_shut_out_where_that_can_be_done(
    tmp_path: Path, text: str, does: bool
) -> None:
    [target] = targets(parsed(tmp_path, text))
    assert target.lockout is does


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TARGET.replace("v-token-br*", "*"), "would take in accounts"),
        (TARGET.replace("v-token-br*", "v-*"), "would take in accounts"),
        (TARGET.replace("v-token-br*", "v-[a]x"), "would take in accounts"),
        (TARGET.replace('"orders-api"', ""), "names no capability"),
        (TARGET.replace('"orders-api"', '"order-api"'), "did you mean"),
        (TARGET.replace('"dsn"', '"nowhere"'), "there is no file"),
        (TARGET.replace("postgresql", "postgres"), "did you mean"),
        (TARGET + 'ca_file = "dsn"', 'no use with kind = "postgresql"'),
        (TARGET + TARGET, "has the same name"),
        ('[reconcile]\nevery = "10s"', 'write "1m" or more'),
        ('[reconcile]\nshown = "2d"', 'write "1d" or less'),
        (CAPABILITY.replace("orders-api", "other") + "exclusive = true", "no use with backend"),
    ],
)
def test_what_cant_be_used_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(tmp_path, text)

    assert why in caught.value.detail
    assert "hunter2" not in caught.value.detail
