"""Decisions for tool calls a second, against a bare FastAPI application that echoes them.

Ours verifies a task token, decides on what the chain has done, writes the decision with its effects
to disk and logs it; the echo parses the same JSON and writes it back. Both are served by uvicorn in
the same way, and take turns.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from broker.dev.bench import load, machine
from broker.dev.bench.figures import Rounds, by_turns
from broker.dev.bench.stand import AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from broker.dev.bench.scale import Scale
    from broker.dev.bench.stand import Stand

CONNECTIONS: Final = 32
TASKS: Final = 8
TOOL: Final = "fetch-page"
URL: Final = "https://www.example.com/a/page"
ROW: Final = "per-tool-call decision over HTTP, throughput"
_ECHO: Final = """\
import socket, sys, uvicorn
from typing import Any
from fastapi import FastAPI
app = FastAPI()
@app.post("/echo")
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    return body
taken = socket.socket(fileno=int(sys.argv[1]))
settings = uvicorn.Config(app, loop="uvloop", http="httptools", log_config=None, access_log=False)
uvicorn.Server(settings).run(sockets=[taken])
"""


def measure(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the row's rounds, decisions and echoes a second."""
    tasks = [
        stand.orchestrator.open_task(AGENT, "bench", [TOOL], ttl="1h").task_id for _ in range(TASKS)
    ]
    asks = [
        load.post(
            "/access/v1/evaluation",
            _question(task),
            url=stand.url,
            headers=[("Authorization", f"Bearer {stand.token(AGENT, task)}")],
        )
        for task in tasks
    ]
    with _echoing() as url:
        plain = [load.post("/echo", _question(task), url=url) for task in tasks]
        rounds = by_turns(
            scale.rounds,
            lambda: _turn(stand.url, asks, scale.requests),
            lambda: _turn(url, plain, scale.requests),
            on_round,
        )
    for task in tasks:
        stand.orchestrator.complete(task)
    return {ROW: rounds}


@contextmanager
def _echoing() -> Generator[str]:
    """Run it, in as many processes as the broker has; its URL."""
    with ExitStack() as open_, socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.fileno()
        command = [sys.executable, "-c", _ECHO, str(number)]
        for _ in range(machine.cores()):
            echo = subprocess.Popen(command, pass_fds=[number])
            open_.callback(echo.wait, 10)
            open_.callback(echo.terminate)
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        # Until then requests wait: one is answered once one of them serves.
        load.run(url, [load.post("/echo", "{}", url=url)] * CONNECTIONS, connections=CONNECTIONS)
        yield url


def _turn(url: str, requests: Sequence[str], count: int) -> float:
    many = [requests[i % len(requests)] for i in range(count)]
    return load.run(url, many, connections=CONNECTIONS).per_second


def _question(task_id: str) -> str:
    """Return the body of one question."""
    about = {"arguments": {"url": URL}, "destination": URL, "intent": "read the page"}
    return json.dumps(
        {
            "subject": {"type": "task", "id": task_id},
            "action": {"name": "call_tool"},
            "resource": {"type": "tool", "id": TOOL},
            "context": about,
        }
    )
