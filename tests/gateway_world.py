"""A world with a resource server that acts for agents, and what it may show models."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE, OWNER
from tests.http.parties import APPROVER, DEPLOY, OTHER_SERVICE, PartyWorld, details
from tests.world import EXCHANGE, JWT

if TYPE_CHECKING:
    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
GATEWAY: Final = "mcp-gateway"
RESOURCE: Final = "http://127.0.0.1:8701/mcp"
_NAMES: Final = ("broker-mcp", "mcp-unscoped", "orders-shown", "deploy", "orders-api")


def gateway_config(stack: DevStack, resource: str = RESOURCE) -> Config:
    """The dev configuration with an MCP server, and a capability whose secrets models may see."""
    file = stack.data / FILE
    document: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    server = {
        "name": GATEWAY,
        "role": "resource_server",
        "owner": OWNER,
        "resource": resource,
        "identity": {"issuer": "dev", "subject": "resource-server/mcp"},
    }
    document["principals"] += [server, OTHER_SERVICE, APPROVER]
    read = next(c for c in document["capabilities"] if c["name"] == "orders-read")
    token = {"power": "read", "backend": "token", "resource": resource}
    document["capabilities"] += [
        {"name": "broker-mcp", "scope": "mcp", **token},
        {"name": "mcp-unscoped", "scope": "other", **token},
        {**read, "name": "orders-shown", "model_may_see": True},
        DEPLOY,
    ]
    for principal in document["principals"]:
        if principal["role"] == "agent":
            principal["capabilities"] = list(dict.fromkeys((*principal["capabilities"], *_NAMES)))
    return parse_config(tomli_w.dumps(document), file)


class GatewayWorld(PartyWorld):
    """A broker with a resource server in front of it that agents bring tokens to."""

    async def post(self, **form: Any) -> httpx2.Response:
        return await self.http.post("/oauth/token", data=form)

    async def present(
        self, task: dict[str, Any], scope: str | None = "mcp", **more: str
    ) -> dict[str, Any]:
        """What the token endpoint gives a task's agent for the resource server."""
        gateway = next(p for p in self.config.principals if p.name == GATEWAY)
        assert gateway.resource is not None
        form = {
            "grant_type": EXCHANGE,
            "subject_token": self.identity(task["agent"]),
            "subject_token_type": JWT,
            "resource": gateway.resource,
            "authorization_details": details(task["task_id"]),
            **({"scope": scope} if scope else {}),
            **more,
        }
        answer = await self.post(**form)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def act_by(self, token: str, actor: str = GATEWAY, **more: str) -> httpx2.Response:
        """Exchange a token that was presented, as the one that it was presented to."""
        form = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "actor_token": self.identity(actor),
            "actor_token_type": JWT,
            "resource": self.config.broker.issuer,
            **more,
        }
        return await self.post(**form)

    async def sealed(self, name: str, task_id: str | None = None) -> str:
        """A token by which no credential is seen."""
        form = {
            "grant_type": EXCHANGE,
            "subject_token": self.identity(name),
            "subject_token_type": JWT,
            "resource": self.config.broker.issuer,
            "scope": "sealed",
            **({"authorization_details": details(task_id)} if task_id else {}),
        }
        answer = await self.post(**form)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    async def by(self, token: str, method: str, path: str, body: Any = None) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return await self.http.request(method, path, json=body, headers=headers)
