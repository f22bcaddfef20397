"""What the tests of targets share: a broker by the page that each module has set up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engines.estate import Mortal, Struck
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture(scope="module")
def server() -> Mortal | None:
    """The module's own server, where it has one."""
    return None


@pytest.fixture
def struck(server: Mortal | None) -> Struck:
    """What kills the server."""
    return Struck(server.kill if server else lambda: None)


@pytest.fixture
async def world(
    engines: tuple[DevStack, Config], config: Config, struck: Struck
) -> AsyncGenerator[World]:
    """A broker with the module's configuration, on an empty ledger."""
    made = World(engines[0].issuer, config, before_step=struck)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()
