"""`broker mcp` over stdio, driven by the official client against a live broker."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from broker.client import Client as Broker
from broker.client import Conflict, Denied, token_file
from tests.dev.broker_process import PROGRAM, broker, environment, eventually
from tests.mcp.talking import MODES, error, over_stdio, read, result
from tests.world import logs_in

if TYPE_CHECKING:
    from pathlib import Path

    from mcp import Client

    from tests.mcp.conftest import Site
    from tests.mcp.talking import Mode

OPEN = {"purpose": "the weekly report", "capabilities": ["orders-read"]}
AGENT = ("--agent", "report-writer")


def redeemed(site: Site, task_id: str, voucher: str) -> dict[str, Any]:
    """What the agent's tool gets for a voucher, with the agent's own identity."""
    identity = token_file(site.identity("report-writer"))
    with Broker(site.served.url, identity, task_id=task_id) as client:
        return client.redeem(voucher).credential.reveal()


def works(site: Site, credential: dict[str, Any]) -> bool:
    return site.served.run(logs_in(credential))


def task_of(site: Site, task_id: str) -> dict[str, Any]:
    return site.served.run(site.world.show_task(task_id))


async def call(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    return result(await client.call_tool(name, arguments))


@pytest.mark.parametrize("mode", MODES)
async def test_a_whole_task_without_a_secret_on_the_wire(
    site: Site, tmp_path: Path, mode: Mode
) -> None:
    environment = site.environment("orchestrator")
    async with over_stdio(tmp_path, environment, *AGENT, mode=mode) as (client, _):
        me = await call(client, "whoami")
        assert (me["principal"], me["acts_for"]) == ("orchestrator", "report-writer")
        task = await call(
            client, "open_task", purpose="a report", capabilities=["orders-read", "fetch-page"]
        )
        offers = await call(client, "list_capabilities")
        assert [o["name"] for o in offers["capabilities"]] == ["fetch-page", "orders-read"]
        issued = await call(client, "request_credential", capability="orders-read", intent="sums")
        credential = redeemed(site, task["task_id"], issued["voucher"])
        assert works(site, credential)
        page = {"tool": "fetch-page", "arguments": {"url": "https://example.com/"}}
        decision = await call(client, "check_tool_call", **page)
        assert decision["allowed"]
        report = {"decision_id": decision["decision_id"], "outcome": "succeeded"}
        assert (await call(client, "report_execution", **report))["outcome"] == "succeeded"
        twice = error(await client.call_tool("report_execution", report))
        assert twice["code"] == "conflict"
        denied = await call(client, "check_tool_call", tool="send-email", arguments={})
        assert not denied["allowed"]
        uri = f"task://{task['task_id']}"
        assert [str(r.uri) for r in (await client.list_resources()).resources] == [uri]
        shown = await read(client, uri)
        assert shown["task"]["state"] == "active"
        assert [g["grant_id"] for g in shown["grants"]] == [issued["grant_id"]]
        ended = await call(client, "complete_task", summary="done")
        assert ended["state"] == "completed"
        eventually(lambda: not works(site, credential), "it is dead")

    told = (tmp_path / "stdout").read_text() + (tmp_path / "stderr").read_text()
    assert issued["voucher"] in told  # we look at the right thing
    for secret in (credential["password"], credential["dsn"], site.world.identity("orchestrator")):
        assert secret not in told
    assert "eyJ" not in told  # no token of any kind
    lines = (tmp_path / "stdout").read_text().splitlines()
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in lines)


async def test_what_clients_are_told_of_the_tools(site: Site, tmp_path: Path) -> None:
    async with over_stdio(tmp_path, site.environment("orchestrator"), *AGENT) as (client, _):
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert list(tools) == [
        *("whoami", "list_capabilities", "open_task", "request_credential"),
        *("check_tool_call", "report_execution", "request_approval", "complete_task"),
    ]
    for tool in tools.values():
        assert tool.description
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema
        assert tool.annotations is not None
        assert tool.annotations.open_world_hint is False
    reads = {
        name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint
    }
    assert reads == {"whoami", "list_capabilities"}
    destroys = {n for n, t in tools.items() if t.annotations and t.annotations.destructive_hint}
    assert destroys == {"complete_task"}


async def test_arguments_are_taken_literally_and_not_repeated(site: Site, tmp_path: Path) -> None:
    async with over_stdio(tmp_path, site.environment("orchestrator"), *AGENT) as (client, _):
        for name, arguments, field in (
            ("open_task", {**OPEN, "on_behalf_of": "canary-value"}, "on_behalf_of"),
            ("open_task", {**OPEN, "capabilities": "canary-value"}, "capabilities"),
            ("request_credential", {"capability": 7}, "capability"),
            ("request_credential", {"capability": "x", "form": "canary-value"}, "form"),
            (
                "request_approval",
                {"approval_id": "a", "wait_seconds": "canary-value"},
                "wait_seconds",
            ),
            ("whoami", {"principal": "canary-value"}, "principal"),
        ):
            found = error(await client.call_tool(name, arguments))
            assert found["code"] == "invalid_arguments"
            assert [fault["field"] for fault in found["errors"]] == [field]
        neither = error(await client.call_tool("request_approval", {}))
        assert neither["code"] == "invalid_arguments"
    assert "canary-value" not in (tmp_path / "stdout").read_text()


async def test_plaintext_is_the_operators_to_allow(site: Site, tmp_path: Path) -> None:
    async with over_stdio(tmp_path, site.environment("orchestrator"), *AGENT) as (client, _):
        await call(client, "open_task", **{**OPEN, "capabilities": ["orders-read", "orders-shown"]})
        ask = {"capability": "orders-read", "form": "plaintext"}
        refused = error(await client.call_tool("request_credential", ask))
        assert (refused["code"], refused["status"]) == ("access_denied", 403)
        shown = await call(client, "request_credential", **{**ask, "capability": "orders-shown"})
        assert works(site, shown["plaintext"])
        assert "voucher" not in shown


async def test_it_is_for_one_agent_and_the_tasks_opened_here(site: Site, tmp_path: Path) -> None:
    other = site.served.run(site.world.open())  # of the same orchestrator
    theirs = {"task_id": other["task_id"]}
    async with over_stdio(tmp_path, site.environment("orchestrator"), *AGENT) as (client, _):
        early = error(await client.call_tool("request_credential", {"capability": "orders-read"}))
        assert early["code"] == "task_needed"
        clerk = error(await client.call_tool("open_task", {**OPEN, "agent": "order-clerk"}))
        assert clerk["code"] == "agent_not_served"
        await call(client, "open_task", **OPEN)
        for name, arguments in (
            ("list_capabilities", theirs),
            ("request_credential", {"capability": "orders-read", **theirs}),
            ("check_tool_call", {"tool": "fetch-page", **theirs}),
            ("report_execution", {"decision_id": "dec_1", "outcome": "failed", **theirs}),
            ("request_approval", {"capability": "deploy", "intent": "now", **theirs}),
            ("complete_task", theirs),
            ("open_task", {**OPEN, "parent_task_id": other["task_id"]}),
        ):
            assert error(await client.call_tool(name, arguments))["code"] == "not_found"
        with pytest.raises(Exception, match="no such resource"):
            await client.read_resource(f"task://{other['task_id']}")
    assert task_of(site, other["task_id"])["state"] == "active"


async def test_an_agent_brings_its_task_and_keeps_it(site: Site, tmp_path: Path) -> None:
    task = site.served.run(site.world.open(capabilities=["orders-read", "broker-mcp"]))
    environment = site.environment("report-writer", BROKER_TASK_ID=task["task_id"])
    async with over_stdio(tmp_path, environment) as (client, _):
        me = await call(client, "whoami")
        assert (me["principal"], me["tasks"]) == ("report-writer", [task["task_id"]])
        issued = await call(client, "request_credential", capability="orders-read")
        assert works(site, redeemed(site, task["task_id"], issued["voucher"]))
        part = await call(client, "open_task", agent="order-clerk", **OPEN)
        assert part["parent_task_id"] == task["task_id"]

    # What was opened here has ended with the client; what wasn't goes on.
    eventually(lambda: task_of(site, part["task_id"])["state"] == "cancelled", "its part ended")
    assert task_of(site, task["task_id"])["state"] == "active"


async def test_tasks_end_when_the_client_goes_away(site: Site, tmp_path: Path) -> None:
    async with over_stdio(tmp_path, site.environment("orchestrator"), *AGENT) as (client, _):
        task = await call(client, "open_task", **OPEN)
        issued = await call(client, "request_credential", capability="orders-read")
        credential = redeemed(site, task["task_id"], issued["voucher"])
        assert works(site, credential)

    eventually(lambda: task_of(site, task["task_id"])["state"] == "cancelled", "it has ended")
    eventually(lambda: not works(site, credential), "it is dead")


async def test_or_stay_if_that_is_wanted(site: Site, tmp_path: Path) -> None:
    more = ("--on-exit", "leave", "--heartbeat", "10m")
    async with over_stdio(tmp_path, site.environment("orchestrator"), *AGENT, *more) as (client, _):
        task = await call(client, "open_task", **OPEN)

    shown = task_of(site, task["task_id"])
    assert (shown["state"], shown["heartbeat"]) == ("active", "10m")


async def test_it_says_that_its_tasks_are_alive(site: Site, tmp_path: Path) -> None:
    more = ("--heartbeat", "3s")
    async with over_stdio(tmp_path, site.environment("orchestrator"), *AGENT, *more) as (client, _):
        task = await call(client, "open_task", **OPEN)
        due = task_of(site, task["task_id"])["heartbeat_due_at"]

        def later() -> bool:
            return task_of(site, task["task_id"])["heartbeat_due_at"] > due

        eventually(later, "a heartbeat came")


def speak(site: Site, *arguments: str) -> subprocess.Popen[str]:
    """`broker mcp`, spoken to by hand."""
    more = site.environment("orchestrator")
    return subprocess.Popen(
        [PROGRAM, "mcp", *AGENT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(**more),
    )


def opened(process: subprocess.Popen[str]) -> str:
    """Open a task in a session of before 2026."""
    assert process.stdin is not None
    assert process.stdout is not None
    about = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "operator", "version": "1"},
    }
    for message in (
        {"id": 1, "method": "initialize", "params": about},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "open_task", "arguments": OPEN}},
    ):
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    process.stdin.flush()
    process.stdout.readline()
    return json.loads(process.stdout.readline())["result"]["structuredContent"]["task_id"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_signal_ends_them_as_well(site: Site, number: signal.Signals) -> None:
    with speak(site) as process:
        task_id = opened(process)
        process.send_signal(number)  # its input is still open
        assert process.wait(20) == 128 + number

    assert task_of(site, task_id)["state"] == "cancelled"


def test_killed_its_silence_ends_them(site: Site) -> None:
    with speak(site, "--heartbeat", "30s") as process:
        task_id = opened(process)
        process.kill()

    assert task_of(site, task_id)["state"] == "active"
    site.served.run(site.world.sweep(ahead_ms=31_000))
    shown = task_of(site, task_id)
    assert (shown["state"], shown["reason"]) == ("expired", "heartbeat_lost")


async def test_without_a_broker_every_call_says_so(site: Site, tmp_path: Path) -> None:
    nowhere = {**site.environment("orchestrator"), "BROKER_URL": "http://127.0.0.1:1"}
    async with over_stdio(tmp_path, nowhere, *AGENT) as (client, _):
        assert (await client.list_tools()).tools
        for name, arguments in (("whoami", {}), ("open_task", OPEN)):
            found = error(await client.call_tool(name, arguments))
            assert found["code"] == "connection_failed"
            assert "can't be reached" in found["hint"]


async def test_without_an_identity_too(site: Site, tmp_path: Path) -> None:
    blank = {**site.environment("orchestrator"), "BROKER_IDENTITY_TOKEN_FILE": "/nonexistent"}
    async with over_stdio(tmp_path, blank, *AGENT) as (client, _):
        found = error(await client.call_tool("whoami", {}))
        assert found["code"] == "identity_missing"
    forged = tmp_path / "forged.jwt"
    token = site.world.identity("orchestrator")
    forged.write_text(token[:-6] + "AAAAAA")
    bad = {**blank, "BROKER_IDENTITY_TOKEN_FILE": str(forged)}
    async with over_stdio(tmp_path, bad, *AGENT) as (client, _):
        found = error(await client.call_tool("whoami", {}))
        assert found["code"] == "invalid_request"
        assert token not in (tmp_path / "stdout").read_text()


async def test_an_agent_without_a_task_is_told_what_is_missing(site: Site, tmp_path: Path) -> None:
    async with over_stdio(tmp_path, site.environment("report-writer")) as (client, _):
        found = error(await client.call_tool("whoami", {}))
        assert found["code"] == "invalid_authorization_details"
        assert "BROKER_TASK_ID" in found["hint"]


def test_what_doesnt_go_together(site: Site) -> None:
    for arguments in (("--http", "--agent", "a"), ("--agent", "a", "--as-task", "tsk_1")):
        ran = broker("mcp", *arguments, **site.environment("orchestrator"))
        assert (ran.code, ran.out) == (2, "")
    for arguments, said in (
        (("--listen", "0.0.0.0:1"), "--resource"),
        (("--resource", "http://mcp.example.com/mcp"), "https"),
        (("--listen", "somewhere"), "HOST:PORT"),
    ):
        ran = broker("mcp", "--http", *arguments, **site.environment("orchestrator"))
        assert ran.code != 0
        assert said in ran.err


def test_a_voucher_goes_by_the_client_as_it_is(site: Site) -> None:
    task = site.served.run(site.world.open())
    identity = token_file(site.identity("report-writer"))
    with Broker(site.served.url, identity, task_id=task["task_id"]) as client:
        issued = client.request_grant(task["task_id"], "orders-read", delivery="voucher")
        voucher = issued.credential.get("voucher")
        assert voucher is not None
        assert voucher.reveal() not in repr(issued)
        assert works(site, client.redeem(voucher).credential.reveal())
        with pytest.raises(Conflict):
            client.redeem(voucher)
    with (
        Broker(site.served.url, identity, task_id=task["task_id"], sealed=True) as client,
        pytest.raises(Denied, match="sealed"),
    ):
        client.request_grant(task["task_id"], "orders-read")
