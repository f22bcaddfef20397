"""A world in which chains get long: five agents that may have every tool, and a test's policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE, OWNER
from tests.http.deciding import TOOLS, DecisionWorld, decision_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

AGENTS: Final = ("report-writer", "order-clerk", "editor", "checker", "translator")
NAMES: Final = [*TOOLS, "uplink", "orders-read", "orders-api"]


class ChainWorld(DecisionWorld):
    """Opens chains, link by link."""

    async def link(
        self, parent: Mapping[str, Any], agent: str, *, by: str = "", **fields: Any
    ) -> httpx2.Response:
        """Ask for a child of a task, as the task's agent unless somebody else is named."""
        ask = {
            "agent": agent,
            "purpose": f"a part for {agent}",
            "capabilities": NAMES,
            "parent_task_id": parent["task_id"],
            **fields,
        }
        return await self.post("/v1/tasks", ask, by=by, task=None if by else parent)

    async def linked(self, parent: Mapping[str, Any], agent: str, **fields: Any) -> dict[str, Any]:
        answer = await self.link(parent, agent, **fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def root(self, **fields: Any) -> dict[str, Any]:
        return await self.open(**{"capabilities": NAMES, **fields})

    async def chain(self, *agents: str, **fields: Any) -> list[dict[str, Any]]:
        """A chain of tasks, each opened by the agent before; ``fields`` are the root's."""
        tasks = [await self.root(agent=agents[0], **fields)]
        for agent in agents[1:]:
            tasks.append(await self.linked(tasks[-1], agent))
        return tasks

    async def why(self, task: Mapping[str, Any], tool: str, **about: Any) -> str:
        """Why a call is denied; empty if it isn't."""
        answer = await self.decide(task, tool, **about)
        return "" if answer["decision"] else answer["context"]["reason"]


def chain_config(
    stack: DevStack,
    *,
    policies: Path | None = None,
    principals: Mapping[str, Mapping[str, Any]] | None = None,
    **sections: Mapping[str, Any],
) -> Config:
    """The configuration of ``DecisionWorld`` with more agents; ``principals`` change some."""
    document = decision_document(stack)
    known = {principal["name"]: principal for principal in document["principals"]}
    for name in AGENTS:
        if name not in known:
            known[name] = {
                "name": name,
                "role": "agent",
                "owner": OWNER,
                "identity": {"issuer": "dev", "subject": f"agent/{name}"},
            }
            document["principals"].append(known[name])
        known[name] |= {"capabilities": NAMES, **(principals or {}).get(name, {})}
    if policies is not None:
        document["policy"] = {**document.get("policy", {}), "dir": str(policies)}
    for name, changes in sections.items():
        document[name] = {**document.get(name, {}), **changes}
    return parse_config(tomli_w.dumps(document), stack.data / FILE)
