"""docs/mcp.md: its configurations start what they say, and its tool gets what the model doesn't."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.dev.broker_process import PROGRAM
from tests.docs.blocks import DOCS, configuration
from tests.gateway_world import GatewayWorld, gateway_config
from tests.http.served import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

TEXT: Final = (DOCS / "mcp.md").read_text("utf-8")
HOSTS: Final = [
    document["mcpServers"]["broker"]
    for document in map(json.loads, re.findall(r"(?ms)^```json\n(.*?)^```", TEXT))
    if "mcpServers" in document
]


@pytest.fixture(scope="module")
def served(engines: tuple[DevStack, Config]) -> Generator[Served]:
    stack = engines[0]
    made = Served(lambda: GatewayWorld(stack.issuer, gateway_config(stack)))
    made.clean()
    yield made
    made.close()


async def started(host: dict[str, Any], **env: str) -> dict[str, Any]:
    """What whoami says where a host has started the server as the page has it."""
    assert host["command"] == "broker"
    assert set(env) <= set(host["env"])
    server = StdioServerParameters(command=PROGRAM, args=host["args"], env={**host["env"], **env})
    async with Client(stdio_client(server)) as client:
        answer = await client.call_tool("whoami", {})
    assert not answer.is_error, answer
    return answer.structured_content


async def test_hosts_start_it_as_it_is_written(served: Served, tmp_path: Path) -> None:
    agent, editor, web = HOSTS
    world = served.world
    task = served.run(world.open())
    files = {name: tmp_path / name for name in ("report-writer", "orchestrator")}
    for name, file in files.items():
        file.write_text(world.identity(name))

    me = await started(
        agent,
        BROKER_URL=served.url,
        BROKER_IDENTITY_TOKEN_FILE=str(files["report-writer"]),
        BROKER_TASK_ID=task["task_id"],
    )
    assert (me["principal"], me["tasks"]) == ("report-writer", [task["task_id"]])
    me = await started(
        editor,
        BROKER_URL=served.url,
        BROKER_IDENTITY_TOKEN_FILE=str(files["orchestrator"]),
    )
    assert (me["principal"], me["acts_for"]) == ("orchestrator", "report-writer")
    assert (web["type"], web["url"]) == ("http", "https://mcp.example.com/mcp")


async def test_its_tool_redeems_a_voucher(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", TEXT)
    exec(code, names)  # noqa: S102  our own page
    tool: Callable[[str, str], list[tuple[object, ...]]] = names["orders_today"]
    file = tmp_path / "agent.jwt"
    file.write_text(served.world.identity("report-writer"))
    monkeypatch.setenv("BROKER_URL", served.url)
    monkeypatch.setenv("BROKER_IDENTITY_TOKEN_FILE", str(file))
    task = served.run(served.world.open())
    issued = served.run(served.world.grant(task, delivery="voucher"))

    rows = await asyncio.to_thread(tool, issued["credential"]["voucher"], task["task_id"])

    assert rows


def test_its_configurations_can_be_used(engines: tuple[DevStack, Config]) -> None:
    for text in re.findall(r"(?ms)^```toml\n(.*?)^```", TEXT):
        config = configuration(engines[0], tomllib.loads(text), as_written=False)
        assert config.capabilities
