"""The dev configuration: what the given file leaves out is filled in with embedded parts."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import tomli_w

from broker.config import parse_config
from broker.dev import issuer
from broker.dev.engines.process import write_private
from broker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.config import Config

FILE: Final = "config.toml"
OWNER: Final = "you@example.com"
ORDERS_API: Final = "https://orders.example.com"

_TOOLS: Final = ("customer-lookup", "fetch-page", "send-email")
_PRINCIPALS: Final[list[dict[str, Any]]] = [
    {"name": "orchestrator", "role": "orchestrator"},
    {
        "name": "report-writer",
        "role": "agent",
        "capabilities": ["orders-read", "orders-api", *_TOOLS],
    },
    {
        "name": "order-clerk",
        "role": "agent",
        "capabilities": ["orders-read", "orders-write", *_TOOLS],
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
        "rotate": "database/rotate-root/orders",
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
    # What is called and not handed out. The three together are what policy watches for.
    {
        "name": "customer-lookup",
        "power": "read",
        "backend": "tool",
        "data_class": "confidential",
        "effects": ["reads:customer-pii"],
        "arguments": {"customer": "string"},
    },
    {
        "name": "fetch-page",
        "power": "read",
        "backend": "tool",
        "data_class": "public",
        "effects": ["ingests:untrusted"],
        "arguments": {"url": "string"},
    },
    {
        "name": "send-email",
        "power": "operate",
        "backend": "tool",
        "data_class": "internal",
        "effects": ["egress:internet"],
        "arguments": {"to": "strings", "subject": "string", "body": "string?"},
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


# Whatever the real ones will be: to find what is wrong with a file before anything is started.
_ANY: Final = "http://127.0.0.1:1"
UNKNOWN: Final = Embedded(
    url=_ANY,
    listen="127.0.0.1:1",
    redis_url="redis://127.0.0.1:1",
    vault_address=_ANY,
    postgres_dsn="postgresql://{username}:{password}@127.0.0.1:1/orders",
)


class Draft:
    """The configuration as it was given, if one was, waiting for its embedded parts."""

    def __init__(self, file: Path | None, data: Path) -> None:
        """Read ``file``; without one everything is filled in.

        Raises:
            ConfigError: it can't be read, or isn't TOML.
        """
        self._text = "" if file is None else _read(file)
        self._data = data
        # Relative paths of a given file mean its own folder, wherever the completed copy is kept.
        self._path = file or data / FILE
        document = self._document()
        if not _well_formed(document):
            parse_config(self._text, self._path)
        self.needs_redis = not document.get("redis", {}).get("url")
        self.needs_vault = not document.get("vault", {}).get("address")

    def check(self) -> None:
        """Find what is wrong with it, before its embedded parts are known.

        Raises:
            ConfigError: with every problem.
        """
        self._parse(self._completed(UNKNOWN))

    def complete(self, parts: Embedded) -> Config:
        """Fill in the embedded parts, check it, and keep the result in the data directory.

        Raises:
            ConfigError: with every problem.
        """
        text = self._completed(parts)
        config = self._parse(text)
        kept = tomli_w.dumps(_absolute(tomllib.loads(text), config))
        write_private(self._data / FILE, f"# Written by `broker dev` at each start.\n{kept}")
        return config

    def _document(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text)
        except (ValueError, RecursionError):
            parse_config(self._text, self._path)  # says where, and what to do
            raise

    def _parse(self, text: str) -> Config:
        return parse_config(text, self._path, written=self._text)

    def _completed(self, parts: Embedded) -> str:
        document, data = self._document(), self._data
        broker: dict[str, Any] = document.setdefault("broker", {})
        broker.setdefault("state_dir", str(data / "broker"))
        # What is served is what was asked for on the command line, and tokens name that.
        broker |= {"listen": parts.listen, "issuer": parts.url}
        if self.needs_redis:
            document.setdefault("redis", {})["url"] = parts.redis_url
        if self.needs_vault:
            document.setdefault("vault", {}).update(
                address=parts.vault_address,
                auth="approle",
                role_id_file=str(data / "vault-role-id"),
                secret_id_file=str(data / "vault-secret-id"),
            )
        issuers: list[Any] = document.setdefault("identity", {}).setdefault("issuers", [])
        if not any(entry.get("name") == issuer.NAME for entry in issuers):
            issuers.append(_dev_issuer(data))
        document.setdefault("console", {}).setdefault("link_issuer", issuer.NAME)
        capabilities = document.setdefault("capabilities", [dict(row) for row in _CAPABILITIES])
        known = {capability.get("name") for capability in capabilities}
        document.setdefault("principals", [_identified(row, known) for row in _PRINCIPALS])
        for capability in capabilities:
            if parts.postgres_dsn and str(capability.get("path", "")).startswith("database/creds/"):
                capability.setdefault("dsn", parts.postgres_dsn)
        return tomli_w.dumps(document)


def _absolute(written: object, config: object) -> Any:  # noqa: ANN401  what TOML has
    """Return what was written with its paths as the configuration has them.

    Where the copy is kept, relative ones would mean other files.
    """
    if isinstance(config, Path):
        return str(config)
    if isinstance(written, dict):
        rows = cast("dict[str, object]", written)
        return {name: _absolute(row, getattr(config, name, None)) for name, row in rows.items()}
    if isinstance(written, list) and isinstance(config, tuple):
        rows, read = cast("list[object]", written), cast("tuple[object, ...]", config)
        return [_absolute(*pair) for pair in zip(rows, read, strict=True)]
    return cast("object", written)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        why = error.strerror
    except ValueError:
        why = "it is not UTF-8 text"
    raise ConfigError(f"{file.absolute()} can't be read: {why}\n    name another with --config")


def _well_formed(document: dict[str, Any]) -> bool:
    """Whether what is filled in below would find tables and arrays of tables there."""

    def rows(value: object) -> bool:
        return isinstance(value, list) and all(
            isinstance(row, dict) for row in cast("list[object]", value)
        )

    tables = ("broker", "redis", "vault", "identity", "console")
    sections = (document.get(name, {}) for name in tables)
    return (
        all(isinstance(section, dict) for section in sections)
        and rows(document.get("identity", {}).get("issuers", []))
        and rows(document.get("principals", []))
        and rows(document.get("capabilities", []))
    )


def _identified(principal: dict[str, Any], known: Collection[object]) -> dict[str, Any]:
    """Return a principal of ours; of a given catalogue it may have what it would have of ours."""
    identity = {"issuer": issuer.NAME, "subject": subject(principal)}
    allowed = [name for name in principal.get("capabilities", ()) if name in known]
    return {
        **principal,
        **({"capabilities": allowed} if "capabilities" in principal else {}),
        "owner": OWNER,
        "identity": identity,
    }


def _dev_issuer(data: Path) -> dict[str, Any]:
    return {
        "name": issuer.NAME,
        "issuer": issuer.ISSUER,
        "jwks_file": str(data / issuer.JWKS_FILE),
        "audience": issuer.AUDIENCE,
        "algorithms": ["ES256"],
    }


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


def url_of(data: Path) -> str:
    """Return where the broker that last ran here is, or was.

    Raises:
        ConfigError: none ever ran.
    """
    return str(_written(data)["broker"]["issuer"])


def _identities(data: Path) -> dict[str, tuple[str, str]]:
    rows: list[dict[str, Any]] = _written(data)["principals"]
    return {p["name"]: (p["identity"]["issuer"], p["identity"]["subject"]) for p in rows}


def _written(data: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((data / FILE).read_text("utf-8"))
    except OSError as error:
        msg = (
            f"there is no {data / FILE}\n"
            "    start `broker dev` first, or name its folder with --data"
        )
        raise ConfigError(msg) from error
