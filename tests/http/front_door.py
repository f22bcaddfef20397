"""A world with people, clients that hold keys, and capabilities for several services."""

from __future__ import annotations

import json
import time
import tomllib
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus

import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE, OWNER
from tests.http.parties import OTHER_SERVICE, RIVAL, PartyWorld, details
from tests.issuers import IssuerKey, jwks
from tests.world import EXCHANGE, JWT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import httpx2

    from broker.dev.stack import DevStack
    from tests.possession import Sender

ORDERS: Final = "https://orders.example.com"
BILLING: Final = "https://billing.example.com"
REPORTS: Final = "urn:example:reports"
STAFF: Final = "https://staff.example.com"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

STAFF_KEY: Final = IssuerKey.new("ES256", "staff-1")
"""Signs for people."""
CLIENT_KEY: Final = IssuerKey.new("ES256", "client-1")
"""Held by the clients ``runner`` (an agent), ``gateway`` (a service) and ``desk`` (an operator)."""

_AGENT_CAPABILITIES: Final = ["orders-read", "orders-api", "orders-admin", "two-services", "bound"]
_CAPABILITIES: Final[list[dict[str, Any]]] = [
    {"name": "orders-admin", "resource": ORDERS, "scope": "orders.read orders.write"},
    {"name": "two-services", "resource": [ORDERS, BILLING], "scope": "both.read"},
    {"name": "bound", "resource": REPORTS, "require_binding": True},
]


class FrontDoor(PartyWorld):
    """A broker whose front door a test knocks at with whatever it likes."""

    async def post(
        self, path: str, form: dict[str, Any] | list[tuple[str, str]], **headers: str
    ) -> httpx2.Response:
        """Send a form; an underscore in a header's name stands for a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        pairs = form if isinstance(form, list) else list(form.items())
        content = "&".join(f"{_quote(k)}={_quote(v)}" for k, v in pairs)
        form_type = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self.http.post(path, content=content, headers={**form_type, **named})

    def form(self, subject_token: str, **changes: Any) -> dict[str, Any]:
        """A token exchange; a change to None leaves a parameter out."""
        form = {
            "grant_type": EXCHANGE,
            "subject_token": subject_token,
            "subject_token_type": JWT,
            **changes,
        }
        return {name: value for name, value in form.items() if value is not None}

    async def swap(self, subject_token: str, **changes: Any) -> httpx2.Response:
        """Exchange a token."""
        return await self.post("/oauth/token", self.form(subject_token, **changes))

    async def narrowed(self, token: str, **changes: Any) -> httpx2.Response:
        """Exchange an access token of ours."""
        return await self.swap(token, subject_token_type=ACCESS_TOKEN, **changes)

    def person(self, name: str = "alice", **claims: object) -> str:
        """A person's JWT; a claim given as None is left out."""
        good = {"iss": STAFF, "sub": name, "aud": "broker"}
        return STAFF_KEY.sign(_claims(300, {**good, **claims}))

    def assertion(self, client: str, **claims: object) -> str:
        """A client's own JWT (RFC 7523)."""
        good = {"iss": client, "sub": client, "aud": self.config.broker.issuer}
        return CLIENT_KEY.sign(_claims(60, {**good, "jti": uuid.uuid4().hex, **claims}))

    def as_client(self, client: str, **claims: object) -> dict[str, str]:
        """The parameters by which a client authenticates itself."""
        return {
            "client_assertion_type": ASSERTION,
            "client_assertion": self.assertion(client, **claims),
        }

    async def task_of(self, agent: str = "report-writer", **fields: Any) -> dict[str, Any]:
        """Open a task that may have all there is."""
        return await self.open(agent=agent, **{"capabilities": _AGENT_CAPABILITIES, **fields})

    async def claims(self, token: str) -> dict[str, Any]:
        """What a token says, to an operator; its liveness with it."""
        headers = {"Authorization": f"Bearer {await self.token('operator')}"}
        answer = await self.http.post("/oauth/introspect", data={"token": token}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def alive(self, token: str) -> bool:
        return (await self.claims(token))["active"]

    async def bound(
        self, form: dict[str, Any], sender: Sender, path: str = "/oauth/token"
    ) -> httpx2.Response:
        """Send a form with a DPoP proof, once more with the nonce that is asked for."""
        url = f"{self.config.broker.issuer}{path}"
        first = await self.post(path, form, DPoP=sender.proof("POST", url, time.time()))
        if first.status_code != 400 or first.json()["error"] != "use_dpop_nonce":
            return first
        nonce = first.headers["dpop-nonce"]
        return await self.post(path, form, DPoP=sender.proof("POST", url, time.time(), nonce=nonce))

    async def task_token(self, task: dict[str, Any], **changes: Any) -> str:
        """The token of a task's agent, by its workload JWT."""
        answer = await self.swap(
            self.identity(task["agent"]),
            authorization_details=details(task["task_id"]),
            **changes,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]


def expect(answer: httpx2.Response) -> dict[str, Any]:
    """The body of an answer that must be good."""
    assert answer.status_code == 200, answer.text
    return answer.json()


def front_door(stack: DevStack, folder: Path, **sections: Mapping[str, Any]) -> FrontDoor:
    """The dev configuration with all of that added; ``folder`` is for the clients' keys.

    ``sections`` change settings, as those of ``party_world``.
    """
    file = stack.data / FILE
    document: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    (folder / "client.jwks.json").write_bytes(jwks(CLIENT_KEY))
    (folder / "staff.jwks.json").write_bytes(jwks(STAFF_KEY))
    document["identity"]["issuers"].append(
        {
            "name": "staff",
            "issuer": STAFF,
            "audience": "broker",
            "jwks_file": str(folder / "staff.jwks.json"),
        }
    )
    keyed = {"owner": OWNER, "identity": {"jwks_file": str(folder / "client.jwks.json")}}
    for capability in _CAPABILITIES:
        document["capabilities"].append({"power": "read", "backend": "token", **capability})
    for principal in document["principals"]:
        if principal["role"] == "agent":
            names = [*principal["capabilities"], *_AGENT_CAPABILITIES]
            principal["capabilities"] = list(dict.fromkeys(names))
    runner = {"name": "runner", "role": "agent", "capabilities": _AGENT_CAPABILITIES}
    gateway = {"name": "gateway", "role": "resource_server", "resource": REPORTS}
    desk = {"name": "desk", "role": "operator"}
    document["principals"] += [
        RIVAL,
        OTHER_SERVICE,
        *({**row, **keyed} for row in (runner, gateway, desk)),
    ]
    for name, changes in sections.items():
        document[name] = {**document.get(name, {}), **changes}
    return FrontDoor(stack.issuer, parse_config(tomli_w.dumps(document), file))


def _claims(lifetime: int, claims: dict[str, Any]) -> dict[str, Any]:
    now = int(time.time())
    members = {"iat": now, "exp": now + lifetime, **claims}
    return {name: value for name, value in members.items() if value is not None}


def _quote(value: object) -> str:

    return quote_plus(value if isinstance(value, str) else json.dumps(value))
