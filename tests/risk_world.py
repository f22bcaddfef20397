"""A world in which risk is reported, and power counted: agents, a detector, and their policies."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE, OWNER
from tests.http.deciding import DecisionWorld, question
from tests.http.parties import ORDERS

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

WHY: Final = "a test"
DETECTOR: Final = "anomaly-detector"
AGENTS: Final = ("report-writer", "order-clerk", "courier")
DETECTS: Final = f"""\
permit (principal == Principal::"{DETECTOR}", action == Action::"operate",
        resource == Operation::"signal");
"""
"""What lets a detector report."""

_PRINCIPALS: Final[list[dict[str, Any]]] = [
    {
        "name": DETECTOR,
        "role": "resource_server",
        "owner": "security@example.com",
        "resource": "https://detector.example.com",
        "identity": {"issuer": "dev", "subject": f"resource-server/{DETECTOR}"},
    },
    {
        "name": "courier",
        "role": "agent",
        "owner": "logistics@example.com",
        "identity": {"issuer": "dev", "subject": "agent/courier"},
    },
]
_CREDENTIAL: Final = {"backend": "token", "resource": ORDERS, "ttl": "5m", "max_ttl": "15m"}
_CAPABILITIES: Final[list[dict[str, Any]]] = [
    {
        **_CREDENTIAL,
        "name": "customers",
        "power": "read",
        "scope": "customers.read",
        "data_class": "confidential",
        "effects": ["reads:customers"],
    },
    {
        **_CREDENTIAL,
        "name": "pages",
        "power": "read",
        "scope": "pages.read",
        "data_class": "public",
        "effects": ["ingests:untrusted"],
    },
    {**_CREDENTIAL, "name": "orders-post", "power": "operate", "scope": "orders.write"},
    {
        "name": "mail-out",
        "power": "operate",
        "backend": "tool",
        "tool": "mail.send",
        "data_class": "public",
        "effects": ["egress:internet"],
        "arguments": {"to": "strings"},
    },
]
ALL: Final = ("orders-read", "orders-api", *(row["name"] for row in _CAPABILITIES))


class RiskWorld(DecisionWorld):
    """Reports, and asks what they have done."""

    async def signal(
        self, about: dict[str, Any], *, by: str = "operator", **said: Any
    ) -> httpx2.Response:
        return await self.call(
            by, "POST", "/v1/signals", {"selector": about, "reason": WHY, **said}
        )

    async def reported(self, about: dict[str, Any], **said: Any) -> dict[str, Any]:
        answer = await self.signal(about, **said)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def clear(self, about: dict[str, Any], *, by: str = "operator") -> httpx2.Response:
        return await self.call(by, "DELETE", "/v1/signals", {"selector": about, "reason": WHY})

    async def signals(self, *, by: str = "auditor", query: str = "") -> dict[str, Any]:
        answer = await self.call(by, "GET", f"/v1/signals{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ask(self, task: dict[str, Any], capability: str) -> httpx2.Response:
        """Ask for a credential as the task's orchestrator."""
        path = f"/v1/tasks/{task['task_id']}/grants"
        return await self.call("orchestrator", "POST", path, {"capability": capability})

    async def below(self, parent: dict[str, Any], agent: str, *capabilities: str) -> dict[str, Any]:
        """Open a child."""
        names = list(capabilities)
        return await self.open(agent=agent, capabilities=names, parent_task_id=parent["task_id"])

    async def power(self, task: dict[str, Any], *, by: str = "operator") -> dict[str, Any]:
        path = f"/v1/tasks/{task['task_id']}/power"
        own = task["task_id"] if by == task["agent"] else None
        answer = await self.call(by, "GET", path, task_id=own)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def may_send(self, task: dict[str, Any]) -> bool:
        """Whether the decision point lets a task's orchestrator send a mail for it."""
        body = question(task, "mail.send")
        answer = await self.call("orchestrator", "POST", "/access/v1/evaluation", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["decision"]


def risk_config(stack: DevStack, policies: Path | None = None) -> Config:
    """The dev configuration with a detector and a third agent; all agents may have all there is."""
    file = stack.data / FILE
    document: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    document["principals"] += _PRINCIPALS
    document["capabilities"] += _CAPABILITIES
    for principal in document["principals"]:
        if principal["name"] in AGENTS:
            principal["capabilities"] = list(ALL)
    if policies is not None:
        document["policy"] = {**document.get("policy", {}), "dir": str(policies)}
    assert OWNER in {p["owner"] for p in document["principals"]}
    return parse_config(tomli_w.dumps(document), file)
