"""A second orchestrator, a second service and a privileged capability, for those who ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.parties import PartyWorld, party_world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
async def parties(engines: tuple[DevStack, Config]) -> AsyncGenerator[PartyWorld]:
    """A broker of that configuration with an empty ledger."""
    made = party_world(engines[0])
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def wide(engines: tuple[DevStack, Config]) -> AsyncGenerator[PartyWorld]:
    """As ``parties``, and both agents may have ``orders-api``."""
    made = party_world(engines[0], shared=("orders-api",))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()
