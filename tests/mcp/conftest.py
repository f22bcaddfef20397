"""A broker behind a real socket, `broker mcp` beside it, and the official client."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.dev.broker_process import Server
from tests.gateway_world import GATEWAY, GatewayWorld, gateway_config
from tests.http.served import Served

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack


@dataclass(frozen=True, slots=True)
class Site:
    """A broker that serves, where its MCP server will be, and who is who."""

    served: Served
    resource: str
    folder: Path

    @property
    def world(self) -> GatewayWorld:
        assert isinstance(self.served.world, GatewayWorld)
        return self.served.world

    def identity(self, name: str) -> Path:
        """A file with a principal's workload JWT."""
        file = self.folder / f"{name}.jwt"
        file.write_text(self.world.identity(name))
        return file

    def environment(self, name: str, **more: str) -> dict[str, str]:
        return {
            "BROKER_URL": self.served.url,
            "BROKER_IDENTITY_TOKEN_FILE": str(self.identity(name)),
            **more,
        }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def site(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Generator[Site]:
    stack = engines[0]
    resource = f"http://127.0.0.1:{free_port()}/mcp"
    served = Served(lambda: GatewayWorld(stack.issuer, gateway_config(stack, resource)))
    served.clean()
    yield Site(served, resource, tmp_path_factory.mktemp("mcp"))
    served.close()


@pytest.fixture(scope="module")
def gateway(site: Site) -> Generator[Server]:
    """`broker mcp --http`, as a process of its own."""
    listen = site.resource.removeprefix("http://").removesuffix("/mcp")
    log = site.folder / "gateway.log"
    with Server(log, "mcp", "--http", "--listen", listen, **site.environment(GATEWAY)) as server:
        yield server.wait_ready()
