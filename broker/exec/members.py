"""What templates and presets find in a credential: its own members, and those made of its DSN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.client.conventions import kind_of, members_of
from broker.client.dsn import Place, place_of
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.client import IssuedGrant


class Members:
    """What one grant gives, by name. All of it is taken for secret but what is asked of ``place``.

    A DSN gives ``host``, ``port`` and ``database`` as well, and PostgreSQL's a line of a ``pgpass``
    file and a ``pgservice`` file; Google's key a ``key_file``.
    """

    def __init__(self, issued: IssuedGrant, *, task_id: str = "") -> None:
        """``task_id`` is a member, too, for a child that speaks to the broker."""
        self.grant_id = issued.grant_id
        self.capability = issued.capability
        dsn = issued.credential.dsn
        self.place = place_of(dsn.reveal()) if dsn is not None else Place()
        self.kind = kind_of(issued.credential, self.place)
        ours = {"grant_id": issued.grant_id, "task_id": task_id}
        found = members_of(issued.credential, self.place)
        self.own = tuple(name for name in issued.credential.names if name in found)
        """The names of the credential's own."""
        secrets = {name: Secret(text) for name, text in ours.items() if text}
        self.all: Mapping[str, Secret] = {**secrets, **_files(self.place, found), **found}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all there is."""
        return tuple(self.all)

    def get(self, name: str) -> Secret | None:
        """Return one of them."""
        return self.all.get(name)


def _files(place: Place, members: Mapping[str, Secret]) -> dict[str, Secret]:
    """Return the texts of files that programs know, of what there is."""
    if place.kind != "postgres" or not {"username", "password"} <= members.keys():
        return {}
    user, password = members["username"].reveal(), members["password"].reveal()
    return {
        "pgpass": Secret(pgpass_line(place, user, password)),
        "pgservice": Secret(pgservice_file(place, user, password)),
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
