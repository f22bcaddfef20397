"""`broker mcp --http`: who is let in, what it is told, and what never is."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from mcp_types import ElicitResult

from broker.client import Client as Broker
from broker.client import token_file
from tests.dev.broker_process import Server, eventually
from tests.gateway_world import GATEWAY
from tests.mcp.conftest import free_port
from tests.mcp.talking import MODES, error, over_http, read, result
from tests.world import logs_in

if TYPE_CHECKING:
    from pathlib import Path

    from mcp import Client

    from tests.mcp.conftest import Site
    from tests.mcp.talking import Mode

pytestmark = pytest.mark.usefixtures("gateway")
CAPABILITIES = ["orders-read", "broker-mcp", "mcp-unscoped", "orders-api", "deploy", "fetch-page"]
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "operator", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def open_task(site: Site, agent: str = "report-writer") -> dict[str, Any]:
    names = [n for n in CAPABILITIES if agent == "report-writer" or n != "orders-api"]
    return site.served.run(site.world.open(agent=agent, capabilities=names))


def presented(site: Site, task: dict[str, Any], **more: Any) -> str:
    return site.served.run(site.world.present(task, **more))["access_token"]


def knock(site: Site, token: str | None = None, **headers: str) -> httpx2.Response:
    """An initialize, with whatever headers."""
    given = {**ACCEPT, **({"Authorization": f"Bearer {token}"} if token else {}), **headers}
    return httpx2.post(site.resource, json=HELLO, headers=given, timeout=30)


def challenge(answer: httpx2.Response) -> dict[str, str]:
    scheme, _, rest = answer.headers["www-authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', rest))


async def call(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    return result(await client.call_tool(name, arguments))


# Who is let in.


def test_whoever_comes_without_a_token_is_told_where_to_get_one(site: Site) -> None:
    answer = knock(site)

    assert answer.status_code == 401
    said = challenge(answer)
    assert "error" not in said  # RFC 6750 section 3: nothing was wrong with what isn't there
    assert said["scope"] == "mcp"
    metadata = httpx2.get(said["resource_metadata"], timeout=30).json()
    assert metadata["resource"] == site.resource
    issuer = site.world.config.broker.issuer
    assert metadata["authorization_servers"] == [issuer]
    assert metadata["scopes_supported"] == ["mcp"]
    assert metadata["bearer_methods_supported"] == ["header"]
    # The well-known path stands before the path of what it is about (RFC 9728 section 3.1).
    origin = site.resource.removesuffix("/mcp")
    assert said["resource_metadata"] == f"{origin}/.well-known/oauth-protected-resource/mcp"
    assert httpx2.get(f"{origin}/other", timeout=30).status_code == 404


def test_tokens_of_others_and_for_others_are_refused(site: Site) -> None:
    task = open_task(site)
    good = presented(site, task)
    head, body, signature = good.split(".")
    forged = f"{head}.{body}.{signature[:-4]}{'AAAA' if signature[-4:] != 'AAAA' else 'BBBB'}"
    world, run = site.world, site.served.run
    wrong = {
        "forged": forged,
        "nonsense": "nonsense",
        "the broker's": run(world.token("report-writer", task["task_id"])),
        "an operator's": run(world.token("operator")),
        "a workload's own": world.identity("report-writer"),
        "another service's": run(world.present(task, None, resource="https://orders.example.com"))[
            "access_token"
        ],
    }

    for what, token in wrong.items():
        answer = knock(site, token)
        assert answer.status_code == 401, what
        assert challenge(answer)["error"] == "invalid_token"
        assert token not in answer.text
    assert knock(site, good).status_code == 200
    # Only in the header, and once.
    assert (
        httpx2.post(f"{site.resource}?access_token={good}", json=HELLO, timeout=30).status_code
        == 401
    )
    twice = [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")]
    assert httpx2.post(site.resource, json=HELLO, headers=twice, timeout=30).status_code == 401


def test_a_token_that_has_ended_is_refused_at_once(site: Site) -> None:
    task = open_task(site)
    given = site.served.run(site.world.present(task))
    assert knock(site, given["access_token"]).status_code == 200

    site.served.run(site.world.call("operator", "DELETE", f"/v1/grants/{given['grant_id']}"))

    assert knock(site, given["access_token"]).status_code == 401
    ended = presented(site, task)
    site.served.run(site.world.complete(task))
    assert knock(site, ended).status_code == 401


def test_one_whose_time_is_up_is_refused(site: Site) -> None:
    task = open_task(site)
    path = f"/v1/tasks/{task['task_id']}/grants"
    ask = {"capability": "broker-mcp", "ttl": "1s"}
    answer = site.served.run(
        site.world.call("report-writer", "POST", path, ask, task_id=task["task_id"])
    )
    token = answer.json()["credential"]["access_token"]

    eventually(lambda: knock(site, token).status_code == 401, "its second is over")


def test_a_scope_too_little_is_said(site: Site) -> None:
    token = presented(site, open_task(site), scope="other")

    answer = knock(site, token)

    assert answer.status_code == 403
    assert challenge(answer)["error"] == "insufficient_scope"
    assert challenge(answer)["scope"] == "mcp"


def test_pages_of_other_sites_and_other_names_are_refused(site: Site) -> None:
    token = presented(site, open_task(site))
    origin = site.resource.removesuffix("/mcp")

    assert knock(site, token, Origin=origin).status_code == 200
    assert knock(site, token, Origin="https://evil.example").status_code == 403
    assert knock(site, token, Host="evil.example").status_code == 421
    assert knock(site, token, Host="localhost.evil.example:80").status_code == 421
    modern = {"MCP-Protocol-Version": "2026-07-28"}
    assert knock(site, token, Host="evil.example", **modern).status_code == 421


def test_without_the_broker_nobody_is_let_in_and_it_is_said(site: Site) -> None:
    token = presented(site, open_task(site))
    port = free_port()
    down = {**site.environment(GATEWAY), "BROKER_URL": "http://127.0.0.1:1"}
    listen = ("--http", "--listen", f"127.0.0.1:{port}")
    with Server(site.folder / "down.log", "mcp", *listen, **down) as server:
        url = server.wait_ready().url
        given = {**ACCEPT, "Authorization": f"Bearer {token}"}
        answer = httpx2.post(url, json=HELLO, headers=given, timeout=30)
        nobody = httpx2.post(url, json=HELLO, headers=ACCEPT, timeout=30)

    assert answer.status_code == 503
    assert answer.json()["error"] == "temporarily_unavailable"
    assert answer.headers["retry-after"]
    assert nobody.status_code == 401


# What it does.


@pytest.mark.parametrize("mode", MODES)
async def test_a_whole_task_without_a_secret_on_the_wire(site: Site, mode: Mode) -> None:
    task = open_task(site)
    token = presented(site, task)
    async with over_http(site.resource, token, mode=mode) as (client, wire):
        me = await call(client, "whoami")
        assert me["principal"] == "report-writer"
        assert me["presented_to"] == GATEWAY
        assert me["tasks"] == [task["task_id"]]
        issued = await call(client, "request_credential", capability="orders-read")
        identity = token_file(site.identity("report-writer"))
        with Broker(site.served.url, identity, task_id=task["task_id"]) as tool:
            credential = tool.redeem(issued["voucher"]).credential.reveal()
        assert site.served.run(logs_in(credential))
        refused = error(
            await client.call_tool(
                "request_credential", {"capability": "orders-read", "form": "plaintext"}
            )
        )
        assert refused["code"] == "access_denied"
        page = {"tool": "fetch-page", "arguments": {"url": "https://example.com/"}}
        assert (await call(client, "check_tool_call", **page))["allowed"]
        uri = f"task://{task['task_id']}"
        shown = await read(client, uri)
        assert issued["grant_id"] in [g["grant_id"] for g in shown["grants"]]
        assert (await call(client, "complete_task"))["state"] == "completed"
        eventually(lambda: not site.served.run(logs_in(credential)), "it is dead")

    told = wire.came.decode() + (site.folder / "gateway.log").read_text()
    assert issued["voucher"] in told  # we look at the right thing
    for secret in (credential["password"], credential["dsn"], token):
        assert secret not in told
    assert "eyJ" not in told  # no token of any kind


async def test_nothing_that_a_caller_says_of_itself_counts(site: Site) -> None:
    mine, theirs = open_task(site), open_task(site, "order-clerk")
    token = presented(site, mine)
    claims = {
        "X-Principal": "operator",
        "X-Forwarded-User": "operator",
        "X-Task-Id": theirs["task_id"],
        "Mcp-Param-Principal": "operator",
    }
    async with over_http(site.resource, token, headers=claims) as (client, _):
        me = await call(client, "whoami")
        assert (me["principal"], me["tasks"]) == ("report-writer", [mine["task_id"]])
        for name in ("principal", "agent", "task", "token"):
            found = error(await client.call_tool("whoami", {name: "operator"}))
            assert found["code"] == "invalid_arguments"


async def test_no_agent_reaches_anothers_task(site: Site) -> None:
    mine, theirs = open_task(site), open_task(site, "order-clerk")
    other = {"task_id": theirs["task_id"]}
    async with over_http(site.resource, presented(site, mine)) as (client, _):
        for name, arguments in (
            ("list_capabilities", other),
            ("request_credential", {"capability": "orders-read", **other}),
            ("request_approval", {"capability": "deploy", "intent": "now", **other}),
            ("report_execution", {"decision_id": "dec_1", "outcome": "failed", **other}),
            ("complete_task", other),
            ("open_task", {"purpose": "p", "capabilities": ["orders-read"], "agent": "order-clerk",
                           "parent_task_id": theirs["task_id"]}),
        ):  # fmt: skip
            found = error(await client.call_tool(name, arguments))
            assert found["code"] in ("not_found", "task_not_found"), name
        decision = await call(client, "check_tool_call", tool="fetch-page", **other)
        assert not decision["allowed"]
        for uri in (f"task://{theirs['task_id']}", "task://tsk_1", "file:///etc/passwd"):
            with pytest.raises(Exception, match="no such resource"):
                await client.read_resource(uri)
        with pytest.raises(Exception, match="no such resource"):
            async with client.listen(resource_subscriptions=[f"task://{theirs['task_id']}"]):
                pass
    shown = site.served.run(site.world.show_task(theirs["task_id"]))
    assert shown["state"] == "active"


def test_a_session_is_its_tasks_alone(site: Site) -> None:
    first, again, theirs = open_task(site), open_task(site), open_task(site, "order-clerk")
    token = presented(site, first)
    session = knock(site, token).headers["mcp-session-id"]
    listing: dict[str, Any] = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}

    def come(by: str) -> int:
        given = {**ACCEPT, "Authorization": f"Bearer {by}", "Mcp-Session-Id": session}
        return httpx2.post(site.resource, json=listing, headers=given, timeout=30).status_code

    assert come(token) == 200
    assert come(presented(site, theirs)) == 404
    assert come(presented(site, again)) == 404  # the same agent, for another task
    assert come(presented(site, first)) == 200  # a newer token for the same


async def test_who_watches_a_task_hears_of_it(site: Site) -> None:
    task = open_task(site)
    uri = f"task://{task['task_id']}"
    async with (
        over_http(site.resource, presented(site, task)) as (client, _),
        client.listen(resource_subscriptions=[uri]) as heard,
    ):
        await call(client, "request_credential", capability="orders-read")
        event: Any = await anext(aiter(heard))
        assert str(event.uri) == uri


# Where people are asked.


class Person:
    """Somebody at the client, who opens the link, and says yes at the broker, or doesn't."""

    def __init__(self, site: Site, action: Any, verdict: str | None = None) -> None:
        self.site, self.action, self.verdict = site, action, verdict
        self.seen: list[str] = []

    async def __call__(self, _: Any, asked: Any) -> Any:
        self.seen.append(asked.url)
        if self.verdict:
            approval_id = asked.url.rsplit("/", 1)[1]
            path = f"/v1/approvals/{approval_id}/{self.verdict}"
            self.site.served.call("approver", "POST", path, {"reason": "seen"})
        return ElicitResult(action=self.action)


@pytest.mark.parametrize("mode", MODES)
async def test_the_one_at_the_client_is_shown_the_link(site: Site, mode: Mode) -> None:
    person = Person(site, "accept", "approve")
    token = presented(site, open_task(site))
    async with over_http(site.resource, token, mode=mode, elicitation_callback=person) as (
        client,
        _,
    ):
        issued = await call(client, "request_credential", capability="deploy")

    assert issued["state"] == "issued"
    assert issued["voucher"]
    issuer = site.world.config.broker.issuer
    assert len(person.seen) == 1
    assert person.seen[0].startswith(f"{issuer}/console/approvals/apr_")


@pytest.mark.parametrize("mode", MODES)
async def test_what_the_client_answers_approves_nothing(site: Site, mode: Mode) -> None:
    token = presented(site, open_task(site))
    for action in ("decline", "cancel"):
        person = Person(site, action)
        async with over_http(site.resource, token, mode=mode, elicitation_callback=person) as (
            client,
            _,
        ):
            waits = await call(client, "request_credential", capability="deploy")
        assert waits["state"] == "needs_approval"
        assert "voucher" not in waits
        assert waits["approval"]["link"] == person.seen[0]
    denying = Person(site, "accept", "deny")
    async with over_http(site.resource, token, mode=mode, elicitation_callback=denying) as (
        client,
        _,
    ):
        refused = error(await client.call_tool("request_credential", {"capability": "deploy"}))
    assert refused["code"] == "approval_denied"


async def test_without_a_way_to_ask_the_link_is_in_the_answer(site: Site) -> None:
    token = presented(site, open_task(site))
    async with over_http(site.resource, token) as (client, _):
        waits = await call(client, "request_credential", capability="deploy")
        assert waits["state"] == "needs_approval"
        approval_id = waits["approval"]["approval_id"]
        assert waits["approval"]["link"].endswith(f"/console/approvals/{approval_id}")
        began = time.monotonic()
        looked = await call(client, "request_approval", approval_id=approval_id)
        assert looked["state"] == "pending"
        assert time.monotonic() - began < 20
        path = f"/v1/approvals/{approval_id}/approve"
        site.served.call("approver", "POST", path, {"reason": "seen"})
        looked = await call(client, "request_approval", approval_id=approval_id, wait_seconds=30)
        assert looked["state"] == "approved"
        issued = await call(client, "request_credential", capability="deploy")
        assert issued["state"] == "issued"


async def test_a_capability_for_a_while(site: Site) -> None:
    names = ["orders-read", "broker-mcp"]
    task = site.served.run(site.world.open(capabilities=names))
    person = Person(site, "accept", "approve")
    async with over_http(site.resource, presented(site, task), elicitation_callback=person) as (
        client,
        _,
    ):
        refused = error(await client.call_tool("request_credential", {"capability": "deploy"}))
        assert refused["code"] == "access_denied"
        ask = {"capability": "deploy", "intent": "ticket 7", "ttl": "5m"}
        given = await call(client, "request_approval", **ask)
        assert (given["state"], given["elevation_id"][:4]) == ("active", "elv_")
        issued = await call(client, "request_credential", capability="deploy")
        assert issued["state"] == "issued"


def test_the_process_ends_when_told(site: Site, tmp_path: Path) -> None:
    listen = ("--http", "--listen", f"127.0.0.1:{free_port()}")
    with Server(tmp_path / "log", "mcp", *listen, **site.environment(GATEWAY)) as server:
        server.wait_ready()
        assert server.end(signal.SIGTERM) == 0
