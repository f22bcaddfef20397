"""A second orchestrator, a second service and a privileged capability, for those who ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.consenting import ConsentWorld, consent_config, give_rights
from tests.http.deciding import DecisionWorld, decision_config
from tests.http.front_door import FrontDoor, front_door
from tests.http.parties import PartyWorld, party_world
from tests.register_world import RegisterWorld, replica
from tests.risk_world import DETECTS, RiskWorld, risk_config

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

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


@pytest.fixture
async def door(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[FrontDoor]:
    """A broker with people, clients that hold keys, and capabilities for several services."""
    made = front_door(engines[0], tmp_path)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def here(engines: tuple[DevStack, Config]) -> AsyncGenerator[RegisterWorld]:
    """A replica with an empty ledger, for tests of principals."""
    async with replica(engines, empty=True) as made:
        yield made


@pytest.fixture
async def there(
    engines: tuple[DevStack, Config], here: RegisterWorld
) -> AsyncGenerator[RegisterWorld]:
    """Another replica on the same ledger."""
    async with replica(engines) as made:
        yield made


@pytest.fixture
async def deciding(engines: tuple[DevStack, Config]) -> AsyncGenerator[DecisionWorld]:
    """A broker with tools, and an empty ledger."""
    made = DecisionWorld(engines[0].issuer, decision_config(engines[0]))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def beside(
    engines: tuple[DevStack, Config], deciding: DecisionWorld
) -> AsyncGenerator[DecisionWorld]:
    """Another replica on the ledger of ``deciding``."""
    made = DecisionWorld(engines[0].issuer, deciding.config)
    yield made
    await made.close()


@pytest.fixture
async def risky(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[RiskWorld]:
    """A broker whose policies let a detector report, and an empty ledger."""
    (tmp_path / "detectors.cedar").write_text(DETECTS)
    made = RiskWorld(engines[0].issuer, risk_config(engines[0], tmp_path))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def twin(engines: tuple[DevStack, Config], risky: RiskWorld) -> AsyncGenerator[RiskWorld]:
    """Another replica on the ledger of ``risky``."""
    made = RiskWorld(engines[0].issuer, risky.config)
    yield made
    await made.close()


@pytest.fixture
async def consent(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[ConsentWorld]:
    """A replica where humans have to say yes, and an empty ledger."""
    # Limits that nobody reaches, so that whatever happens here happens to places as well.
    quotas = {"max_live_per_agent": 1000, "issue_rate_per_agent": "1000/24h"}
    config = consent_config(engines[0], tmp_path / "policies", quotas=quotas)
    await give_rights(engines[0], config)
    made = ConsentWorld(engines[0].issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def consent_twin(
    engines: tuple[DevStack, Config], consent: ConsentWorld
) -> AsyncGenerator[ConsentWorld]:
    """Another replica of ``consent``, at the same ledger."""
    made = ConsentWorld(engines[0].issuer, consent.config)
    yield made
    await made.close()
