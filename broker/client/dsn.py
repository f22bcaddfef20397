"""What a connection URL says: where it leads to, and which programs speak it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS: Final = {
    **dict.fromkeys(("postgresql", "postgres"), ("postgres", "5432")),
    **dict.fromkeys(("mysql", "mariadb"), ("mysql", "3306")),
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), ("redis", "6379")),
    "amqp": ("rabbitmq", "5672"),
    "amqps": ("rabbitmq", "5671"),
}
"""By scheme: the kind, and the port where none is said."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a DSN leads to; each part is empty where it isn't said, ``options`` is its query."""

    kind: str = ""
    host: str = ""
    port: str = ""
    database: str = ""
    options: Mapping[str, str] | None = None


def place_of(dsn: str) -> Place:
    """Read one. Of one that is no URL (several hosts, say) only the kind is known.

    A driver's name in the scheme (``mysql+pymysql``) makes no difference.
    """
    scheme = dsn.partition(":")[0].partition("+")[0].lower()
    kind, usual = _KINDS.get(scheme, ("", ""))
    try:
        parts = urlsplit(dsn)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return Place(kind)
    return Place(
        kind=kind,
        host=unquote(host),
        port=str(port or usual),
        database=unquote(parts.path.removeprefix("/")),
        options=dict(parse_qsl(parts.query)),
    )
