"""A world with tools to call, and those who ask before they are called."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, Final

import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE
from tests.http.parties import DEPLOY, ORDERS, OTHER_SERVICE, RIVAL, PartyWorld

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"

_TOOLS: Final[list[dict[str, Any]]] = [
    {
        "name": "crm-read",
        "power": "read",
        "tool": "crm.read",
        "data_class": "confidential",
        "effects": ["reads:customers"],
        "arguments": {"query": "string", "limit": "integer?"},
    },
    {
        "name": "web-fetch",
        "power": "read",
        "tool": "web.fetch",
        "data_class": "public",
        "effects": ["ingests:untrusted"],
        "arguments": {"url": "string"},
    },
    {
        "name": "mail-out",
        "power": "operate",
        "tool": "mail.send",
        "data_class": "public",
        "effects": ["egress:internet"],
        "arguments": {
            "to": "strings",
            "subject": "string?",
            "copies": "integer?",
            "urgent": "boolean?",
            "weight": "number?",
        },
    },
    {
        "name": "pay-out",
        "power": "operate",
        "tool": "pay",
        "data_class": "internal",
        "effects": ["writes:payments"],
        "arguments": {"to": "string", "amount": "number", "note": "string?"},
        "amount": "amount",
    },
    {
        "name": "refund",
        "power": "operate",
        "data_class": "internal",
        "effects": ["writes:orders"],
        "arguments": {"order": "integer"},
        "resource": ORDERS,
    },
    {"name": "sealed", "power": "read", "data_class": "internal", "require_binding": True},
    {"name": "note", "power": "read", "data_class": "internal"},
]
TOOLS: Final = [row["name"] for row in _TOOLS]
UPLINK: Final[dict[str, Any]] = {
    "name": "uplink",
    "power": "operate",
    "backend": "token",
    "resource": ORDERS,
    "scope": "uplink",
    "data_class": "public",
    "effects": ["egress:internet"],
}
"""A credential with which its holder reaches the outside whenever it likes."""
PAY: Final[dict[str, Any]] = {"to": "acme", "amount": 10}


class DecisionWorld(PartyWorld):
    """A world whose agents have all the tools; tokens are kept as long as the world."""

    def __init__(self, issuer: Any, config: Config) -> None:
        super().__init__(issuer, config)
        self._tokens: dict[tuple[str, str], str] = {}

    async def task(self, agent: str = "report-writer", **fields: Any) -> dict[str, Any]:
        """Open a task that may use everything here."""
        names = [*TOOLS, "uplink", "deploy"]
        return await self.open(agent=agent, **{"capabilities": names, **fields})

    async def child(self, parent: dict[str, Any], agent: str, **fields: Any) -> dict[str, Any]:
        """Open a task below another, as its orchestrator."""
        return await self.task(agent, parent_task_id=parent["task_id"], **fields)

    async def headers(self, name: str, task_id: str = "") -> dict[str, str]:
        """Whoever asks, by a token; an agent's is its task's."""
        key = name, task_id
        if key not in self._tokens:
            self._tokens[key] = await self.token(name, task_id or None)
        return {"Authorization": f"Bearer {self._tokens[key]}"}

    async def post(
        self,
        path: str,
        body: Any,
        *,
        by: str = "",
        task: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send JSON as the agent of a task, or as somebody else; ``bytes`` as they are."""
        if headers is None:
            agent = not by or (task is not None and by == task.get("agent"))
            name = by or (task["agent"] if task else "")
            headers = await self.headers(name, task["task_id"] if agent and task else "")
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **headers}
        return await self.http.post(path, content=content, headers=sent)

    async def decide(
        self, task: Mapping[str, Any], tool: str, *, by: str = "", **about: Any
    ) -> dict[str, Any]:
        """Ask for a call and return the answer, which is one."""
        answer = await self.post(EVALUATION, question(task, tool, **about), by=by, task=task)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        return answer.json()

    async def allows(self, task: Mapping[str, Any], tool: str, **about: Any) -> bool:
        """Whether a call is allowed."""
        return (await self.decide(task, tool, **about))["decision"]

    async def report(
        self, task: Mapping[str, Any], decision: str, *, by: str = "", **fields: Any
    ) -> httpx2.Response:
        """Say what became of a call."""
        ask = {"decision_id": decision, "outcome": "succeeded", **fields}
        return await self.post(f"/v1/tasks/{task['task_id']}/executions", ask, by=by, task=task)

    async def decisions(self, task: Mapping[str, Any] | str = "") -> list[dict[str, Any]]:
        """The decisions about tool calls that were logged for a task."""
        task_id = task if isinstance(task, str) else task["task_id"]
        return [
            event
            for event in await self.events(task_id)
            if event["type"] == "decision" and event["data"]["action"] == "call_tool"
        ]


GOOD: Final[Mapping[str, dict[str, Any]]] = {
    "crm.read": {"query": "acme"},
    "web.fetch": {"url": "https://example.com/"},
    "mail.send": {"to": ["a@example.com"]},
    "pay": PAY,
    "refund": {"order": 7},
}
"""Arguments that each tool takes."""


def question(task: Mapping[str, Any], tool: str, **about: Any) -> dict[str, Any]:
    """A good question about a tool; ``about`` are properties of the resource."""
    arguments = GOOD.get(tool)
    properties = {**({"arguments": arguments} if arguments else {}), **about}
    return {
        "subject": {"type": "task", "id": task["task_id"]},
        "action": {"name": "call_tool"},
        "resource": {"type": "tool", "id": tool, "properties": properties},
    }


def decision_config(
    stack: DevStack, *, policies: Path | None = None, **sections: Mapping[str, Any]
) -> Config:
    """The dev configuration with a rival, another service, and the tools for both agents.

    ``policies`` is a folder of more policies; ``sections`` change settings.
    """
    document = decision_document(stack)
    if policies is not None:
        document["policy"] = {**document.get("policy", {}), "dir": str(policies)}
    for name, changes in sections.items():
        document[name] = {**document.get(name, {}), **changes}
    return parse_config(tomli_w.dumps(document), stack.data / FILE)


def decision_document(stack: DevStack) -> dict[str, Any]:
    """That configuration as TOML has it."""
    document: dict[str, Any] = tomllib.loads((stack.data / FILE).read_text("utf-8"))
    document["principals"] += [RIVAL, OTHER_SERVICE]
    tools = [{"backend": "tool", **row} for row in _TOOLS]
    document["capabilities"] += [*tools, UPLINK, DEPLOY]
    for principal in document["principals"]:
        if principal["name"] in {"report-writer", "order-clerk"}:
            names = (*principal["capabilities"], *TOOLS, "uplink", "deploy")
            principal["capabilities"] = list(dict.fromkeys(names))
    return document
