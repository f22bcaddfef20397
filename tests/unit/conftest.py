"""Fixtures of several modules: a fake broker with its CLI, and channels with who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.notify_world import Newsroom
from tests.receiver import Receiver
from tests.unit.cli_runner import prepare, runner
from tests.unit.fake_broker import FakeBroker, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from tests.unit.cli_runner import Run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeBroker]:
    """A broker that gives scripted answers, which commands of this process find."""
    with running() as broker:
        prepare(broker.url, monkeypatch, tmp_path)
        yield broker


@pytest.fixture
def run(fake: FakeBroker, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command as the shell would, against ``fake``."""
    assert fake.url
    return runner(capsys)


@pytest.fixture
def room(tmp_path: Path) -> Newsroom:
    """A log in which things happen, and the channels that tell them."""
    return Newsroom(tmp_path)


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    """A real server that takes what is posted."""
    async with Receiver() as made:
        yield made
