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

from broker.audit.note import log_origin
from broker.audit.reader import read_chunk
from broker.audit.signing_key import load_signer
from broker.audit.verify import verify
from broker.dev.engines.process import write_private
from broker.grants import LIVE
from tests.chaos.check import BOUND_S, Evidence, Verdict, judge, unknown
from tests.chaos.faults import Breaking
from tests.chaos.load import Caller
from tests.chaos.look import Looker
from tests.chaos.servers import ROOT
from tests.chaos.watch import Watch
from tests.dev.broker_process import environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from broker.audit.head import Head
    from tests.chaos.check import Alive
    from tests.chaos.plan import Plan
    from tests.chaos.servers import Arena

WORKERS: Final = 6
_AGAIN_S: Final = 1.0
_ENDED: Final = {"revoke_lease", "end_account"}
STRAYS_END_S: Final = 75.0
"""Reconciling ends a lease that no grant has once it is a minute old."""

LOST_S: Final = 10.0
"""What nobody was given is looked at again so late, if its token had gone by itself."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round came to.

    ``alive`` roles there were, and ``found`` by reconciling, when the faults were over; ``strays``
    are leases and accounts that reconciling had to end at last.
    """

    plan: Plan
    verdict: Verdict
    seconds: float
    alive: int
    found: int
    strays: int
    calls: dict[str, int]

    @property
    def passed(self) -> bool:
        return not self.verdict.problems


async def play(
    arena: Arena, plan: Plan, *, bound_s: float = BOUND_S, strays_end_s: float = STRAYS_END_S
) -> Outcome:
    """Play a round, and judge it.

    What nobody has may be left to reconciling for ``strays_end_s``; with 0 nothing is ended by it.
    """
    began = time.time()
    client = arena.client
    looker, watch = Looker(arena, began), Watch(arena.postgres.admin_dsn.reveal)
    watching = asyncio.create_task(watch.run())
    try:
        breaking = Breaking(arena)
        await asyncio.gather(client.work(_job(arena, plan)), breaking.play(plan.faults))  # 1
        found = await _reconcile(arena, apply=bool(strays_end_s))  # 2
        healed = await looker.alive()  # 3
        if unknown(healed):  # what was ended between two of its looks is gone by the next
            await asyncio.sleep(_AGAIN_S)
            healed = await looker.alive()
        await client.finish()  # 4
        ended, strays = await _all_dead(looker, bound_s), 0
        if (ended.leases or ended.roles) and strays_end_s:
            ended, strays = await _reconciled(arena, looker, strays_end_s)
        await client.try_all()  # 5
        await watch.look()
        with suppress(AssertionError):
            await wait_until(looker.drained, "every event in the log", within_s=bound_s)
        reconciled = await _reconcile(arena, apply=False)
        verified = await asyncio.to_thread(_verified, arena, await looker.head())  # 6
        evidence = Evidence(
            model=client.model,
            seen=watch.seen,
            spans=breaking.spans,
            until=time.time(),
            healed=healed,
            ended=ended,
            log=_events(arena),
            verified=verified,
            reconciled=reconciled,
            strays=strays,
            early_ends=plan.clocks_step,
            others=[*breaking.problems, *_crashed(arena)],
        )
        verdict = judge(evidence, bound_s=bound_s)
    finally:
        watch.stop()
        await watching
        _keep(arena, plan)
    return Outcome(
        plan,
        verdict,
        time.time() - began,
        len(healed.roles),
        len(found.get("findings", ())),
        strays,
        {name: n for name, n in client.model.counts.items() if name != "is"},
    )


def _job(arena: Arena, plan: Plan) -> dict[str, Any]:
    return {
        "urls": arena.urls,
        "issuer": arena.config.broker.issuer,
        "data": str(arena.data),
        "seed": plan.load_seed,
        "seconds": plan.load_s,
        "workers": WORKERS,
    }


async def _all_dead(looker: Looker, bound_s: float) -> Alive:
    """Look until nothing is left, or time is up; return the last look.

    What lives has ``bound_s``; to be closed in the ledger it has ``LOST_S`` more.
    """
    deadline = time.monotonic() + bound_s
    while True:
        alive = await looker.alive()
        lives = alive.roles | alive.leases | alive.tokens
        is_open = alive.unclosed or any(grant.state in LIVE for grant in alive.grants)
        left_s = deadline - time.monotonic() + (0 if lives else LOST_S)
        if not (lives or is_open) or left_s < 0:
            return alive
        await asyncio.sleep(0.2)


async def _reconciled(arena: Arena, looker: Looker, within_s: float) -> tuple[Alive, int]:
    """Reconcile until nothing is left, or time is up; how many leases and accounts that ended."""
    ended: set[str] = set()
    deadline = time.monotonic() + within_s
    while True:
        found = await _reconcile(arena, apply=True)
        rows = found.get("findings", ())
        ended |= {row["subject"] for row in rows if row["action"] in _ENDED}
        alive = await looker.alive()
        if not (alive.leases or alive.roles) or time.monotonic() > deadline:
            return alive, len(ended)
        await asyncio.sleep(_AGAIN_S)


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


def _events(arena: Arena) -> list[dict[str, Any]]:
    """What is in the log that wasn't when this was asked last: the events of this round."""
    events: list[dict[str, Any]] = []
    while True:
        chunk = read_chunk(arena.audit_folder, arena.bookmark, until=1 << 62, limit=1000)
        events += chunk.events
        arena.bookmark = chunk.after
        if not chunk.events or chunk.broken:
            return events


def _verified(arena: Arena, head: Head | None) -> dict[str, Any]:
    """Verify as ``broker audit verify --ledger`` does, without a process's start for each round."""
    config = arena.config
    path = config.audit.signing_key(config.broker.state_dir)
    key = load_signer(path, log_origin(config.broker.issuer)).key
    return verify(arena.audit_folder, [key], head=head).as_json()


async def verified_by_command(arena: Arena) -> bool:
    """Whether ``broker audit verify --ledger`` says so itself."""
    file = str(arena.brokers[0].config)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "audit", "verify", "--config", file, "--ledger"),
        stdout=asyncio.subprocess.DEVNULL,
        env=environment(),
        cwd=ROOT,
    )
    return await process.wait() == 0


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


def _keep(arena: Arena, plan: Plan) -> None:
    """Keep what the client said; it holds no secret."""
    text = "".join(json.dumps(line) + "\n" for line in arena.client.said)
    write_private(arena.data / f"client-{plan.seed}.jsonl", text)
