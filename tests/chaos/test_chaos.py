"""The planner follows its seed, the verdict can be guilty, and a round on real servers passes."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker.grants import Grant, GrantState
from tests.chaos.__main__ import arena_in
from tests.chaos.check import Alive, Evidence, healthy_s, judge
from tests.chaos.link import Link, to_port
from tests.chaos.model import Model
from tests.chaos.plan import Kind, Part, plan
from tests.chaos.round import play
from tests.chaos.watch import Sight, Watch

if TYPE_CHECKING:
    from pathlib import Path

USER = "v-token-br-orders-r-abc"
GRANT = Grant(
    id="grt_1",
    state=GrantState.REVOKED,
    task_id="tsk_1",
    agent="report-writer",
    orchestrator="orchestrator",
    capability="orders-read",
    backend="vault",
    power="read",
    path="database/creds/orders-read",
    handle="h1",
    created_at=100_000,
    expires_at=105_000,
    lease="database/creds/orders-read/l1",
    account=USER,
)


# ── the plan ──────────────────────────────────────────────────────────────────────────────────────


def test_a_seed_gives_the_same_round_each_time() -> None:
    assert plan(7) == plan(7)
    assert len({plan(seed).faults for seed in range(50)}) == 50


def test_rounds_have_every_fault_of_every_part() -> None:
    faults = [fault for seed in range(400) for fault in plan(seed).faults]
    assert {fault.kind for fault in faults} == set(Kind)
    assert {fault.part for fault in faults} == set(Part)
    assert {fault.number for fault in faults if fault.part is Part.BROKER} == {0, 1, 2}


def test_no_two_faults_are_done_to_one_target_at_once() -> None:
    for seed in range(400):
        last: dict[tuple[Part, int], float] = {}
        for fault in plan(seed).faults:
            assert fault.at >= last.get((fault.part, fault.number), 0)
            last[fault.part, fault.number] = fault.at + fault.lasts


# ── what the client knows ─────────────────────────────────────────────────────────────────────────


def lines(**task: Any) -> list[dict[str, Any]]:
    opened = {"is": "task", "id": "tsk_1", "parent": None, "asked": 100.0, "answered": 100.1}
    had = {"is": "grant", "id": "grt_1", "task": "tsk_1", "user": USER, "session": True}
    return [
        {**opened, "expires": 112.0, "heartbeat": 0, **task},
        {**had, "expires": 105.0},
    ]


def tried(**works: bool) -> dict[str, Any]:
    return {"is": "tried", "user": USER, "login": False, "session": False, **works}


def end(of: str, which: str, asked: float, answered: float | None, *, dead: bool) -> dict[str, Any]:
    return {
        "is": "end",
        "of": of,
        "id": which,
        "asked": asked,
        "answered": answered,
        "dead": dead,
    }


def test_a_credential_ends_with_the_first_of_what_ends_it() -> None:
    (had,) = Model.of(lines()).credentials()
    assert (had.may_die, had.must_die, had.why) == (103.5, 105.0, "expiry")
    done = end("task", "tsk_1", 101.0, 102.0, dead=True)
    (had,) = Model.of([*lines(), done]).credentials()
    assert (had.may_die, had.must_die, had.said_dead, had.why) == (101.0, 102.0, 102.0, "task")


def test_a_call_whose_answer_was_lost_may_have_ended_it_and_need_not() -> None:
    lost = end("grant", "grt_1", 101.0, None, dead=False)
    (had,) = Model.of([*lines(), lost]).credentials()
    assert (had.may_die, had.must_die, had.said_dead) == (101.0, 105.0, math.inf)


def test_a_child_ends_with_its_parent_and_the_silent_with_their_silence() -> None:
    parent = {**lines()[0], "id": "tsk_0", "expires": 103.0}
    (had,) = Model.of([parent, *lines(parent="tsk_0")]).credentials()
    assert (had.must_die, had.why) == (103.0, "deadline")
    heard = {"is": "contact", "task": "tsk_1", "asked": 101.0, "answered": 101.2}
    (had,) = Model.of([*lines(heartbeat=2), heard]).credentials()
    assert (had.may_die, had.must_die, had.why) == (102.0, pytest.approx(103.2), "silent")


# ── the verdict ───────────────────────────────────────────────────────────────────────────────────


def log(*more: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = ("task.opened", "grant.reserved", "grant.activated", "grant.revoking", "grant.revoked")
    rows: list[dict[str, Any]] = [
        {"id": str(i), "type": f"broker.{kind}", "task": "tsk_1", "grant": "grt_1", "data": {}}
        for i, kind in enumerate(kinds)
    ]
    return [*rows, *more]


def alive(**there: Any) -> Alive:
    empty = Alive(
        at=120.0,
        roles=frozenset(),
        leases=frozenset(),
        tokens=frozenset(),
        grants=[GRANT],
        handles=frozenset(),
    )
    return replace(empty, **there)


def evidence(**other: Any) -> Evidence:
    """A round in which nothing went wrong."""
    kept: dict[str, Any] = {
        "model": Model.of([*lines(), tried()]),
        "seen": {USER: Sight(alive=105.1, gone=105.3)},
        "spans": [],
        "until": 130.0,
        "healed": alive(),
        "ended": alive(),
        "log": log(),
        "verified": {"ok": True},
        "reconciled": {"agreement": True},
    }
    return Evidence(**kept | other)


def test_a_round_in_which_all_went_well_is_passed() -> None:
    verdict = judge(evidence())
    assert verdict.problems == ()
    assert verdict.worst == pytest.approx(0.3)


GAP = {"id": "g", "type": "broker.audit.gap", "data": {"shard": 3, "missed": 1, "why": "gone"}}
ENDED = [*lines(), end("task", "tsk_1", 101.0, 102.0, dead=True), tried()]
GUILTY: dict[str, tuple[dict[str, Any], str]] = {
    "alive past its time": ({"seen": {USER: Sight(125.0, 125.2)}}, "20.2 s past its time"),
    "never seen to die": ({"seen": {USER: Sight(129.9)}}, "25.0 s past its time"),
    "alive though said dead": (
        {"model": Model.of(ENDED), "seen": {USER: Sight(102.5, 102.6)}},
        "alive 0.50 s after the broker had said",
    ),
    "dead and alive again": ({"seen": {USER: Sight(105.1, 105.3, revived=105.0)}}, "alive again"),
    "dead before its time": ({"seen": {USER: Sight(101.0, 101.2)}}, "dead 2.30 s before anybody"),
    "logs in at the end": ({"model": Model.of([*lines(), tried(login=True)])}, "its login works"),
    "session at the end": (
        {"model": Model.of([*lines(), tried(session=True)])},
        "its session works",
    ),
    "never tried": ({"model": Model.of(lines())}, "was not tried"),
    "a role nobody knows": ({"healed": alive(roles=frozenset({"v-x"}))}, "nothing of roles"),
    "a lease nobody knows": ({"healed": alive(leases=frozenset({"l9"}))}, "nothing of leases"),
    "a token nobody knows": (
        {"healed": alive(tokens=frozenset({("tsk_1", "h9")}))},
        "nothing of tokens",
    ),
    "a role that is left": ({"ended": alive(roles=frozenset({USER}))}, "roles at PostgreSQL"),
    "a lease that is left": ({"ended": alive(leases=frozenset({"l1"}))}, "leases at OpenBao"),
    "a task that isn't closed": ({"ended": alive(unclosed=frozenset({"tsk_1"}))}, "not closed"),
    "a grant that lives on": (
        {"ended": alive(grants=[replace(GRANT, state=GrantState.STUCK)])},
        "live grants in the ledger",
    ),
    "a gap in the log": ({"log": log(GAP)}, "a gap in the log"),
    "an event that is missing": ({"log": log()[:3]}, "grt_1 is revoked, and active in the log"),
    "an event twice": ({"log": log(log()[0])}, "has event 0 2 times"),
    "a move that isn't legal": ({"log": [log()[0], log()[2]]}, "from None to active"),
    "a task not in the log": ({"log": log()[1:]}, "tsk_1 was opened"),
    "a log that was changed": ({"verified": {"ok": False}}, "doesn't verify"),
    "no agreement": ({"reconciled": {"agreement": False}}, "not reconciled"),
    "a crash": ({"others": ["broker-1 ended by itself: -6"]}, "ended by itself"),
}


@pytest.mark.parametrize("what", GUILTY)
def test_what_is_wrong_is_found(what: str) -> None:
    planted, said = GUILTY[what]
    problems = judge(evidence(**planted)).problems
    assert any(said in problem for problem in problems), problems


def test_time_under_faults_does_not_count_and_time_between_them_does() -> None:
    spans = [(106.0, 124.0), (105.5, 110.0)]
    assert healthy_s(105.0, 125.0, spans) == pytest.approx(1.5)
    seen = {USER: Sight(124.8, 125.0)}
    assert judge(evidence(seen=seen, spans=spans)).problems == ()
    assert judge(evidence(seen=seen, spans=spans), bound_s=1.0).problems != ()


def test_a_grant_whose_answer_was_lost_may_have_a_role_that_nobody_can_name() -> None:
    lost = replace(GRANT, state=GrantState.REVOKING, account="", lease="")
    strangers = frozenset({"v-1"})
    assert judge(evidence(healed=alive(roles=strangers, grants=[lost]))).problems == ()
    assert judge(evidence(healed=alive(roles=strangers), strays=1)).problems == ()
    strangers |= {"v-2"}
    assert judge(evidence(healed=alive(roles=strangers, grants=[lost]))).problems != ()


def test_what_is_seen_is_dated_by_the_question_and_its_answer() -> None:
    watch = Watch(lambda: "")
    watch.take(1.0, 1.1, {USER})
    watch.take(2.0, 2.1, {USER})
    watch.take(3.0, 3.1, ())
    assert watch.seen[USER] == Sight(alive=2.0, gone=3.1)
    watch.take(4.0, 4.1, {USER})
    assert watch.seen[USER] == Sight(alive=4.0, gone=None, revived=4.0)


# ── the ways between servers ──────────────────────────────────────────────────────────────────────


async def test_a_link_passes_on_hangs_and_is_cut() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link = Link(to_port(server.sockets[0].getsockname()[1]))
    await link.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    link.hang()
    writer.write(b"two")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(3), 0.1)
    link.heal()
    writer.write(b"!")
    link.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(100)
    writer.close()
    await link.close()
    server.close()


# ── and all of it, for real ───────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(300)  # ten servers and programs are started, and restarted
async def test_a_round_passes_and_one_with_a_credential_of_nobody_does_not(tmp_path: Path) -> None:
    async with arena_in(tmp_path) as arena:
        outcome = await play(arena, plan(2, load_s=3.0))
        assert outcome.verdict.problems == ()
        assert outcome.verdict.credentials > 0

        # Behind the broker's back: a lease, and a role with it, that hang from no task.
        planted = await arena.vault("get", "database/creds/orders-read")
        outcome = await play(
            arena, replace(plan(2, load_s=3.0), faults=()), bound_s=3.0, strays_end_s=0
        )
        found = "\n".join(outcome.verdict.problems)
        assert planted["lease_id"] in found
        assert planted["data"]["username"] in found
