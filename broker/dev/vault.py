"""Sets up an embedded OpenBao: the orders database, and the broker's rights."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from broker.backends.bootstrap import Bootstrap
from broker.backends.vault_api import VaultApi, VaultLogin
from broker.dev.engines.postgres import ORDERS_READ_CREATION, ORDERS_WRITE_CREATION, REVOCATION
from broker.dev.engines.process import write_private
from broker.errors import BackendRefused, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from broker.clock import Clock
    from broker.config import Config
    from broker.dev.engines import OpenBao, Postgres


def admin(bao: OpenBao, clock: Clock) -> VaultApi:
    """Return the embedded server's API as its admin."""
    token = bao.root_token
    login = VaultLogin("token_file", "", lambda: {"token": token.reveal()})
    return VaultApi(bao.address, login, clock, timeout_s=15)


async def mount_orders(api: VaultApi, postgres: Postgres) -> None:
    """Put the orders database behind ``database/``, with roles orders-read and orders-write."""
    with contextlib.suppress(BackendRefused):  # mounted already
        await api.as_broker("post", "sys/mounts/database", {"type": "database"})
    connection: dict[str, Any] = {
        "plugin_name": "postgresql-database-plugin",
        "connection_url": postgres.vault_dsn_template,
        "allowed_roles": ["orders-read", "orders-write"],
        "username": postgres.vault_username,
        "password_authentication": "scram-sha-256",
        "max_open_connections": 32,
        "max_idle_connections": 32,
    }
    try:
        # It knows the password already, and nobody else does if it was rotated.
        await api.as_broker("post", "database/config/orders", connection)
    except Unavailable:
        postgres.readmit_vault()
        connection["password"] = postgres.vault_password.reveal()
        await api.as_broker("post", "database/config/orders", connection)
    for role, creation in (
        ("orders-read", ORDERS_READ_CREATION),
        ("orders-write", ORDERS_WRITE_CREATION),
    ):
        statements: dict[str, Any] = {
            "db_name": "orders",
            "creation_statements": list(creation),
            "revocation_statements": list(REVOCATION),
            "default_ttl": "1h",
            "max_ttl": "24h",
        }
        await api.as_broker("post", f"database/roles/{role}", statements)


async def give_rights(api: VaultApi, config: Config, data: Path) -> None:
    """Write the broker's policies, and its AppRole's ids where the configuration looks for them."""
    assert config.vault is not None  # noqa: S101  the dev configuration has just been given one
    bootstrap = Bootstrap(
        api,
        token_role=config.vault.token_role,
        policy_prefix=config.vault.policy_prefix,
        max_ttl_ms=config.tasks.max_ttl,
    )
    capabilities = config.catalog().capabilities.values()
    await bootstrap.policies(capabilities, on_progress=lambda _: None)
    role_id, secret_id = await bootstrap.approle("approle")
    write_private(data / "vault-role-id", role_id)
    write_private(data / "vault-secret-id", secret_id.reveal())
