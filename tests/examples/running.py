"""A broker with the dev catalogue, and programs run against it as one of its principals."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.dev.broker_process import PROGRAM, WAIT_S, broker, environment

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Place:
    """Where the broker is, and where the principals' tokens are."""

    url: str
    tokens: Path

    def environment(self, name: str) -> dict[str, str]:
        return {"BROKER_URL": self.url, "BROKER_IDENTITY_TOKEN_FILE": str(self.tokens / name)}

    def run(
        self, *command: str, name: str = "orchestrator", env: Mapping[str, str] | None = None
    ) -> str:
        """Run a program from the repository's root; return what it prints."""
        path = f"{Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=EXAMPLES.parent,
            env=environment(PATH=path, **(env or {}), **self.environment(name)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def example(self, name: str) -> str:
        return self.run(sys.executable, str(EXAMPLES / name))

    def ask(self, *arguments: str) -> list[dict[str, Any]]:
        """Return a list that an operator sees."""
        ran = broker(*arguments, "--json", **self.environment("operator"))
        assert ran.code == 0, ran.err
        return ran.json["items"]
