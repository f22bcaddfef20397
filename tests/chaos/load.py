"""The client: opens tasks, takes credentials, uses them, and ends them in every way there is.

``python -m tests.chaos.load`` is a process of its own. For each round it reads one JSON object,
``{"urls", "issuer", "data", "seed", "seconds", "workers"}``, and writes what it learns
(``model.py``):

1. It works for so long, until ``{"is": "pause"}``. An empty line tells it to go on.
2. It ends what it has left, and everything by an operator's word: ``{"is": "ended"}``. And again.
3. It tries every credential once more: ``{"is": "over"}``.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx2
import psycopg

from broker.clock import SystemClock
from broker.dev.issuer import DevIssuer
from tests.world import EXCHANGE, JWT, SUBJECTS

AGENTS: Final = {
    "report-writer": ("orders-read",),
    "order-clerk": ("orders-read", "orders-write"),
}
CALL_S: Final = 6.0
TASK_TTLS: Final = ("5s", "12s", "40s")
GRANT_TTLS: Final = ("2s", "5s", "30s")
SILENCE_S: Final = 2
ENDINGS: Final = ("complete", "complete", "delete", "revoke", "expire", "silent", "parent")
Answer = tuple[int, dict[str, Any]]
NOTHING: Final[Answer] = (0, {})
"""No answer: whether the call was heard isn't known."""


class Caller:
    """Calls brokers, each time another, as anyone. Says what came of it, never raises for it."""

    def __init__(self, urls: list[str], issuer_url: str, data: Path, draw: random.Random) -> None:
        self._urls = urls
        self._resource = issuer_url
        self._issuer = DevIssuer(data, SystemClock())
        self._draw = draw
        self._tokens: dict[tuple[str, str, str], str] = {}
        self._http = httpx2.AsyncClient(timeout=CALL_S, trust_env=False)
        self.counts = {"answered": 0, "refused": 0, "lost": 0}

    async def call(
        self, name: str, method: str, path: str, body: Any = None, task_id: str = ""
    ) -> Answer:
        url = self._draw.choice(self._urls)
        try:
            answer = await self._call(url, name, method, path, body, task_id)
        except httpx2.HTTPError:
            answer = NOTHING
        status = answer[0]
        kind = "lost" if status == 0 else "answered" if status < 300 else "refused"
        self.counts[kind] += 1
        return answer

    async def _call(
        self, url: str, name: str, method: str, path: str, body: Any, task_id: str
    ) -> Answer:
        key = (url, name, task_id)
        got = None
        for _ in range(2):
            token = self._tokens.get(key) or await self._token(url, name, task_id)
            if not token:
                return 503, {}
            headers = {"Authorization": f"Bearer {token}"}
            got = await self._http.request(method, url + path, json=body, headers=headers)
            if got.status_code != 401:
                self._tokens[key] = token
                break
            self._tokens.pop(key, None)
        assert got is not None
        try:
            return got.status_code, got.json() if got.content else {}
        except ValueError:
            return got.status_code, {}

    async def _token(self, url: str, name: str, task_id: str) -> str:
        form = {
            "grant_type": EXCHANGE,
            "subject_token": self._issuer.token(SUBJECTS[name]).reveal(),
            "subject_token_type": JWT,
            "resource": self._resource,
        }
        if task_id:
            detail = [{"type": "broker_task", "task_id": task_id}]
            form["authorization_details"] = json.dumps(detail)
        got = await self._http.post(f"{url}/oauth/token", data=form)
        return got.json()["access_token"] if got.status_code == 200 else ""

    async def close(self) -> None:
        await self._http.aclose()


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Client:
    def __init__(self, caller: Caller, draw: random.Random) -> None:
        self._caller = caller
        self._draw = draw
        self._left: set[str] = set()
        self._held: dict[str, tuple[str, psycopg.AsyncConnection[Any] | None]] = {}

    async def work(self, until: float) -> None:
        while time.time() < until:
            with suppress(_Lost):
                await self._one_task()
            await asyncio.sleep(self._draw.uniform(0, 0.1))

    async def _one_task(self) -> None:
        ending = self._draw.choice(ENDINGS)
        agent = self._draw.choice(list(AGENTS))
        task = await self._open("orchestrator", agent, silent=ending == "silent")
        holder, holding = task, agent
        if ending == "parent":
            holding = next(name for name in AGENTS if name != agent)
            holder = await self._open(agent, holding, parent=task)
        grants = [await self._take(holder, holding) for _ in range(self._draw.randint(1, 3))]
        await asyncio.sleep(self._draw.uniform(0, 0.8))
        grant = next((g for g in grants if g), "")
        match ending:
            case "complete" | "parent":
                await self._complete(task)
            case "delete" if grant:
                await self._end("grant", grant, "operator", "DELETE", f"/v1/grants/{grant}")
            case "revoke":
                body = {"selector": {"task_id": task}, "reason": "chaos"}
                await self._end("task", task, "operator", "POST", "/v1/revocations", body)
            case _:
                pass

    async def _open(self, by: str, agent: str, *, parent: str = "", silent: bool = False) -> str:
        ask: dict[str, Any] = {
            "agent": agent,
            "purpose": "chaos",
            "capabilities": list(AGENTS[agent]) if by == "orchestrator" else ["orders-read"],
            "ttl": self._draw.choice(TASK_TTLS),
        }
        ask |= {"heartbeat": f"{SILENCE_S}s"} if silent else {}
        ask |= {"parent_task_id": parent} if parent else {}
        asked = time.time()
        status, made = await self._caller.call(by, "POST", "/v1/tasks", ask, parent)
        if status != 201:
            raise _Lost
        task_id = made["task_id"]
        self._left.add(task_id)
        say(
            **{"is": "task", "id": task_id, "parent": parent or None, "asked": asked},
            answered=time.time(),
            expires=seconds(made["expires_at"]),
            heartbeat=SILENCE_S if silent else 0,
        )
        return task_id

    async def _take(self, task: str, agent: str) -> str:
        capability = self._draw.choice(AGENTS[agent])
        ask = {"capability": capability, "ttl": self._draw.choice(GRANT_TTLS)}
        asked = time.time()
        path = f"/v1/tasks/{task}/grants"
        status, made = await self._caller.call(agent, "POST", path, ask, task)
        if status:
            say(**{"is": "contact", "task": task, "asked": asked, "answered": time.time()})
        if status != 201:
            return ""
        credential = made["credential"]
        session = None
        if self._draw.random() < 0.5:
            with suppress(psycopg.Error):
                session = await _connected(credential["dsn"])
        self._held[credential["username"]] = (credential["dsn"], session)
        say(
            **{"is": "grant", "id": made["grant_id"], "task": task, "session": session is not None},
            user=credential["username"],
            expires=seconds(made["expires_at"]),
        )
        return made["grant_id"]

    async def _complete(self, task: str) -> int:
        path = f"/v1/tasks/{task}/complete"
        return await self._end("task", task, "orchestrator", "POST", path, {})

    async def _end(self, of: str, which: str, by: str, *call: Any) -> int:
        asked = time.time()
        status, said = await self._caller.call(by, *call)
        done = 200 <= status < 300
        counts = said.get("grants", said)
        dead = done and (
            said.get("state") == "revoked" if of == "grant" else counts.get("revoking") == 0
        )
        say(
            **{"is": "end", "of": of, "id": which, "asked": asked},
            answered=time.time() if done else None,
            dead=dead,
        )
        if of == "task" and (done or status in {404, 409}):
            self._left.discard(which)
        return status

    async def finish(self) -> None:
        """End what is left, then everything: also what came of calls whose answers were lost."""
        for task in list(self._left)[::2]:
            await self._complete(task)
        everything = {"selector": {"all": True}, "reason": "the round is over"}
        status = 0
        while status != 200:
            status = await self._end("all", "", "operator", "POST", "/v1/revocations", everything)
            await asyncio.sleep(0.1)

    async def try_all(self) -> None:
        """Log in with everything again, and ask on what is still connected."""
        for user, (dsn, session) in self._held.items():
            works = False
            if session is not None:
                with suppress(psycopg.Error):
                    await asyncio.wait_for(session.execute("SELECT 1"), CALL_S)
                    works = True
            login = False
            with suppress(psycopg.OperationalError):
                await (await _connected(dsn)).close()
                login = True
            if session is not None:
                await session.close()
            say(**{"is": "tried", "user": user, "login": login, "session": works})


async def _connected(dsn: str) -> psycopg.AsyncConnection[Any]:
    connection = await psycopg.AsyncConnection.connect(dsn, connect_timeout=3, autocommit=True)
    await connection.execute("SELECT 1")
    return connection


class _Lost(Exception):
    """There is no answer, or a no: on to the next task."""


async def main() -> None:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        job = json.loads(line)
        draw = random.Random(job["seed"])  # noqa: S311  the same load each time
        caller = Caller(job["urls"], job["issuer"], Path(job["data"]), draw)
        client = Client(caller, draw)
        until = time.time() + job["seconds"]
        await asyncio.gather(*(client.work(until) for _ in range(job["workers"])))
        say(**{"is": "pause"})
        await lines.readline()
        await client.finish()
        say(**{"is": "count", **caller.counts})
        say(**{"is": "ended"})
        await lines.readline()
        await client.try_all()
        say(**{"is": "over"})
        await caller.close()


if __name__ == "__main__":
    asyncio.run(main())
