"""The dev configuration: what the given file leaves out is filled in with embedded parts."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import tomlkit

from broker.config import parse_config
from broker.dev import issuer
from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config import Config

FILE: Final = "config.toml"
OWNER: Final = "you@example.com"
ORDERS_API: Final = "https://orders.example.com"

_PRINCIPALS: Final[list[dict[str, Any]]] = [
    {"name": "orchestrator", "role": "orchestrator"},
    {
        "name": "report-writer",
        "role": "agent",
        "capabilities": ["orders-read", "orders-api"],
    },
    {
        "name": "order-clerk",
        "role": "agent",
        "capabilities": ["orders-read", "orders-write"],
    },
    {"name": "operator", "role": "operator"},
    {"name": "auditor", "role": "auditor"},
    {"name": "orders-service", "role": "resource_server", "resource": ORDERS_API},
]
_CAPABILITIES: Final[list[dict[str, Any]]] = [
    {
        "name": "orders-read",
        "power": "read",
        "backend": "vault",
        "path": "database/creds/orders-read",
        "ttl": "5m",
        "max_ttl": "15m",
        "data_class": "internal",
        "effects": ["reads:orders"],
    },
    {
        "name": "orders-write",
        "power": "operate",
        "backend": "vault",
        "path": "database/creds/orders-write",
        "ttl": "5m",
        "max_ttl": "15m",
        "data_class": "internal",
        "effects": ["reads:orders", "writes:orders"],
    },
    {
        "name": "orders-api",
        "power": "read",
        "backend": "token",
        "resource": ORDERS_API,
        "scope": "orders.read",
        "ttl": "5m",
        "max_ttl": "15m",
        "effects": ["reads:orders"],
    },
]


@dataclass(frozen=True, slots=True)
class Embedded:
    """What the embedded parts put into the configuration; empty where a part isn't embedded."""

    url: str
    listen: str
    redis_url: str = ""
    vault_address: str = ""
    postgres_dsn: str = ""


def given(file: Path | None) -> tomlkit.TOMLDocument:
    """Read the file given with ``--config``; without one, an empty document.

    Raises:
        ConfigError: it can't be read, or isn't TOML.
    """
    if file is None:
        return tomlkit.document()
    try:
        return tomlkit.parse(file.read_text("utf-8"))
    except OSError as error:
        msg = f"{file.absolute()} can't be read: {error.strerror}\n    name another with --config"
        raise ConfigError(msg) from error
    except ValueError as error:
        msg = f"{file}: not valid TOML: {error}"
        raise ConfigError(msg) from error


def complete(
    document: tomlkit.TOMLDocument, file: Path | None, data: Path, parts: Embedded
) -> Config:
    """Fill in what the file leaves out, keep the result in the data directory, and check it."""
    broker = document.setdefault("broker", tomlkit.table())
    broker.setdefault("state_dir", str(data / "broker"))
    # What is served is what was asked for on the command line, and tokens name that.
    broker["listen"] = parts.listen
    broker["issuer"] = parts.url
    if parts.redis_url:
        document.setdefault("redis", tomlkit.table())["url"] = parts.redis_url
    if parts.vault_address:
        document["vault"] = {
            "address": parts.vault_address,
            "auth": "approle",
            "role_id_file": str(data / "vault-role-id"),
            "secret_id_file": str(data / "vault-secret-id"),
        }
    _add_dev_issuer(document, data)
    if "principals" not in document:
        identified = [
            {**p, "owner": OWNER, "identity": {"issuer": issuer.NAME, "subject": subject(p)}}
            for p in _PRINCIPALS
        ]
        document["principals"] = identified
    if "capabilities" not in document:
        document["capabilities"] = [dict(c) for c in _CAPABILITIES]
    for capability in document["capabilities"]:  # pyright: ignore[reportGeneralTypeIssues]
        if parts.postgres_dsn and str(capability.get("path", "")).startswith("database/creds/"):
            capability.setdefault("dsn", parts.postgres_dsn)
    text = tomlkit.dumps(document)
    (data / FILE).write_text(text, "utf-8")
    # Relative paths of a given file mean its own folder, wherever the completed copy is kept.
    return parse_config(text, file or data / FILE)


def subject(principal: dict[str, Any]) -> str:
    """Return the subject the dev issuer gives a principal."""
    return f"{principal['role'].replace('_', '-')}/{principal['name']}"


def names(data: Path) -> list[str]:
    """Return the principals the dev issuer speaks for."""
    return [name for name, identity in _identities(data).items() if identity[0] == issuer.NAME]


def subject_of(name: str, data: Path) -> str:
    """Return the subject of a principal, by the configuration `broker dev` last ran with.

    Raises:
        ConfigError: there is none, or the dev issuer doesn't speak for it.
    """
    known = _identities(data)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
        msg = f"there is no principal {name!r} in {data / FILE}\n    {hint}"
        raise ConfigError(msg)
    by, subject = known[name]
    if by != issuer.NAME:
        msg = (
            f"{name!r} proves itself by issuer {by!r}, not by the dev issuer\n"
            f"    get its token from there, or give it identity = {{ issuer = {issuer.NAME!r}, … }}"
        )
        raise ConfigError(msg)
    return subject


def _identities(data: Path) -> dict[str, tuple[str, str]]:
    try:
        text = (data / FILE).read_text("utf-8")
    except OSError as error:
        msg = (
            f"there is no {data / FILE}\n"
            "    start `broker dev` first, or name its folder with --data"
        )
        raise ConfigError(msg) from error
    rows: list[dict[str, Any]] = tomllib.loads(text)["principals"]
    return {p["name"]: (p["identity"]["issuer"], p["identity"]["subject"]) for p in rows}


def _add_dev_issuer(document: tomlkit.TOMLDocument, data: Path) -> None:
    identity = document.setdefault("identity", tomlkit.table())
    issuers = identity.setdefault("issuers", tomlkit.aot())
    if any(entry.get("name") == issuer.NAME for entry in issuers):
        return
    issuers.append(
        tomlkit.item(
            {
                "name": issuer.NAME,
                "issuer": issuer.ISSUER,
                "jwks_file": str(data / "issuer.jwks.json"),
                "audience": issuer.AUDIENCE,
                "algorithms": ["ES256"],
            }
        )
    )
