"""Clients of the embedded engines, and what the tests about them look at."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import httpx2
import psycopg
import redis

from broker.dev.engines.postgres import ORDERS_READ_CREATION, ORDERS_WRITE_CREATION, REVOCATION

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from broker.dev.engines import OpenBao, Postgres, Valkey


WAIT_SECONDS = 20.0


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.01)


def running(pid: int) -> bool:
    """A process nobody has reaped yet has an empty command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


class Ledger:
    """A client of an embedded Valkey, closed after each question."""

    def __init__(self, engine: Valkey) -> None:
        self._engine = engine

    def ask(self, *words: str) -> object:
        with redis.Redis.from_url(self._engine.url, decode_responses=True) as client:  # pyright: ignore[reportUnknownMemberType]
            return cast("object", client.execute_command(*words))  # pyright: ignore[reportUnknownMemberType]


class Vault:
    """OpenBao's HTTP interface, with its root token."""

    def __init__(self, engine: OpenBao) -> None:
        self._http = httpx2.Client(
            base_url=f"{engine.address}/v1/",
            headers={"X-Vault-Token": engine.root_token.reveal()},
            timeout=30,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **body: object) -> httpx2.Response:
        return self._http.request(method, path, json=body or None)

    def __call__(self, method: str, path: str, **body: object) -> dict[str, Any]:
        response = self.ask(method, path, **body)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return cast("dict[str, Any]", response.json()) if response.content else {}


def usable(engine: OpenBao) -> bool:
    with Vault(engine) as vault:
        return "sys/" in vault("GET", "sys/mounts")["data"]


class Credential(NamedTuple):
    lease: str
    username: str
    password: str


def mount_orders(vault: Vault, postgres: Postgres) -> None:
    vault("POST", "sys/mounts/database", type="database")
    vault(
        "POST",
        "database/config/orders",
        plugin_name="postgresql-database-plugin",
        allowed_roles=["orders-read", "orders-write"],
        connection_url=postgres.vault_dsn_template,
        username=postgres.vault_username,
        password=postgres.vault_password.reveal(),
    )
    for role, creation in (
        ("orders-read", ORDERS_READ_CREATION),
        ("orders-write", ORDERS_WRITE_CREATION),
    ):
        vault(
            "POST",
            f"database/roles/{role}",
            db_name="orders",
            creation_statements=creation,
            revocation_statements=REVOCATION,
            default_ttl="10m",
        )


def issue(vault: Vault, role: str) -> Credential:
    made = vault("GET", f"database/creds/{role}")
    return Credential(made["lease_id"], made["data"]["username"], made["data"]["password"])


def revoke(vault: Vault, credential: Credential) -> None:
    vault("PUT", "sys/leases/revoke", lease_id=credential.lease, sync=True)


@contextmanager
def login(
    postgres: Postgres, who: Credential, database: str = "orders"
) -> Generator[psycopg.Connection]:
    connection = psycopg.connect(
        host=postgres.host,
        port=postgres.port,
        dbname=database,
        user=who.username,
        password=who.password,
        autocommit=True,
    )
    try:
        yield connection
    finally:
        connection.close()


def as_admin(postgres: Postgres, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.admin_dsn.reveal(), autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []


def role_exists(postgres: Postgres, name: str) -> bool:
    return bool(as_admin(postgres, "SELECT 1 FROM pg_roles WHERE rolname = %s", name))
