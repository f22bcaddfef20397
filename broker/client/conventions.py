"""The environment variables by which programs take a credential, by its kind.

Sources: PostgreSQL's libpq, "Environment Variables"; MySQL's manual, "Environment Variables", and
for the user and the password the names of its container image; ``valkey-cli --help``; the AWS and
Azure SDKs; Google's Terraform provider and ``gcloud``; Kubernetes' Terraform provider. What is
called ``..._URL`` is a habit of many.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from broker.client.dsn import Place, place_of
from broker.client.errors import InvalidRequest
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.client.credential import Credential

PROGRAMS: Final[Mapping[str, Mapping[str, str]]] = {
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
        "MYSQL_PASSWORD": "password",
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
    "database": {"DATABASE_URL": "dsn"},
    "aws": {
        "AWS_ACCESS_KEY_ID": "access_key",
        "AWS_SECRET_ACCESS_KEY": "secret_key",
        "AWS_SESSION_TOKEN": "session_token",
    },
    "azure": {"AZURE_CLIENT_ID": "client_id", "AZURE_CLIENT_SECRET": "client_secret"},
    "gcp": {
        "GOOGLE_OAUTH_ACCESS_TOKEN": "token",
        "CLOUDSDK_AUTH_ACCESS_TOKEN": "token",
        "GOOGLE_CREDENTIALS": "key_file",
    },
    "kubernetes": {"KUBE_TOKEN": "service_account_token"},
    "token": {"ACCESS_TOKEN": "access_token"},
}
"""By kind: the variables, and the member that each holds; those that there isn't are left out."""
LIBPQ: Final[Mapping[str, str]] = {
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
_PUBLIC: Final = frozenset({"host", "port", "database", "username", "access_key", "client_id"})

Variables = dict[str, Secret | str]


def kind_of(credential: Credential, place: Place) -> str:
    """Return the kind of a credential: that of its DSN, or else its type."""
    return place.kind or credential.type


def members_of(credential: Credential, place: Place) -> dict[str, Secret]:
    """Return what a credential has, by name, and what is made of it.

    That is ``host``, ``port`` and ``database`` of its DSN, ``token`` and ``session_token`` whatever
    they are called, and ``key_file``, the text of Google's key.
    """
    parts = {"host": place.host, "port": place.port, "database": place.database}
    made = {name: Secret(text) for name, text in parts.items() if text}
    key = credential.get("private_key_data")
    found = {
        **made,
        "token": credential.token,
        "session_token": credential.session_token,
        "key_file": _decoded(key) if key is not None else None,
        **{name: credential.get(name) for name in credential.names},
    }
    return {name: value for name, value in found.items() if value is not None}


def assigned(kind: str, members: Mapping[str, Secret], place: Place) -> Variables:
    """Return the variables of a kind that there are members for; what is secret is a ``Secret``."""
    found: Variables = {}
    for variable, member in PROGRAMS.get(kind, {}).items():
        if (value := members.get(member)) is not None and (text := value.reveal()):
            found[variable] = text if member in _PUBLIC else value
    if kind == "postgres":
        options = (place.options or {}).items()
        found |= {LIBPQ[option]: text for option, text in options if option in LIBPQ and text}
    return found


def variables(credential: Credential) -> Variables:
    """Return the conventional variables of a credential; what is secret stays a ``Secret``.

    Raises:
        InvalidRequest: there is no convention for its kind.
    """
    dsn = credential.dsn
    place = place_of(dsn.reveal()) if dsn is not None else Place()
    found = assigned(kind_of(credential, place), members_of(credential, place), place)
    if not found:
        raise InvalidRequest(
            f"There are no usual variables for a credential of type {credential.type!r}"
            + (" without a dsn" if credential.password is not None and dsn is None else "")
            + f": take what you need from it; it has {', '.join(credential.names)}",
            code="no_variables",
        )
    return found


def _decoded(key: Secret) -> Secret:
    try:
        return Secret(base64.b64decode(key.reveal(), validate=True).decode())
    except (binascii.Error, UnicodeDecodeError):
        return key  # it isn't in base64: the file itself
