"""How the console fares with 10,000 live grants and 50 people who follow *Now*.

``python -m tests.console.load`` starts a ``broker dev``, writes the grants as the ledger writes
them, opens the event streams, and prints what pages take at the server and in headless Chromium,
how long a grant takes to every stream, and what the streams cost while nothing happens. It is a
measurement, not a test: nothing fails by its figures, which are of the machine and what else it
does.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
from playwright.async_api import async_playwright, expect

from broker.clock import SystemClock
from broker.console.sessions import COOKIE
from broker.dev.link import console_link
from broker.grants import Grant, GrantState
from broker.ids import new_id, shard_of
from broker.ledger.connection import Connection
from broker.ledger.models import LedgerTimes
from broker.ledger.redis import RedisLedger
from broker.tasks import Task, TaskState
from tests.console.chromium import OPTIONS, dev_call, program
from tests.dev.broker_process import Server, engine_pids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.async_api import Page

GRANTS: Final = 10_000
A_TASK: Final = 10
"""Grants of each task."""
STREAMS: Final = 50
TIMES: Final = 100
MOST_S: Final = 8
"""How often each page is asked for, and for how long at most."""
ROUNDS: Final = 15
"""Grants that are waited for in the streams."""
IDLE_S: Final = 20
_HOUR_MS: Final = 3_600_000
_AT_ONCE: Final = 50
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_AGENTS: Final = (
    ("report-writer", "orders-read", "read"),
    ("order-clerk", "orders-write", "operate"),
)


class Seeding:
    """Writes tasks and live grants by the scripts that the broker writes them by."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)
        self._ledger = RedisLedger(self._connection, LedgerTimes())
        self.task_id = self.grant_id = ""

    async def fill(self, grants: int) -> None:
        """Have so many live, each for an hour."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                await self._task(number, min(A_TASK, grants - number * A_TASK))

        await asyncio.gather(*(one(n) for n in range(-(-grants // A_TASK))))
        await self._connection.close()

    async def _task(self, number: int, grants: int) -> None:
        agent, capability, power = _AGENTS[number % len(_AGENTS)]
        shard = number % self._connection.shards
        self.task_id = new_id("tsk", shard)
        task = Task(
            id=self.task_id,
            state=TaskState.ACTIVE,
            agent=agent,
            owner="you@example.com",
            created_by="orchestrator",
            orchestrator="orchestrator",
            subject="orchestrator",
            purpose=f"the report of customer {number}",
            capabilities=(capability,),
            parent_id="",
            root_id=self.task_id,
            actors=(agent,),
            depth=0,
            created_at=0,
            expires_at=0,
        )
        decision = {"id": new_id("dec", shard), "effect": "allow", "reasons": "measured"}
        task, _ = await self._ledger.open_task(
            task, ttl_ms=_HOUR_MS, max_children=10, decision=decision, actor="orchestrator"
        )
        for op, accessor in (("expect", ""), ("record", f"measured-{task.id}")):
            await self._ledger.handle(
                task.id, op, "h", backend="vault", actor="broker", value=accessor
            )
        for _ in range(grants):
            await self._grant(task, capability, power, decision)

    async def _grant(self, task: Task, capability: str, power: str, decision: Any) -> None:
        shard = shard_of(task.id, "tsk")
        assert shard is not None
        grant = Grant(
            id=new_id("grt", shard),
            state=GrantState.PENDING,
            task_id=task.id,
            agent=task.agent,
            orchestrator=task.orchestrator,
            capability=capability,
            backend="vault",
            power=power,
            path=f"database/creds/{capability}",
            handle="h",
            created_at=0,
            expires_at=0,
        )
        grant = await self._ledger.reserve(
            grant, ttl_ms=_HOUR_MS, max_live=A_TASK, decision=decision, actor=task.agent
        )
        live = await self._ledger.activate(
            grant, lease=f"measured/{grant.id}", lifetime_ms=_HOUR_MS, actor="broker"
        )
        assert live.state is GrantState.ACTIVE
        self.grant_id = live.id


class Person:
    """Somebody who is signed in: over plain http, where clients but browsers keep no cookie."""

    def __init__(self, url: str, cookie: str) -> None:
        self.cookie = cookie
        limits = httpx2.Limits(max_connections=None)
        headers = {"cookie": f"{COOKIE}={cookie}"}
        self.http = httpx2.AsyncClient(
            base_url=f"{url}/console", headers=headers, limits=limits, timeout=60
        )

    @classmethod
    async def sign_in(cls, dev: Server) -> Person:
        link = console_link("operator", Path(dev.place["data"]), SystemClock())
        token = parse_qs(urlsplit(link).query)["token"][0]
        headers = {"origin": dev.url, "sec-fetch-site": "same-origin"}
        async with httpx2.AsyncClient(base_url=dev.url, headers=headers) as http:
            answer = await http.post("/console/sign-in/link", data={"token": token})
        assert answer.status_code == 303, answer.text
        cookie = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
        return cls(dev.url, cookie)


class Streams:
    """Event streams of *Now*; each notes when it first read something of interest."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self._wanted = ""
        self._seen: list[float] = []
        self._all = asyncio.Event()
        self._open = 0
        self._following: list[asyncio.Task[None]] = []
        self.events = self.bytes = 0

    async def start(self, count: int) -> None:
        """Have so many, each with its first event."""
        self._following = [asyncio.create_task(self._follow()) for _ in range(count)]
        while self._open < count:
            await asyncio.sleep(0.05)
            for ended in (t for t in self._following if t.done()):
                await ended

    async def seen(self, word: str) -> list[float]:
        """Wait until every stream has had an event with it; returns when, of each."""
        self._wanted, self._seen = word, []
        self._all.clear()
        async with asyncio.timeout(60):
            await self._all.wait()
        return self._seen

    def stop(self) -> None:
        for following in self._following:
            following.cancel()

    async def _follow(self) -> None:
        done = ""
        async with self._person.http.stream("GET", "/now/events") as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    continue
                if not done:
                    self._open, done = self._open + 1, "open"
                self.events, self.bytes = self.events + 1, self.bytes + len(line)
                wanted = self._wanted
                if wanted and done != wanted and wanted in line:
                    done = wanted
                    self._seen.append(time.monotonic())
                    if len(self._seen) == len(self._following):
                        self._all.set()


async def time_page(person: Person, path: str) -> None:
    """Ask for a page again and again, and print what it takes."""
    first, whole, size = list[float](), list[float](), 0
    until = time.perf_counter() + MOST_S
    while len(whole) < TIMES and (begun := time.perf_counter()) < until:
        async with person.http.stream("GET", path) as answer:
            first.append((time.perf_counter() - begun) * 1000)
            size = len(await answer.aread())
            assert answer.status_code == 200, f"{path}: {answer.text}"
        whole.append((time.perf_counter() - begun) * 1000)
    say(
        f"GET {path:47} first byte {spread(first)}   whole {spread(whole)} "
        f"{size / 1024:6.1f} KiB   n {len(whole)}"
    )


async def time_grants(dev: Server, streams: Streams) -> None:
    """Grant what dies before all else, and wait for it in every stream."""
    ask = {"agent": "report-writer", "purpose": "measured", "capabilities": ["orders-read"]}
    call = asyncio.to_thread
    task = await call(dev_call, dev, "orchestrator", "POST", "/v1/tasks", ask)
    path, took = f"/v1/tasks/{task['task_id']}/grants", list[float]()
    for _ in range(ROUNDS):
        made = await call(
            dev_call, dev, "orchestrator", "POST", path, {"capability": "orders-read", "ttl": "2m"}
        )
        issued = time.monotonic()
        at = await streams.seen(made["grant_id"])
        took += [max(0.0, one - issued) * 1000 for one in at]
        revoke = f"/v1/grants/{made['grant_id']}"
        await call(dev_call, dev, "orchestrator", "DELETE", revoke)
    say(f"a grant, from its answer to a stream's event: {spread(took)}   max {max(took):.0f} ms")


async def time_browser(dev: Server, times: int = 10) -> None:
    """Open pages in Chromium, by somebody who has been there, and print what they wait for."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program(), args=OPTIONS)
        page = await chromium.new_page()
        page.set_default_timeout(60_000)
        await page.goto(console_link("operator", Path(dev.place["data"]), SystemClock()))
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/console/")
        for path in ("/", "/tasks", "/agents"):
            found = [await _opened(page, dev, path) for _ in range(times)]
            byte, usable, live = (list(column) for column in zip(*found, strict=True))
            after = f"   live {spread(live)}" if path == "/" else ""
            say(f"Chromium {path:42} first byte {spread(byte)}   usable {spread(usable)}{after}")
        await chromium.close()


async def _opened(page: Page, dev: Server, path: str) -> list[float]:
    """First byte, interactive with its script run, and live: milliseconds since going there."""
    begun = time.perf_counter()
    await page.goto(f"{dev.url}/console{path}", wait_until="domcontentloaded")
    if path == "/":
        await expect(page.locator("#live-state")).to_have_text("Live", timeout=60_000)
    live = (time.perf_counter() - begun) * 1000
    timing = await page.evaluate(
        "(({responseStart, domContentLoadedEventEnd}) => [responseStart, domContentLoadedEventEnd])"
        "(performance.getEntriesByType('navigation')[0])"
    )
    return [*timing, live]


async def time_idle(dev: Server, streams: Streams | None, what: str) -> None:
    """Let nothing happen, and print what of a processor that took."""
    pids = {"broker": dev.pid, "valkey": engine_pids(Path(dev.place["data"]))["valkey"]}
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    events, size = (streams.events, streams.bytes) if streams else (0, 0)
    await asyncio.sleep(IDLE_S)
    used = ", ".join(
        f"{name} {(cpu_s(pid) - before[name]) / IDLE_S * 100:.1f} %" for name, pid in pids.items()
    )
    more = ""
    if streams:
        sent, read = streams.events - events, (streams.bytes - size) / 1024
        more = f"; {sent} events, {read / IDLE_S:.1f} KiB/s"
    say(f"{what}: {used} of one processor{more}")


def cpu_s(pid: int) -> float:
    """What a process has used of processors, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def spread(found: Sequence[float]) -> str:
    """Median and 99th percentile."""
    ordered = sorted(found)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered):6.1f} p99 {last:6.1f} ms"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def measure(dev: Server, grants: int) -> None:
    """Everything, in order."""
    person = await Person.sign_in(dev)
    seeding, begun = Seeding(dev.place["redis"]), time.perf_counter()
    await seeding.fill(grants)
    say(f"{grants} live grants, written in {time.perf_counter() - begun:.0f} s")
    overview = await asyncio.to_thread(dev_call, dev, "operator", "GET", "/v1/overview")
    say(f"the overview says: {json.dumps(overview['live']['by_power'])}")
    pages = (
        "/",
        "/tasks",
        "/tasks?state=active&text=customer",
        f"/tasks/{seeding.task_id}",
        f"/grants/{seeding.grant_id}",
        "/agents",
        "/agents/report-writer",
        "/owners",
        "/approvals",
        "/revoke/preview?kind=agent&value=report-writer",
        "/revoke/preview?kind=backend&value=vault",
        "/audit",
    )
    await time_idle(dev, None, f"{grants} live, nobody looks")
    say("pages, nobody follows:")
    for path in pages:
        await time_page(person, path)
    async with AsyncExitStack() as stack:
        streams = Streams(person)
        stack.callback(streams.stop)
        await streams.start(STREAMS)
        say(f"pages, {STREAMS} follow:")
        for path in pages:
            await time_page(person, path)
        await time_browser(dev)
        await time_grants(dev, streams)
        await time_idle(dev, streams, f"{grants} live, {STREAMS} follow")
    await person.http.aclose()


def main() -> None:
    """Measure with 10,000 grants, or as many as the argument says."""
    grants = int(sys.argv[1]) if len(sys.argv) > 1 else GRANTS
    with tempfile.TemporaryDirectory() as home:
        data = Path(home)
        with Server(data / "log", "dev", "--port", 0, "--data", data / "data") as dev:
            asyncio.run(measure(dev.wait_ready(), grants))


if __name__ == "__main__":
    main()
