"""A double of HashiCorp Vault, for the secrets engines that no server here has.

It speaks the calls that the broker makes, in the shapes that Vault's API pages document: logins and
tokens by their accessors, leases by their ids, and of the engines those endpoints it is given. A
path is asked by its one method, with a token that has its policy. Behind it is no cloud: what it
can't show is that a credential works, or ceases to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from tests.issuers import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.loopback import Asked

BROKER: Final = "hvs.of-the-broker-itself"
DAY_S: Final = 86_400


@dataclass(frozen=True)
class Endpoint:
    """What a path gives: ``data`` made anew for each call, under a lease or not."""

    method: str
    data: Callable[[], dict[str, Any]]
    leased: bool = True
    timed: bool = False


@dataclass
class VaultDouble:
    """Tokens and leases, and what was asked of the endpoints.

    ``leases`` are those that live, with the token each hangs from; ``revoked`` those that were
    revoked, in order. While ``losing``, what is asked for is made and its answer isn't given.
    """

    endpoints: dict[str, Endpoint]
    policies: dict[str, str]
    leases: dict[str, str] = field(default_factory=dict[str, str])
    revoked: list[str] = field(default_factory=list[str])
    asked: list[tuple[str, str, dict[str, Any]]] = field(
        default_factory=list[tuple[str, str, dict[str, Any]]]
    )
    losing: bool = False
    _tokens: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    _ids: count[int] = field(default_factory=lambda: count(1))

    def __call__(self, asked: Asked) -> Answer:
        """Answer a request."""
        path, body = asked.path.removeprefix("/v1/"), json.loads(asked.body or b"{}")
        if path == "auth/approle/login":
            return _said(auth={"client_token": BROKER, "lease_duration": 3600})
        token = asked.headers.get("x-vault-token", "")
        if path in self.endpoints:
            return self._give(token, asked.method, path, body)
        if token != BROKER:
            return _refused(403, "permission denied")
        return self._as_broker(asked.method, path, body)

    def _as_broker(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        answer = _refused(404)
        match method, path.split("/"):
            case "POST", ["auth", "token", "create", _]:
                answer = self._create({**body, "path": path})
            case "POST", ["auth", "token", ("lookup-accessor" | "revoke-accessor") as verb]:
                answer = self._by_accessor(verb, body["accessor"])
            case "LIST", ["auth", "token", "accessors"]:
                keys = [row["accessor"] for row in self._tokens.values()]
                answer = _said(data={"keys": keys})
            case "PUT", ["sys", "leases", ("lookup" | "revoke") as verb]:
                answer = self._by_lease(verb, body["lease_id"])
            case "LIST", ["sys", "leases", "lookup", *_]:
                below = path.removeprefix("sys/leases/lookup/") + "/"
                keys = [i.removeprefix(below) for i in self.leases if i.startswith(below)]
                answer = _said(data={"keys": keys}) if keys else answer
            case _:
                pass
        return answer

    def _give(self, token: str, method: str, path: str, body: dict[str, Any]) -> Answer:
        endpoint = self.endpoints[path]
        self.asked.append((method, path, body))
        if self.policies[path] not in self._tokens.get(token, {"policies": []})["policies"]:
            return _refused(403, "permission denied")
        if method != endpoint.method:
            return _refused(405, "unsupported operation")
        if not endpoint.leased and not self.losing:
            return _said(lease_id="", lease_duration=0, data=endpoint.data())
        lease = f"{path}/{next(self._ids)}"
        if endpoint.leased:
            self.leases[lease] = token
        if self.losing:
            return _refused(500, "internal error")
        lasts = int(body["ttl"].removesuffix("s")) if endpoint.timed else DAY_S
        return _said(lease_id=lease, lease_duration=lasts, renewable=True, data=endpoint.data())

    def _create(self, body: dict[str, Any]) -> Answer:
        token, accessor = f"hvs.of-a-task-{next(self._ids)}", f"accessor-{next(self._ids)}"
        self._tokens[token] = {**body, "accessor": accessor}
        return _said(auth={"client_token": token, "accessor": accessor})

    def _by_accessor(self, verb: str, accessor: str) -> Answer:
        token = next((t for t, row in self._tokens.items() if row["accessor"] == accessor), None)
        if token is None:
            return _refused(403, "invalid accessor")
        if verb == "lookup-accessor":
            return _said(data=self._tokens[token])
        del self._tokens[token]
        for lease in [lease for lease, owner in self.leases.items() if owner == token]:
            self._end(lease)
        return _said()

    def _by_lease(self, verb: str, lease: str) -> Answer:
        if lease not in self.leases:
            return _refused(400, "invalid lease")
        if verb == "lookup":
            return _said(data={"id": lease, "ttl": DAY_S})
        self._end(lease)
        return _said()

    def _end(self, lease: str) -> None:
        del self.leases[lease]
        self.revoked.append(lease)


def _said(**members: Any) -> Answer:
    """An answer with all the members that each has."""
    envelope = {"request_id": "0", "data": None, "auth": None, "warnings": None, "wrap_info": None}
    return Answer(json.dumps({**envelope, **members}).encode(), 200, _JSON)


def _refused(status: int, *errors: str) -> Answer:
    return Answer(json.dumps({"errors": errors}).encode(), status, _JSON)


_JSON: Final = {"content-type": "application/json"}
