"""A delivered credential: what is secret in it stays hidden until asked for by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from broker.secret import REDACTED, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN: Final = frozenset({"type", "username"})
"""Members known to be harmless. Any other is taken for a secret."""


@final
class Credential:
    """What was issued: a type, maybe a user name, and secrets by name.

    A database's has ``username``, ``password`` and ``dsn``. Like a ``Secret`` it can't be printed,
    compared, pickled or copied by accident.
    """

    __slots__ = ("__document",)

    def __init__(self, document: Mapping[str, Any]) -> None:
        """``document`` is the ``credential`` member of the broker's answer."""
        self.__document = dict(document)

    @property
    def type(self) -> str:
        """What kind of credential it is, such as ``database``."""
        return str(self.__document.get("type", ""))

    @property
    def username(self) -> str | None:
        """The account's name, which isn't secret."""
        value = self.__document.get("username")
        return value if isinstance(value, str) else None

    @property
    def password(self) -> Secret | None:
        """The password, if it has one."""
        return self.get("password")

    @property
    def token(self) -> Secret | None:
        """The token, if it is one."""
        return self.get("access_token") or self.get("token")

    @property
    def dsn(self) -> Secret | None:
        """The connection string with the password in it, if it has one."""
        return self.get("dsn")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all members, as the broker ordered them."""
        return tuple(self.__document)

    def get(self, name: str) -> Secret | None:
        """Return any member by name as a secret; one that isn't text as its JSON."""
        value = self.__document.get(name)
        if value is None:
            return None
        return Secret(value if isinstance(value, str) else json.dumps(value))

    def reveal(self) -> dict[str, Any]:
        """Return all members with their values. Whoever calls this is the one who delivers it."""
        return dict(self.__document)

    def redacted(self) -> dict[str, Any]:
        """Return all members, with the secret ones' values hidden."""
        return {k: v if k in _PLAIN else REDACTED for k, v in self.__document.items()}

    def __repr__(self) -> str:
        return f"Credential({self.redacted()!r})"

    def __eq__(self, other: object) -> bool:
        return NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> NoReturn:
        msg = "a Credential is never pickled or copied"
        raise TypeError(msg)

    def __getstate__(self) -> NoReturn:
        self.__reduce__()
