"""One round: load and faults, then all is healed, looked at, ended, and looked at again.

1. The client works while the faults of the plan happen.
2. All of them are over, and everything serves. The ledger is reconciled with the rest.
3. What is alive now has to be in the ledger, while tasks still run.
4. The client ends everything. Within the bound nothing may be left, anywhere.
5. The client tries every credential it ever had.
6. The signed log has to verify, without a gap, and to say of each grant what the ledger says.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.audit.reader import Bookmark, read_chunk
from broker.dev.engines.process import write_private
from broker.grants import LIVE
from tests.chaos.check import BOUND_S, Evidence, Verdict, judge, unknown
from tests.chaos.faults import Breaking
from tests.chaos.load import Caller
from tests.chaos.look import Looker
from tests.chaos.model import Model
from tests.chaos.servers import ROOT
from tests.chaos.watch import Watch
from tests.dev.broker_process import environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.chaos.check import Alive
    from tests.chaos.plan import Plan
    from tests.chaos.servers import Arena

WORKERS: Final = 6
_CLIENT_S: Final = 60.0
_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round came to. ``alive`` is what lived when the faults were over."""

    plan: Plan
    verdict: Verdict
    seconds: float
    alive: int
    found: int
    calls: dict[str, int]

    @property
    def passed(self) -> bool:
        return not self.verdict.problems


class Client:
    """The client's process, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.model = Model()
        self.said: list[dict[str, Any]] = []
        self._process = process

    @classmethod
    async def start(cls, arena: Arena, plan: Plan) -> Client:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.load"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
            limit=1 << 20,
        )
        client = cls(process)
        job = {
            "urls": arena.urls,
            "issuer": arena.config.broker.issuer,
            "data": str(arena.data),
            "seed": plan.load_seed,
            "seconds": plan.load_s,
            "workers": WORKERS,
        }
        client._tell(json.dumps(job))
        await client.heard("ready")
        return client

    async def go(self, on: str, until: str) -> None:
        """Tell it to go on, and listen until it says a word."""
        self._tell(on)
        await self.heard(until)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def heard(self, word: str) -> None:
        async with asyncio.timeout(_CLIENT_S):
            assert self._process.stdout is not None
            while line := await self._process.stdout.readline():
                said = json.loads(line)
                if said["is"] == word:
                    return
                self.said.append(said)
                self.model.add(said)
        raise AssertionError(f"the client ended before it said {word!r}")

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def play(arena: Arena, plan: Plan, *, bound_s: float = BOUND_S) -> Outcome:
    """Play a round, and judge it."""
    began = time.time()
    looker, watch = Looker(arena, began), Watch(arena.postgres.admin_dsn.reveal)
    watching = asyncio.create_task(watch.run())
    client = await Client.start(arena, plan)
    try:
        breaking = Breaking(arena)
        bookmark = await _end_of_log(arena)
        await asyncio.gather(client.go("", "pause"), breaking.play(plan.faults))  # 1
        found = await _reconcile(arena, apply=True)  # 2
        healed = await looker.alive()  # 3
        if unknown(healed):  # what was ended between two of its looks is gone by the next
            await asyncio.sleep(_AGAIN_S)
            healed = await looker.alive()
        await client.go("", "ended")  # 4
        ended = await _all_dead(looker, bound_s)
        await client.go("", "over")  # 5
        await watch.look()
        with suppress(AssertionError):
            await wait_until(looker.drained, "every event in the log", within_s=bound_s)
        reconciled = await _reconcile(arena, apply=False)
        evidence = Evidence(  # 6
            model=client.model,
            seen=watch.seen,
            spans=breaking.spans,
            until=time.time(),
            healed=healed,
            ended=ended,
            log=_events(arena, bookmark),
            verified=await _verified(arena),
            reconciled=reconciled,
            early_ends=plan.clocks_step,
            others=[*breaking.problems, *_crashed(arena)],
        )
        verdict = judge(evidence, bound_s=bound_s)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.end()
        _keep(arena, plan, client)
    return Outcome(
        plan,
        verdict,
        time.time() - began,
        len(healed.roles),
        len(found.get("findings", ())),
        dict(client.model.counts),
    )


async def _all_dead(looker: Looker, bound_s: float) -> Alive:
    """Look until nothing is left, or time is up; return the last look."""
    deadline = time.monotonic() + bound_s
    while True:
        alive = await looker.alive()
        left = alive.roles | alive.leases | alive.tokens | alive.unclosed
        live = any(grant.state in LIVE for grant in alive.grants)
        if not (left or live) or time.monotonic() > deadline:
            return alive
        await asyncio.sleep(0.2)


async def _reconcile(arena: Arena, *, apply: bool) -> dict[str, Any]:
    """As ``broker reconcile``, with ``--apply``: show, then end what was shown; return what was."""
    caller = Caller(arena.urls, arena.config.broker.issuer, arena.data, random.Random(0))  # noqa: S311  no secret
    shown: dict[str, Any] = {}

    async def ask(body: dict[str, Any]) -> bool:
        nonlocal shown
        status, answer = await caller.call("operator", "POST", "/v1/reconciliations", body)
        if status == 200:
            shown = answer
        return status == 200 and not answer["problems"]

    async def looked() -> bool:
        return await ask({})

    try:
        await wait_until(looked, "a reconciliation that sees every side", within_s=BOUND_S)
        first = shown
        if apply and first["findings"]:
            await ask({"apply": True, "shown": first["at"]})
        return first
    except AssertionError as error:
        return {"agreement": False, "problems": [str(error), *shown.get("problems", ())]}
    finally:
        await caller.close()


async def _end_of_log(arena: Arena) -> Bookmark:
    """Where the log ends before the round: the rounds before have left nothing that isn't in it."""
    _, place = _read(arena, arena.bookmark)
    return place


def _events(arena: Arena, place: Bookmark) -> list[dict[str, Any]]:
    events, arena.bookmark = _read(arena, place)
    return events


def _read(arena: Arena, place: Bookmark) -> tuple[list[dict[str, Any]], Bookmark]:
    events: list[dict[str, Any]] = []
    while True:
        chunk = read_chunk(arena.audit_folder, place, until=1 << 62, limit=1000)
        events += chunk.events
        place = chunk.after
        if not chunk.events or chunk.broken:
            return events, place


async def _verified(arena: Arena) -> dict[str, Any]:
    """What ``broker audit verify --ledger`` says."""
    file = arena.brokers[0].config
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "audit", "verify", "--config", str(file)),
        *("--ledger", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
    )
    out, err = await process.communicate()
    try:
        return json.loads(out)
    except ValueError:
        return {"ok": False, "said": err.decode(errors="replace")}


def _crashed(arena: Arena) -> list[str]:
    """Brokers that ended by themselves, and exceptions that nobody had thought of."""
    found = [
        f"broker-{broker.number} ended by itself: {broker.ended}"
        for broker in arena.brokers
        if broker.wanted and broker.ended is not None
    ]
    for broker in arena.brokers:
        found += [f"broker-{broker.number} logged: {text}" for text in broker.surprises()]
    return found


def _keep(arena: Arena, plan: Plan, client: Client) -> None:
    """Keep what the client said; it holds no secret."""
    text = "".join(json.dumps(line) + "\n" for line in client.said)
    write_private(arena.data / f"client-{plan.seed}.jsonl", text)
