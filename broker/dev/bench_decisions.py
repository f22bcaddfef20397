"""Decisions for tool calls a second, against a bare FastAPI application that echoes them.

Ours verifies a task token, decides on what the chain has done, writes the decision with its effects
to disk and logs it; the echo parses the same JSON and writes it back. Both are served by uvicorn in
the same way, and take turns. Then what a decision costs by itself with more and more policies.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from broker.catalog import Capability, Power, Principal
from broker.clock import SystemClock
from broker.dev import load
from broker.identity.models import Role
from broker.policy.cedar import Source
from broker.policy.decision import Decision, Effect
from broker.policy.folder import default_sources
from broker.policy.policies import Policies, Sources
from broker.policy.question import Moment, Use, using
from broker.power import PRIVATE
from broker.tasks import Task, TaskState
from broker.trail import Step, Survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.policy.question import Question

CONNECTIONS: Final = 32
BATCH: Final = 2000
TURNS: Final = 5
TASKS: Final = 8
TOOL: Final = "fetch-page"
COUNTS: Final = (10, 100, 1000)
_ROUNDS: Final = 300
_URL: Final = "https://www.example.com/a/page"
_ECHO: Final = """\
import socket, uvicorn
from typing import Any
from fastapi import FastAPI
app = FastAPI()
@app.post("/echo")
async def echo(body: dict[str, Any]) -> dict[str, Any]:
    return body
taken = socket.create_server(("127.0.0.1", 0))
print(taken.getsockname()[1], flush=True)
settings = uvicorn.Config(app, loop="uvloop", http="httptools", log_config=None, access_log=False)
uvicorn.Server(settings).run(sockets=[taken])
"""
_clock = SystemClock()


def question(task_id: str) -> str:
    """Return the body of one question."""
    about = {"arguments": {"url": _URL}, "destination": _URL, "intent": "read the page"}
    return json.dumps(
        {
            "subject": {"type": "task", "id": task_id},
            "action": {"name": "call_tool"},
            "resource": {"type": "tool", "id": TOOL},
            "context": about,
        }
    )


def measure(url: str, tokens: Sequence[tuple[str, str]]) -> tuple[list[load.Load], list[load.Load]]:
    """Return the turns of ours and of the echo; ``tokens`` are tasks, each with its agent's."""
    ours: list[load.Load] = []
    echoes: list[load.Load] = []
    place = urlsplit(url)
    echo = subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE, text=True)
    try:
        assert echo.stdout is not None  # noqa: S101  it was asked for as a pipe
        port = int(echo.stdout.readline())
        asks = [_ask(place.netloc, task, token) for task, token in tokens]
        plain = [_post("/echo", f"127.0.0.1:{port}", question(task)) for task, _ in tokens]
        for _ in range(TURNS):
            echoes.append(_turn("127.0.0.1", port, plain))
            ours.append(_turn(place.hostname or "", place.port or 80, asks))
    finally:
        echo.terminate()
        echo.wait(10)
    return ours, echoes


def _turn(host: str, port: int, requests: Sequence[str]) -> load.Load:
    many = [requests[i % len(requests)] for i in range(BATCH)]
    done = load.run(host, port, many, connections=CONNECTIONS)
    if set(done.statuses) != {"200"}:
        raise SystemExit(f"{host}:{port} refused some of it: {done.statuses}")
    return done


def _ask(host: str, task_id: str, token: str) -> str:
    return _post("/access/v1/evaluation", host, question(task_id), f"Bearer {token}")


def _post(path: str, host: str, body: str, authorization: str = "") -> str:
    written = load.post(path, body, host=host, content_type="application/json")
    proof = f"Authorization: {authorization}\r\n" if authorization else ""
    return written.replace("Content-Type:", f"{proof}Content-Type:", 1)


def alone(policies: int) -> tuple[float, float]:
    """Return the p50 and p99, in ms, of one decision by the default policies and so many more."""
    more = "".join(
        f'@id("p{i}") forbid (principal, action in Action::"call_tool", resource) when '
        f'{{ context.chain.effects.contains("x:y{i}") && context.risk > 5 }};\n'
        for i in range(policies)
    )
    tool = Capability(TOOL, Power.READ, "tool", 1, 1, arguments={"url": ("string", False)})
    sources = Sources((*default_sources(), Source("more.cedar", more)))
    engine = Policies(lambda: sources, [tool])
    asked = _question(tool)
    took: list[float] = []
    for _ in range(_ROUNDS):
        begun = _clock.monotonic()
        decision = asyncio.run(engine.decide(asked, Decision(Effect.ALLOW, ("catalogue",))))
        took.append((_clock.monotonic() - begun) * 1000)
        if not decision.allowed:
            raise SystemExit(f"it was refused: {decision.reasons}")
    cuts = statistics.quantiles(took, n=100)
    return cuts[49], cuts[98]


def _question(tool: Capability) -> Question:
    agent = Principal(
        name="agent", role=Role.AGENT, owner="o", capabilities=frozenset((tool.name,))
    )
    now = int(_clock.now() * 1000)
    task: dict[str, Any] = dict.fromkeys(
        ("owner", "created_by", "orchestrator", "subject", "purpose"), "o"
    )
    held = Task(
        id="tsk_1",
        state=TaskState.ACTIVE,
        agent=agent.name,
        capabilities=(tool.name,),
        parent_id="",
        root_id="tsk_1",
        actors=(agent.name,),
        depth=0,
        created_at=now,
        expires_at=now + 600_000,
        **task,
    )
    moment = Moment(
        now_ms=now, environment="production", method="jwt", bound=False, private=PRIVATE
    )
    use = Use(caller=str(Role.AGENT), arguments={"url": _URL})
    step = Step(frozenset(("ingests:untrusted",)), "public")
    return using(agent, tool, held, Survey("0.0", tasks=1), step, use, moment)
