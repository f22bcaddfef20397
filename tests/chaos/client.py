"""The client's process, seen from here; what it does is in ``load.py``."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.model import Model
from tests.dev.broker_process import environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PATIENCE_S: Final = 120.0


class Client:
    """Plays one round after the other."""

    def __init__(self) -> None:
        self.model = Model()
        self.said: list[dict[str, Any]] = []
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, root: Path) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.load"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
            cwd=root,
            limit=1 << 20,
        )

    async def work(self, job: Mapping[str, Any]) -> None:
        """Begin a round, and return once its load is over."""
        self.model, self.said = Model(), []
        await self._until("pause", json.dumps(job))

    async def finish(self) -> None:
        """Let it end everything."""
        await self._until("ended")

    async def try_all(self) -> None:
        """Let it try what it had."""
        await self._until("over")

    async def end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _until(self, word: str, line: str = "") -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{line}\n".encode())
        async with asyncio.timeout(_PATIENCE_S):
            while line := (await process.stdout.readline()).decode():
                said = json.loads(line)
                if said["is"] == word:
                    return
                self.said.append(said)
                self.model.add(said)
        raise AssertionError(f"the client ended before it said {word!r}")
