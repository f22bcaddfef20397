"""A double of a Kubernetes API server's service accounts, their tokens, roles and bindings.

There is no Kubernetes here. This stands in for the calls that a secrets engine makes, as far as
their documentation goes: objects are made once and deleted once, a token is asked for at the
TokenRequest API and lives as long as it says, but no less than ten minutes, and it is refused when
its account is gone. What it can't show is how a given version of Kubernetes behaves beyond that.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Final

from tests.issuers import Answer, IssuerKey
from tests.token_reviews import accepted

if TYPE_CHECKING:
    from tests.loopback import Asked

ENGINE: Final = "the-engines-own-token"
LEAST_S: Final = 600
_CORE: Final = r"/api/v1/namespaces/(?P<ns>[^/]+)/(?P<kind>serviceaccounts)"
_RBAC: Final = (
    r"/apis/rbac\.authorization\.k8s\.io/v1(/namespaces/(?P<ns>[^/]+))?"
    r"/(?P<kind>rolebindings|clusterrolebindings|roles|clusterroles)"
)
_NAMED: Final = r"(/(?P<name>[^/?]+))?(?P<token>/token)?(\?.*)?"

Row = tuple[str, str, str]
"""Kind, namespace and name of an object."""
Members = dict[int, int | bytes]


class KubernetesApi:
    """Which objects there are, and which tokens work.

    ``asked_s`` are the lifetimes that were asked for, ``deleted`` the kinds of what was deleted, in
    order, ``failing`` the kinds that no request gets done anything to.
    """

    def __init__(self) -> None:
        self._key = IssuerKey.new()
        self.objects: set[Row] = set()
        self.asked_s: list[int] = []
        self.deleted: list[str] = []
        self.failing: set[str] = set()
        self._tokens: dict[str, tuple[Row, float]] = {}

    def __call__(self, asked: Asked) -> Answer:
        """Answer a request of the engine."""
        if asked.headers.get("authorization") != f"Bearer {ENGINE}":
            return _status(401, "Unauthorized")
        place = next(
            (m for r in (_CORE, _RBAC) if (m := re.fullmatch(r + _NAMED, asked.path))), None
        )
        if place is None or place["kind"] in self.failing:
            return _status(500, "InternalError")
        row = (place["kind"], place["ns"] or "", place["name"] or "")
        match asked.method, bool(place["token"]):
            case "POST", True:
                return self._token(row, asked.body)
            case "POST", False:
                return self._make(row, asked.body)
            case "DELETE", False:
                return self._delete(row)
            case _:
                return _status(405, "MethodNotAllowed")

    def works(self, token: str) -> bool:
        """Whether a request with a token would be let in: its account is there, its time not up."""
        row, ends_at = self._tokens[token]
        return row in self.objects and time.time() < ends_at

    def _make(self, row: Row, body: bytes) -> Answer:
        type_meta, document = _message(body)
        row = (*row[:2], _text(_members(document[1])[1]))
        if row in self.objects:
            return _status(409, "AlreadyExists")
        self.objects.add(row)
        return accepted({**type_meta, "metadata": {"name": row[2], "uid": f"uid-{row[2]}"}})

    def _delete(self, row: Row) -> Answer:
        if row not in self.objects:
            return _status(404, "NotFound")
        self.objects.remove(row)
        self.deleted.append(row[0])
        return Answer(b'{"kind":"Status","status":"Success"}', 200, _JSON)

    def _token(self, row: Row, body: bytes) -> Answer:
        if row not in self.objects:
            return _status(404, "NotFound")
        type_meta, document = _message(body)
        seconds = _members(document[2])[4]
        assert isinstance(seconds, int)
        self.asked_s.append(seconds)
        if seconds < LEAST_S:
            return _status(422, "Invalid")
        now = int(time.time())
        subject = f"system:serviceaccount:{row[1]}:{row[2]}"
        claims = {"sub": subject, "iat": now, "exp": now + seconds, "jti": f"{len(self.asked_s)}"}
        token = self._key.sign(claims)
        self._tokens[token] = (row, now + seconds)
        return accepted({**type_meta, "status": {"token": token}})


_JSON: Final = {"content-type": "application/json"}


def _status(code: int, reason: str) -> Answer:
    """What an API server says when it refuses."""
    document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return Answer(json.dumps({**document, "reason": reason}).encode(), code, _JSON)


def _message(body: bytes) -> tuple[dict[str, str], Members]:
    """Kind and version of an object that is sent as Kubernetes' clients do, and its members."""
    magic, envelope = body[:4], _members(body[4:])
    assert magic == b"k8s\0"
    about = _members(envelope[1])
    return {"apiVersion": _text(about[1]), "kind": _text(about[2])}, _members(envelope[2])


def _members(message: int | bytes) -> Members:
    """The last value of each member of a protobuf message, by number: integers and bytes."""
    assert isinstance(message, bytes)
    found: Members = {}
    rest = message
    while rest:
        key, rest = _varint(rest)
        value, rest = _varint(rest)
        if key & 7:
            value, rest = rest[:value], rest[value:]
        found[key >> 3] = value
    return found


def _varint(text: bytes) -> tuple[int, bytes]:
    value = 0
    for place, byte in enumerate(text):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # the last one of a number
            return value, text[place + 1 :]
    raise AssertionError(text)


def _text(value: int | bytes) -> str:
    assert isinstance(value, bytes)
    return value.decode()
