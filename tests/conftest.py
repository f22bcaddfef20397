"""Fixtures: engines once a session, a clean ledger each test."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from broker.clock import SystemClock
from broker.dev.stack import DevStack
from broker.dev.vault import admin
from broker.errors import BackendRefused
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from broker.config import Config

settings.register_profile("default", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("default")


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    """Valkey, OpenBao and PostgreSQL, real, with the dev configuration."""
    stack = DevStack(tmp_path_factory.mktemp("dev"), SystemClock(), durable=False)
    config = stack.start("127.0.0.1:8700", "http://127.0.0.1:8700")
    yield stack, config
    stack.stop()


@pytest.fixture
async def pristine(engines: tuple[DevStack, Config]) -> None:
    """Engines without credentials of earlier tests, for tests that look at all there are."""
    openbao = engines[0].openbao
    assert openbao is not None
    api = admin(openbao, SystemClock())
    try:
        await api.as_broker("put", "sys/leases/revoke-prefix/database/creds", {"sync": True})
        listed = await api.as_broker("list", "auth/token/accessors")
        for accessor in listed["data"]["keys"]:
            with contextlib.suppress(BackendRefused):  # it is going already
                body = {"accessor": accessor}
                row = await api.as_broker("post", "auth/token/lookup-accessor", body)
                meta: dict[str, str] = row["data"].get("meta") or {}
                if "task" in meta:
                    await api.as_broker("post", "auth/token/revoke-accessor", body)
    finally:
        api.close()


@pytest.fixture
async def world(engines: tuple[DevStack, Config]) -> AsyncGenerator[World]:
    """A broker with an empty ledger."""
    stack, config = engines
    made = World(stack.issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()
