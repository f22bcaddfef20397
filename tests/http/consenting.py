"""A world in which humans have to say yes: two more operators, groups of them, a real database."""

from __future__ import annotations

import time
import tomllib
from typing import TYPE_CHECKING, Any, Final

import tomli_w

from broker.backends.bootstrap import Bootstrap
from broker.clock import SystemClock
from broker.config import parse_config
from broker.dev.config import FILE
from broker.dev.vault import admin
from broker.ids import shard_of
from broker.ledger import keys
from tests.http.parties import DEPLOY, PartyWorld, details
from tests.possession import Sender
from tests.waiting import wait_until
from tests.world import EXCHANGE, JWT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

ADMIN: Final[dict[str, Any]] = {
    "name": "orders-admin",
    "power": "privileged",
    "backend": "vault",
    "path": "database/creds/orders-write",
    "rotate": "database/rotate-root/orders",
}
DEPLOY_TOOL: Final[dict[str, Any]] = {
    "name": "deploy-tool",
    "power": "privileged",
    "backend": "tool",
    "tool": "deploy",
    "arguments": {"service": "string", "version": "string"},
    "effects": ["writes:production"],
}
GLASS: Final = """
@id("report-writer-may-break-the-glass")
@notify("security")
permit (principal == Principal::"report-writer", action == Action::"break_glass",
        resource == Capability::"orders-admin");

@id("alice-may-break-it-for-an-agent")
permit (principal, action == Action::"break_glass", resource == Capability::"orders-admin")
when { context.asker == "alice" };

@id("releases-are-the-orchestrators")
forbid (principal, action == Action::"issue_grant", resource == Capability::"release")
unless { context.asker == "orchestrator" && context.caller == "orchestrator" };

@id("some-tasks-would-take-a-human")
@require_approval("1")
permit (principal, action == Action::"open_task", resource)
when { context.purpose == "something that a human has to approve" };

@id("deploys-take-two-of-security")
@require_approval("2")
@approvers("security")
permit (principal, action == Action::"issue_grant", resource == Capability::"deploy-twice");
"""
PEOPLE: Final = ("alice", "bob", "carol")
"""Operators besides the dev configuration's; the first two are in the group."""


class ConsentWorld(PartyWorld):
    """Tokens are kept as long as the world."""

    def __init__(self, issuer: Any, config: Config) -> None:
        super().__init__(issuer, config)
        self.sender = Sender()
        self._tokens: dict[tuple[str, str], str] = {}

    async def api(
        self, name: str, method: str, path: str, body: Any = None, *, task: Any = None
    ) -> httpx2.Response:
        """Call the API as somebody; as an agent, under its task."""
        task_id = task["task_id"] if task and name not in ("orchestrator", *PEOPLE) else ""
        key = name, task_id
        if key not in self._tokens:
            self._tokens[key] = await self.token(name, task_id or None)
        headers = {"Authorization": f"Bearer {self._tokens[key]}"}
        return await self.http.request(method, path, json=body, headers=headers)

    async def ask(
        self, task: Mapping[str, Any], capability: str = "orders-admin", **fields: Any
    ) -> httpx2.Response:
        """Ask for a credential as the task's agent."""
        path = f"/v1/tasks/{task['task_id']}/grants"
        body = {"capability": capability, **fields}
        return await self.api(task["agent"], "POST", path, body, task=task)

    async def asked(
        self, task: Mapping[str, Any], capability: str = "orders-admin", **fields: Any
    ) -> str:
        """Ask for what needs approval; returns the approval's id."""
        answer = await self.ask(task, capability, **fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["approval_id"]

    async def say(
        self, approval_id: str, name: str = "alice", *, yes: bool = True, reason: str = "seen"
    ) -> httpx2.Response:
        """Approve or deny."""
        word = "approve" if yes else "deny"
        return await self.api(
            name, "POST", f"/v1/approvals/{approval_id}/{word}", {"reason": reason}
        )

    async def approval(self, approval_id: str, name: str = "alice") -> dict[str, Any]:
        answer = await self.api(name, "GET", f"/v1/approvals/{approval_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def elevation(self, task: Mapping[str, Any], **fields: Any) -> httpx2.Response:
        """Ask for an elevation as the task's agent."""
        body = {"capability": "orders-admin", "intent": "mend the orders", **fields}
        path = f"/v1/tasks/{task['task_id']}/elevations"
        return await self.api(task["agent"], "POST", path, body, task=task)

    async def elevated(self, task: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """Elevate a task, with alice's yes."""
        answer = await self.elevation(task, **fields)
        assert answer.status_code == 202, answer.text
        assert (await self.say(answer.json()["approval_id"])).status_code == 200
        answer = await self.elevation(task, **fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def bound(
        self, task: Mapping[str, Any], method: str, path: str, body: Any = None, *, name: str = ""
    ) -> httpx2.Response:
        """Call the API with a token that is bound to a key, with a proof each time."""
        name = name or task["agent"]
        key = f"bound:{name}", task["task_id"] if name == task["agent"] else ""
        issuer = self.config.broker.issuer
        if key not in self._tokens:
            form = {
                "grant_type": EXCHANGE,
                "subject_token": self.identity(name),
                "subject_token_type": JWT,
                "resource": issuer,
                **({"authorization_details": details(key[1])} if key[1] else {}),
            }
            answer = await self._proved("POST", "/oauth/token", data=form)
            assert answer.status_code == 200, answer.text
            self._tokens[key] = answer.json()["access_token"]
        return await self._proved(method, path, token=self._tokens[key], json=body)

    async def _proved(
        self, method: str, path: str, *, token: str = "", **content: Any
    ) -> httpx2.Response:
        url = f"{self.config.broker.issuer}{path}"
        answer, nonce = await self.http.get("/healthz"), None
        for _ in range(2):
            claims: dict[str, Any] = {"nonce": nonce}
            if token:
                claims["access_token"] = token
            headers = {"DPoP": self.sender.proof(method, url, time.time(), **claims)}
            if token:
                headers["Authorization"] = f"DPoP {token}"
            answer = await self.http.request(method, path, headers=headers, **content)
            nonce = answer.headers.get("dpop-nonce", nonce)
            if answer.status_code not in (400, 401):
                break
        return answer

    async def break_glass(self, task: Mapping[str, Any], **fields: Any) -> httpx2.Response:
        """Break the glass as the task's agent, with a bound token."""
        body = {"capability": "orders-admin", "intent": "the site is down", **fields}
        return await self.bound(task, "POST", f"/v1/tasks/{task['task_id']}/break-glass", body)

    async def settled(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The task's newest elevation, once nothing is left to do after its end.

        OpenBao may be busy with what is to be rotated, and refuse it for a moment: it is due again.
        """
        path = f"/v1/tasks/{task['task_id']}/elevations"
        shard = shard_of(str(task["task_id"]), "tsk")
        assert shard is not None

        async def over() -> dict[str, Any] | None:
            await self.sweep()
            found = (await self.api("alice", "GET", path)).json()["items"][0]
            if found["settled_at"]:
                return found
            place = f"e|{task['task_id']}|{found['elevation_id']}"
            due = keys.table(shard, "due")
            await self.app.connection.command("ZADD", due, "XX", 0, place)
            return None

        found = await wait_until(over, "nothing is left to do")
        assert found is not None
        return found

    async def kinds(self, task: Mapping[str, Any]) -> list[str]:
        """The types of a task's events, in order."""
        return [event["type"] for event in await self.events(task["task_id"])]


async def give_rights(stack: DevStack, config: Config) -> None:
    """Let the broker give out the privileged capability as well."""
    assert stack.openbao is not None
    assert config.vault is not None
    api = admin(stack.openbao, SystemClock())
    bootstrap = Bootstrap(
        api,
        token_role=config.vault.token_role,
        policy_prefix=config.vault.policy_prefix,
        max_ttl_ms=config.tasks.max_ttl,
    )
    await bootstrap.policies(config.catalog().capabilities.values(), on_progress=lambda _: None)
    api.close()


def operator(name: str) -> dict[str, Any]:
    """An operator of the configuration."""
    return {
        "name": name,
        "role": "operator",
        "owner": f"{name}@example.com",
        "identity": {"issuer": "dev", "subject": f"operator/{name}"},
    }


def consent_config(stack: DevStack, policies: Path, **sections: Any) -> Config:
    """The dev configuration with people, groups, privileged capabilities and policies for them.

    ``sections`` change settings.
    """
    document = consent_document(stack, policies, **sections)
    return parse_config(tomli_w.dumps(document), stack.data / FILE)


def consent_document(stack: DevStack, policies: Path, **sections: Any) -> dict[str, Any]:
    """The same, to be written to a file."""
    document: dict[str, Any] = tomllib.loads((stack.data / FILE).read_text("utf-8"))
    policies.mkdir(exist_ok=True)
    (policies / "consent.cedar").write_text(GLASS)
    document["principals"] += [operator(name) for name in PEOPLE]
    capabilities = [DEPLOY, {**DEPLOY, "name": "deploy-twice", "scope": "orders.deploy-twice"}]
    capabilities += [{**DEPLOY, "name": "release", "power": "operate", "scope": "orders.release"}]
    capabilities += [{**ADMIN, "dsn": document["capabilities"][0]["dsn"]}, DEPLOY_TOOL]
    document["capabilities"] += capabilities
    names = [row["name"] for row in capabilities]
    for principal in document["principals"]:
        if principal["name"] in {"report-writer", "order-clerk"}:
            principal["capabilities"] = [*principal["capabilities"], *names]
    document["policy"] = {**document.get("policy", {}), "dir": str(policies)}
    groups = [
        {"name": "security", "members": ["alice", "bob"]},
        {"name": "leads", "members": ["carol"]},
    ]
    groups[0] |= {"escalate_to": "leads", "escalate_after": "10m"}
    document["approvals"] = {"groups": groups}
    for name, changes in sections.items():
        document[name] = {**document.get(name, {}), **changes}
    return document
