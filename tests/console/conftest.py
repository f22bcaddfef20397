"""Fixtures: an identity provider, a broker with a console, and Debian's Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from tests.console.chromium import Looking, launch
from tests.console.people import ConsoleWorld, console_config
from tests.console.provider import Provider
from tests.dev.broker_process import Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
def provider() -> Iterator[Provider]:
    """An identity provider."""
    with Provider() as made:
        yield made


@pytest.fixture
async def console(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path
) -> AsyncGenerator[ConsoleWorld]:
    """A broker with a console, and an empty ledger."""
    made = ConsoleWorld(engines[0], console_config(engines[0], provider, tmp_path), provider)
    await made.empty()
    yield made
    await made.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser without a window.

    Playwright holds the thread's event loop until it stops: not longer than its own module.
    """
    with sync_playwright() as playwright:
        made = launch(playwright)
        if made is None:
            pytest.skip("there is no chromium here: apt-get install chromium")
        yield made
        made.close()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A whole ``broker dev``."""
    home = tmp_path_factory.mktemp("console")
    with Server(home / "log", "dev", "--port", 0, "--data", home / "data") as server:
        yield server.wait_ready()


@pytest.fixture
def look(chromium: Browser, dev: Server) -> Iterator[Looking]:
    """Browsers that look at it; what they complain about fails the test."""
    with Looking(chromium, dev) as made:
        yield made
