"""The environment variables by which programs take a credential, by its kind.

Sources: PostgreSQL's libpq, "Environment Variables"; MySQL's manual, "Environment Variables", and
for the user the names of its container image; the AWS and Azure SDKs; Google's Terraform provider
and ``gcloud``; Kubernetes' Terraform provider; ``valkey-cli --help``.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from broker.client.errors import InvalidRequest
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.client.credential import Credential

Variables = dict[str, Secret | str]

_LIBPQ: Final[Mapping[str, str]] = {
    "host": "PGHOST",
    "port": "PGPORT",
    "application_name": "PGAPPNAME",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "options": "PGOPTIONS",
    "sslcrl": "PGSSLCRL",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
"""Parameters of a connection URI that libpq takes from the environment as well."""
_MEMBERS: Final[Mapping[str, Mapping[str, str]]] = {
    "aws": {
        "access_key": "AWS_ACCESS_KEY_ID",
        "secret_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    },
    "azure": {"client_id": "AZURE_CLIENT_ID", "client_secret": "AZURE_CLIENT_SECRET"},
    "gcp": {"token": "GOOGLE_OAUTH_ACCESS_TOKEN"},
    "kubernetes": {"service_account_token": "KUBE_TOKEN"},
}
"""Which member goes where, by the credential's type."""
_ALIASES: Final[Mapping[str, str]] = {"GOOGLE_OAUTH_ACCESS_TOKEN": "CLOUDSDK_AUTH_ACCESS_TOKEN"}
_PUBLIC: Final = frozenset({"access_key", "client_id"})


def variables(credential: Credential) -> Variables:
    """Return the conventional variables of a credential; what is secret stays a ``Secret``.

    Raises:
        InvalidRequest: there is no convention for its kind.
    """
    dsn = credential.dsn
    found = _of_dsn(credential, dsn) if dsn is not None else _of_members(credential)
    if not found:
        raise InvalidRequest(
            f"There are no usual variables for a credential of type {credential.type!r}"
            + (" without a dsn" if credential.password is not None else "")
            + f": take what you need from it; it has {', '.join(credential.names)}",
            code="no_variables",
        )
    return found


def _of_members(credential: Credential) -> Variables:
    found: Variables = {}
    for member, name in _MEMBERS.get(credential.type, {}).items():
        value = credential.get(member)
        if value is not None:
            found[name] = value.reveal() if member in _PUBLIC else value
            if name in _ALIASES:
                found[_ALIASES[name]] = found[name]
    key = credential.get("private_key_data") if credential.type == "gcp" else None
    if key is not None:
        found["GOOGLE_CREDENTIALS"] = _google_key(key)
    token = credential.get("access_token")
    if token is not None:
        found["ACCESS_TOKEN"] = token
    return found


def _google_key(key: Secret) -> Secret:
    try:
        return Secret(base64.b64decode(key.reveal(), validate=True).decode())
    except (binascii.Error, UnicodeDecodeError):
        return key  # it isn't in base64: the file itself


def _of_dsn(credential: Credential, dsn: Secret) -> Variables:
    try:
        parts = urlsplit(dsn.reveal())
        port = parts.port
    except ValueError:
        raise InvalidRequest(
            "The credential's dsn isn't a URL: take its members", code="no_variables"
        ) from None
    user = credential.username or ""
    secret = credential.password or Secret("")
    host, name = unquote(parts.hostname or ""), unquote(parts.path.removeprefix("/"))
    match parts.scheme.partition("+")[0]:
        case "postgresql" | "postgres":
            found: Variables = {"PGUSER": user, "PGPASSWORD": secret, "PGDATABASE": name}
            found |= {"PGHOST": host, "PGPORT": str(port or "")}
            asked = dict(parse_qsl(parts.query))
            found |= {_LIBPQ[key]: value for key, value in asked.items() if key in _LIBPQ}
            found["DATABASE_URL"] = dsn
        case "mysql" | "mariadb":
            found = {"MYSQL_USER": user, "MYSQL_PWD": secret, "MYSQL_PASSWORD": secret}
            found |= {"MYSQL_HOST": host, "MYSQL_TCP_PORT": str(port or "")}
            found |= {"MYSQL_DATABASE": name, "DATABASE_URL": dsn}
        case "redis" | "rediss" | "valkey" | "valkeys":
            found = {"REDIS_URL": dsn, "REDISCLI_AUTH": secret}
        case "amqp" | "amqps":
            found = {"AMQP_URL": dsn}
        case _:
            found = {"DATABASE_URL": dsn}
    return {key: value for key, value in found.items() if value}
