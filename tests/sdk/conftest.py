"""A live broker, and both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sdk.colours import Colour
from tests.sdk.world import Sdk

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
def sdk(engines: tuple[DevStack, Config], tmp_path: Path) -> Generator[Sdk]:
    """A broker with an empty ledger, on a loopback port."""
    made = Sdk(engines[0], tmp_path / "policies")
    yield made
    made.close()


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> Generator[Colour]:
    """Clients of one kind, then of the other."""
    made = Colour(request.param)
    yield made
    made.close()


@pytest.fixture
def client(sdk: Sdk, colour: Colour) -> Any:
    """The orchestrator's client."""
    return colour.client(sdk.url, sdk.identity("orchestrator"))
