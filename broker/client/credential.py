"""A delivered credential: what is secret in it stays hidden until asked for by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from broker.secret import REDACTED, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

_CERTIFICATE: Final = frozenset(
    {
        "certificate",
        "issuing_ca",
        "ca_chain",
        "serial_number",
        "expiration",
        "not_before",
        "private_key_type",
    }
)
_PLAIN: Final[Mapping[str, frozenset[str]]] = {
    "ldap": frozenset({"username", "distinguished_names"}),
    "pki": _CERTIFICATE,
    "ssh": frozenset({"serial_number", "signed_key", "issuer_id"}),
    "kubernetes": frozenset({"service_account_name", "service_account_namespace"}),
    "kv": frozenset(),
    "aws": frozenset({"access_key", "arn"}),
    "gcp": frozenset({"expires_at_seconds", "token_ttl", "key_algorithm", "key_type"}),
    "azure": frozenset({"client_id"}),
}
"""Members known to be harmless, by the credential's type: what is an account's name in one may be
somebody's secret in another. Any other is taken for a secret."""
_OTHERS: Final = frozenset({"username"})


@final
class Credential:
    """What was issued: a type, members that are no secrets, and secrets by name.

    A database's has ``username``, ``password`` and ``dsn``, a certificate's ``certificate`` and
    maybe ``private_key``, a cloud's ``access_key`` and ``secret_key``; what one hasn't is None.
    Like a ``Secret`` it can't be printed, compared, pickled or copied by accident.
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
        return self.__public("username")

    @property
    def password(self) -> Secret | None:
        """The password, if it has one."""
        return self.get("password")

    @property
    def token(self) -> Secret | None:
        """The token, if it is one."""
        return self.__first("access_token", "token", "service_account_token")

    @property
    def certificate(self) -> str | None:
        """The certificate: X.509 in PEM, or SSH's in a line; it isn't secret."""
        return self.__public("certificate", "signed_key")

    @property
    def private_key(self) -> Secret | None:
        """The certificate's key in PEM, if it was made for whoever asked."""
        return self.get("private_key")

    @property
    def access_key(self) -> str | None:
        """The id of a key pair, which isn't secret: a cloud's access key or client id."""
        return self.__public("access_key", "client_id")

    @property
    def secret_key(self) -> Secret | None:
        """The secret half of a key pair; Google's is a file, in base64."""
        return self.__first("secret_key", "client_secret", "private_key_data")

    @property
    def session_token(self) -> Secret | None:
        """What goes with a key pair of AWS that lives for a session."""
        return self.__first("session_token", "security_token")

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
        plain = self.__plain
        return {k: v if k in plain else REDACTED for k, v in self.__document.items()}

    @property
    def __plain(self) -> frozenset[str]:
        return _PLAIN.get(self.type, _OTHERS) | {"type"}

    def __public(self, *names: str) -> str | None:
        found = (self.__document.get(name) for name in names if name in self.__plain)
        return next((value for value in found if isinstance(value, str)), None)

    def __first(self, *names: str) -> Secret | None:
        return next((value for name in names if (value := self.get(name)) is not None), None)

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
