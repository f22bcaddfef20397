"""What templates and presets find in a credential: its own members, and those made of its DSN."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.client import IssuedGrant

_PORTS: Final = {
    **dict.fromkeys(("postgresql", "postgres"), "5432"),
    **dict.fromkeys(("mysql", "mariadb"), "3306"),
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), "6379"),
    "amqp": "5672",
    "amqps": "5671",
}
_KINDS: Final = {
    **dict.fromkeys(("postgresql", "postgres"), "postgres"),
    **dict.fromkeys(("mysql", "mariadb"), "mysql"),
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), "redis"),
    **dict.fromkeys(("amqp", "amqps"), "rabbitmq"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a DSN leads to; each part is empty where it isn't said, ``options`` is its query."""

    kind: str = ""
    host: str = ""
    port: str = ""
    database: str = ""
    options: Mapping[str, str] | None = None


class Members:
    """What one grant gives, by name. All of it is taken for secret but what is asked of ``place``.

    A DSN gives ``host``, ``port`` and ``database`` as well, and PostgreSQL's a line of a ``pgpass``
    file and a ``pgservice`` file; Google's key a ``key_file``.
    """

    def __init__(self, issued: IssuedGrant, *, task_id: str = "") -> None:
        """``task_id`` is a member, too, for a child that speaks to the broker."""
        self.grant_id = issued.grant_id
        self.capability = issued.capability
        self.type = issued.credential.type
        found = {name: issued.credential.get(name) for name in issued.credential.names}
        own = {name: value for name, value in found.items() if value is not None}
        dsn = own.get("dsn")
        self.place = _place(dsn.reveal()) if dsn else Place()
        ours = {"grant_id": issued.grant_id, "task_id": task_id, **_parts(self.place)}
        pair = issued.credential
        ours |= {"token": _reveal(pair.token), "session_token": _reveal(pair.session_token)}
        secrets = {name: Secret(text) for name, text in ours.items() if text}
        self._all = {**secrets, **self._files(own), **own}
        self.own = tuple(own)
        """The names of the credential's own."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all there is."""
        return tuple(self._all)

    def get(self, name: str) -> Secret | None:
        """Return one of them."""
        return self._all.get(name)

    def _files(self, own: Mapping[str, Secret]) -> dict[str, Secret]:
        """Return the texts of files that programs know, of what there is."""
        if (data := own.get("private_key_data")) is not None:
            try:
                decoded = base64.b64decode(data.reveal(), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return {}
            return {"key_file": Secret(decoded)}
        if self.place.kind != "postgres" or not {"username", "password"} <= own.keys():
            return {}
        user, password = own["username"].reveal(), own["password"].reveal()
        return {
            "pgpass": Secret(pgpass_line(self.place, user, password)),
            "pgservice": Secret(pgservice_file(self.place, user, password)),
        }


def pgpass_line(place: Place, user: str, password: str) -> str:
    """Return a line of a password file (PostgreSQL, libpq: "The Password File")."""
    fields = (place.host or "*", place.port or "*", place.database or "*", user, password)
    return ":".join(_escaped(field) for field in fields) + "\n"


def pgservice_file(place: Place, user: str, password: str, name: str = "broker") -> str:
    """Return a connection service file (libpq: "The Connection Service File") with one service."""
    said = {"host": place.host, "port": place.port, "dbname": place.database}
    said |= {"user": user, "password": password, **(place.options or {})}
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in said.items() if value)


def _escaped(field: str) -> str:
    if field == "*":
        return field
    return field.replace("\\", "\\\\").replace(":", "\\:")


def _place(dsn: str) -> Place:
    scheme = dsn.partition(":")[0].partition("+")[0]
    try:
        parts = urlsplit(dsn)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # several hosts, say: the DSN is all that there is then
        return Place(_KINDS.get(scheme, ""))
    return Place(
        kind=_KINDS.get(scheme, ""),
        host=unquote(host),
        port=str(port or _PORTS.get(scheme, "")),
        database=unquote(parts.path.removeprefix("/")),
        options=dict(parse_qsl(parts.query)),
    )


def _parts(place: Place) -> dict[str, str]:
    return {"host": place.host, "port": place.port, "database": place.database}


def _reveal(secret: Secret | None) -> str:
    return secret.reveal() if secret is not None else ""
