"""Fixtures of the CLI's tests: a fake broker to ask, and a way to run commands against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.cli_runner import prepare, runner
from tests.unit.fake_broker import FakeBroker, running

if TYPE_CHECKING:
    from collections.abc import Iterator
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
