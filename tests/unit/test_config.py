"""What a good configuration becomes, the example that ships, and secret files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from broker.catalog import Power, Revocability
from broker.config import (
    Config,
    LogFormat,
    VaultAuth,
    load_config,
    parse_config,
    read_secret_file,
)
from broker.errors import ConfigError
from broker.identity.models import Identity, IssuerSettings, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"

SMALLEST = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
"""

VAULT = """
[vault]
address = "http://127.0.0.1:8200"
auth = "token_file"
token_file = "token"
"""

ISSUER = """
[[identity.issuers]]
name = "ci"
issuer = "https://issuer.example/"
audience = "broker"
jwks_url = "https://issuer.example/jwks?v=1"
"""


def items(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def paths_in(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every value in a parsed file that names a file or a folder, with its key."""
    for key, value in table.items():
        for item in items(value):
            if isinstance(item, dict):
                yield from paths_in(cast("dict[str, Any]", item))
            elif key == "dir" or key.endswith("_file"):
                yield key, item


@pytest.fixture
def example(tmp_path: Path) -> Config:
    """The example, with the files and folders that it names."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for key, name in paths_in(tomllib.loads(text)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if key == "dir":
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("x\n")
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    return load_config(tmp_path / "config.toml")


# ── the example ──────────────────────────────────────────────────────────────────────────────────


def test_the_example_loads(example: Config, tmp_path: Path) -> None:
    assert example.broker.issuer == "https://broker.example.com"
    assert example.broker.log_format is LogFormat.JSON
    assert example.broker.state_dir == tmp_path / ".broker"
    assert example.vault is not None
    assert example.vault.auth is VaultAuth.APPROLE
    assert example.vault.role_id_file == tmp_path / "secrets" / "vault-role-id"
    assert {p.role for p in example.principals} >= {
        Role.ORCHESTRATOR,
        Role.AGENT,
        Role.OPERATOR,
        Role.RESOURCE_SERVER,
    }
    assert {c.backend for c in example.capabilities} == {"vault", "token", "tickets", "tool"}
    assert {c.power for c in example.capabilities} >= {Power.READ, Power.OPERATE}


def untold(model: type[BaseModel], tables: list[dict[str, Any]], name: str = "") -> Iterator[str]:
    """The keys of a model, and of those in it, that none of the tables has."""
    for key, field in model.model_fields.items():
        values = [table[key] for table in tables if key in table]
        if not values:
            yield f"{name}.{key}"
        named = get_origin(field.annotation) is dict  # tables by a name of their own
        inner = [item for value in values for item in items([*value.values()] if named else value)]
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from untold(kind, inner, key)


def test_the_example_shows_every_key() -> None:
    text = re.sub(r"(?m)^# (\w+ = )", r"\1", EXAMPLE.read_text(encoding="utf-8"))
    assert not list(untold(Config, [tomllib.loads(text)]))


def test_what_is_on_a_krl_can_be_revoked_at_once(example: Config, tmp_path: Path) -> None:
    [listed] = [c for c in example.capabilities if c.krl_file]
    assert listed.krl_file == tmp_path / ".broker" / "build-hosts.krl"
    assert listed.entry().revocability is Revocability.INSTANT
    timed = listed.model_copy(update={"krl_file": None})
    assert timed.entry().revocability is Revocability.TTL_ONLY


def test_what_the_example_calls_a_default_is_one(example: Config, tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    for section in ("tasks", "revocation", "retention"):
        text, found = re.subn(rf"(?m)^\[{section}\]\n(\w+ = .*\n)+", "", text)
        assert found
    text, found = re.subn(r"(?m)^\w+ = .*# default.*\n", "", text)
    assert found > 20
    assert parse_config(text, tmp_path / "config.toml") == example


# ── defaults and conversions ─────────────────────────────────────────────────────────────────────


def test_defaults(tmp_path: Path) -> None:
    config = parse_config(SMALLEST, tmp_path / "config.toml")
    assert (config.broker.host, config.broker.port) == ("127.0.0.1", 8700)
    assert config.broker.token_ttl == 900_000
    assert config.broker.max_body == 65536
    assert config.broker.log_format is LogFormat.TEXT
    assert (config.redis.shards, config.redis.timeout) == (64, 2000)
    assert config.redis.allow_data_loss is False
    assert config.vault is None
    assert config.policy.dir is None
    assert (config.tasks.default_ttl, config.tasks.max_ttl) == (900_000, 86_400_000)
    assert (config.tasks.max_depth, config.tasks.max_children) == (5, 20)
    assert (config.revocation.attempts, config.revocation.stuck_limit) == (6, 50)
    assert (config.retention.tasks, config.retention.audit) == (7 * 86_400_000, 30 * 86_400_000)
    assert config.issuers() == ()
    assert config.catalog().capabilities == {}


def test_nothing_can_be_changed(tmp_path: Path) -> None:
    config = parse_config(SMALLEST, tmp_path / "config.toml")
    with pytest.raises(ValidationError):
        config.broker.issuer = "https://other.example"
    assert isinstance(config.principals, tuple)


def test_an_ipv6_address_loses_its_brackets(tmp_path: Path) -> None:
    config = parse_config(SMALLEST + 'broker.listen = "[::1]:9000"', tmp_path / "config.toml")
    assert (config.broker.host, config.broker.port) == ("::1", 9000)


@pytest.mark.parametrize(
    ("written", "count"), [('"1KiB"', 1024), ('"2MiB"', 2 << 20), ("5000", 5000)]
)
def test_sizes(written: str, count: int, tmp_path: Path) -> None:
    config = parse_config(f"{SMALLEST}broker.max_body = {written}", tmp_path / "config.toml")
    assert config.broker.max_body == count


def test_paths_are_relative_to_the_file_not_to_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc" / "policies").mkdir(parents=True)
    (tmp_path / "etc" / "config.toml").write_text(SMALLEST + 'policy.dir = "policies"')
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("etc/config.toml"))
    assert config.policy.dir == tmp_path / "etc" / "policies"


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(SMALLEST, encoding="utf-8-sig")
    assert load_config(path).broker.port == 8700


def test_issuers_become_settings(tmp_path: Path) -> None:
    text = f'{SMALLEST}{ISSUER}leeway = "1m"\nalgorithms = ["EdDSA"]'
    assert parse_config(text, tmp_path / "config.toml").issuers() == (
        IssuerSettings(
            name="ci",
            issuer="https://issuer.example/",
            audience="broker",
            algorithms=("EdDSA",),
            jwks_url="https://issuer.example/jwks?v=1",
            leeway_s=60,
        ),
    )


def test_the_catalogue(example: Config) -> None:
    found = example.catalog()
    reader = found.capabilities["orders-read"]
    assert (reader.ttl_ms, reader.max_ttl_ms, reader.max_live) == (300_000, 900_000, 100)
    assert reader.effects == {"reads:orders"}
    assert reader.revocability is Revocability.INSTANT
    assert reader.dsn.format(username="u", password="p").startswith("postgresql://u:p@db")
    assert (reader.rotate, reader.renewable_ms) == ("", 0)
    assert found.capabilities["orders-write"].renewable_ms == 1_800_000
    assert found.capabilities["orders-write"].rotate == "database/rotate-root/orders"
    token = found.capabilities["tickets-comment"]
    assert (token.path, token.resources, token.scope) == (
        "",
        ("https://tickets.example.com",),
        "tickets:comment",
    )
    assert found.resource_server("https://tickets.example.com") is found.principals["tickets"]
    fixer = found.principals["order-fixer"]
    assert fixer.max_ttl_ms == 600_000
    assert fixer.capabilities == {"orders-read", "orders-write"}
    identity = Identity(
        "cluster", "https://x", "system:serviceaccount:agents:order-fixer", "oidc", 0
    )
    assert found.principal_of(identity) is fixer


@pytest.mark.parametrize(
    ("auth", "mount"),
    [
        ('auth = "approle"\nrole_id_file = "f"\nsecret_id_file = "f"', "approle"),
        ('auth = "jwt"\nrole = "broker"\njwt_file = "f"', "jwt"),
        ('auth = "kubernetes"\nrole = "broker"\njwt_file = "f"', "kubernetes"),
        ('auth = "kubernetes"\nrole = "broker"\njwt_file = "f"\nauth_mount = "k8s/a"', "k8s/a"),
        ('auth = "token_file"\ntoken_file = "f"', None),
    ],
)
def test_ways_into_vault(auth: str, mount: str | None, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    text = f'{SMALLEST}[vault]\naddress = "http://[::1]:8200"\n{auth}'
    vault = parse_config(text, tmp_path / "config.toml").vault
    assert vault is not None
    assert vault.auth_mount == mount
    assert (vault.token_role, vault.policy_prefix) == ("broker-task", "broker-cap-")
    assert (vault.timeout, vault.issue_concurrency, vault.revoke_concurrency) == (5000, 16, 16)


def test_plaintext_to_vault_can_be_allowed(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    text = (
        f'{SMALLEST}[vault]\naddress = "http://vault:8200"\nauth = "token_file"\n'
        'token_file = "f"\nallow_plaintext = true'
    )
    assert parse_config(text, tmp_path / "config.toml").vault is not None


# ── secret files ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"s3cret\n\n", "s3cret\n"),
        (b" s3cret \n", " s3cret "),
    ],
)
def test_one_line_break_is_stripped(content: bytes, secret: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert read_secret_file(path).reveal() == secret


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"hunter2" * 10_000, "is over 64 KiB"),
        (b"hunter2\xff", "is not UTF-8 text"),
        (None, "there is no such file"),
    ],
    ids=["empty", "blank", "big", "binary", "missing"],
)
def test_secret_files_that_hold_none(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_secret_file(path)
    assert str(path) in caught.value.detail
    assert "hunter2" not in caught.value.detail
    assert caught.value.__context__ is None or "hunter2" not in repr(caught.value.__context__)


def test_a_folder_is_no_secret_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        read_secret_file(tmp_path)
