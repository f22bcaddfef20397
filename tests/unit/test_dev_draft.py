"""The configuration that `broker dev` completes, and keeps where it keeps its data."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from broker.config import load_config
from broker.dev.config import FILE, UNKNOWN, Draft

if TYPE_CHECKING:
    from pathlib import Path

GIVEN = """\
[broker]
state_dir = "state"
[policy]
dir = "rules"
[[targets]]
name = "orders"
kind = "postgresql"
dsn_file = "secrets/orders-dsn"
accounts = "v-token-br*"
capabilities = ["orders-read"]
[[audit.sinks]]
name = "siem"
kind = "webhook"
url = "https://siem.example.com/"
secret_file = "secrets/siem"
"""


def test_what_is_kept_means_the_same_files_from_where_it_is(tmp_path: Path) -> None:
    given, data = tmp_path / "given/broker.toml", tmp_path / "data"
    for folder in ("given/secrets", "given/rules", "data"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("orders-dsn", "siem"):
        (given.parent / "secrets" / name).write_text("x")
    for name in ("vault-role-id", "vault-secret-id", "issuer.jwks.json"):
        (data / name).write_text("x")
    given.write_text(GIVEN)

    config = Draft(given, data).complete(UNKNOWN)

    assert config.targets[0].dsn_file == given.parent / "secrets/orders-dsn"
    assert load_config(data / FILE) == config
    # What isn't a path stays as it was written.
    kept, written = tomllib.loads((data / FILE).read_text("utf-8")), tomllib.loads(GIVEN)
    assert kept["targets"][0]["accounts"] == written["targets"][0]["accounts"]
    assert kept["audit"]["sinks"][0]["url"] == written["audit"]["sinks"][0]["url"]
