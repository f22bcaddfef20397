"""Which variables programs of a kind take a credential from, where nobody says otherwise.

Sources: the environment variables pages of libpq, the MySQL client, redis-cli, the AWS SDKs and the
Azure Identity library; gcloud's ``auth/access_token``; what is called ``…_URL`` is a habit of many.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.exec.refusal import Unfit
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.exec.members import Members

_TLS: Final = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "channel_binding": "PGCHANNELBINDING",
}
PRESETS: Final[Mapping[str, Mapping[str, str]]] = {
    "postgres": {
        "PGHOST": "host",
        "PGPORT": "port",
        "PGDATABASE": "database",
        "PGUSER": "username",
        "PGPASSWORD": "password",
        "DATABASE_URL": "dsn",
    },
    "mysql": {
        "MYSQL_HOST": "host",
        "MYSQL_TCP_PORT": "port",
        "MYSQL_DATABASE": "database",
        "MYSQL_USER": "username",
        "MYSQL_PWD": "password",
        "DATABASE_URL": "dsn",
    },
    "redis": {
        "REDIS_HOST": "host",
        "REDIS_PORT": "port",
        "REDIS_USERNAME": "username",
        "REDIS_PASSWORD": "password",
        "REDISCLI_AUTH": "password",
        "REDIS_URL": "dsn",
    },
    "rabbitmq": {
        "RABBITMQ_HOST": "host",
        "RABBITMQ_PORT": "port",
        "RABBITMQ_USERNAME": "username",
        "RABBITMQ_PASSWORD": "password",
        "AMQP_URL": "dsn",
    },
    "aws": {
        "AWS_ACCESS_KEY_ID": "access_key",
        "AWS_SECRET_ACCESS_KEY": "secret_key",
        "AWS_SESSION_TOKEN": "session_token",
    },
    "azure": {"AZURE_CLIENT_ID": "client_id", "AZURE_CLIENT_SECRET": "client_secret"},
    "gcp": {"CLOUDSDK_AUTH_ACCESS_TOKEN": "token", "GOOGLE_OAUTH_ACCESS_TOKEN": "token"},
}
"""By name: the variables, and the member that each holds; those that there isn't are left out."""

NAMES: Final = (*PRESETS, "plain", "none")
"""``plain`` is what ``broker grant request --env`` prints, and what kinds without a habit get."""


def preset_of(members: Members) -> str:
    """Return the preset for a credential: by its DSN, or else by its type."""
    kind = members.place.kind or members.type
    wanted = PRESETS.get(kind, {})
    return kind if any(members.get(member) is not None for member in wanted.values()) else "plain"


def variables(name: str, members: Members) -> dict[str, Secret]:
    """Return the variables of a preset.

    Raises:
        Unfit: the credential has nothing that belongs into one.
    """
    if name == "none":
        return {}
    if name == "plain":
        own = {f"BROKER_CREDENTIAL_{_upper(n)}": members.get(n) for n in members.own}
        found = {"BROKER_GRANT_ID": members.get("grant_id"), **own}
        return {variable: value for variable, value in found.items() if value is not None}
    wanted = {variable: members.get(member) for variable, member in PRESETS[name].items()}
    if name == "postgres":
        options = (members.place.options or {}).items()
        wanted |= {_TLS[option]: Secret(text) for option, text in options if option in _TLS}
    found = {variable: value for variable, value in wanted.items() if value is not None}
    if not found:
        raise Unfit(
            f"--env-preset {name}: the credential of {members.capability} has nothing for it; "
            f"it has {', '.join(members.names)}"
        )
    return found


def _upper(name: str) -> str:
    return re.sub("[^A-Z0-9_]", "_", name.upper())
