"""One broker for all examples of a file."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.dev.broker_process import Server
from tests.e2e.test_cli_live import address, config_of
from tests.examples.running import Place
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture(scope="module")
def place(
    engines: tuple[DevStack, Config],
    empty_ledger: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("examples")
    config = config_of(engines[0], folder)
    for name, subject in SUBJECTS.items():
        (folder / name).write_text(engines[0].issuer.token(subject).reveal())
    with Server(folder / "log", "serve", "--config", config) as server:
        server.wait_ready()
        yield Place(address(config), folder)
        assert server.end(signal.SIGTERM) == 0
