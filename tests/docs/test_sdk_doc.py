"""docs/sdk.md: its Python runs, in its order, against a live broker."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from broker.client import Client
from tests.docs.blocks import DOCS
from tests.sdk.world import Sdk

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

TEXT = (DOCS / "sdk.md").read_text("utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"(?ms)^```python(| agent)\n(.*?)^```", TEXT)


@pytest.fixture
def sdk(engines: tuple[DevStack, Config], tmp_path: Path) -> Generator[Sdk]:
    made = Sdk(engines[0], tmp_path / "policies")
    yield made
    made.close()


@contextlib.contextmanager
def somebody_says_yes(sdk: Sdk) -> Generator[None]:
    """Approves whatever waits for it."""
    over = threading.Event()

    def approve() -> None:
        with Client(sdk.url, sdk.identity("alice")) as alice:
            while not over.wait(0.05):
                for waiting in alice.iter_approvals(state="pending"):
                    alice.approve(waiting.approval_id, "seen")

    thread = threading.Thread(target=approve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_its_python_runs(
    sdk: Sdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROKER_URL", sdk.url)
    names: dict[str, Any] = {}
    assert len(BLOCKS) == TEXT.count("```python") == 9
    with somebody_says_yes(sdk):
        for who, code in BLOCKS:
            name = "report-writer" if who else "orchestrator"
            file = tmp_path / name
            file.write_text(sdk.world.identity(name))
            monkeypatch.setenv("BROKER_IDENTITY_TOKEN_FILE", str(file))
            monkeypatch.setenv("BROKER_TASK_ID", sdk.task() if who else "")
            exec(code, names)  # noqa: S102  our own page
    names["client"].close()
    asyncio.set_event_loop(None)
    said = capsys.readouterr().out
    assert "TaskEnd(state='completed', grants=GrantCounts(revoked=1, revoking=0" in said
    assert "sent to ['c-77@example.com']" in said
    assert "fetch-page: " in said
