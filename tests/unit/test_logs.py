"""A log that can't be written keeps nobody from their work."""

from __future__ import annotations

import sys
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest

from broker.logs import get_logger

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("level", ["info", "warning", "error", "exception", "critical"])
def test_a_line_that_cannot_be_written_is_lost_and_the_next_is_not(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by chaos, seed 12: a full disk under standard error ended the process."""
    log = get_logger("test")
    full = FULL.open("w")
    monkeypatch.setattr(sys, "stderr", full)
    getattr(log, level)("lost")
    with suppress(OSError):
        full.close()

    monkeypatch.setattr(sys, "stderr", written := StringIO())
    getattr(log, level)("kept")
    assert "kept" in written.getvalue()
