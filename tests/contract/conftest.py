"""Fixtures of the ledger's tests: two replicas' tables over one server, empty at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.ledger_bench import Bench

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
async def bench(engines: tuple[DevStack, Config]) -> AsyncGenerator[Bench]:
    """One replica's ledger, with nothing in it."""
    made = Bench(engines[1].redis.url)
    await made.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def other(engines: tuple[DevStack, Config]) -> AsyncGenerator[Bench]:
    """Another replica's, over the same server."""
    made = Bench(engines[1].redis.url)
    yield made
    await made.close()
