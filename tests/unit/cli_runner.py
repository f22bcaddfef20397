"""Runs the command line in this process, as a user's environment would have it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from broker.cli.main import main
from tests.unit.fake_broker import JWT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    Run = Callable[..., "Ran"]

PROGRAM = "import sys; from broker.cli.main import main; sys.exit(main())"


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def prepare(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set what the client commands read, and nothing else of the kind."""
    for name in list(os.environ):
        if name.startswith("BROKER_") or name in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}:
            monkeypatch.delenv(name)
    token = tmp_path / "token"
    token.write_text(JWT)
    monkeypatch.setenv("BROKER_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("BROKER_URL", url)


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs one command line."""

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        shown = capsys.readouterr()
        return Ran(code, str(shown.out), str(shown.err))

    return run
