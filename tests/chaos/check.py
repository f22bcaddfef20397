"""The verdict on a round: what was seen against what must be. No I/O.

Time counts against a bound only while no fault is in force: a broker that can't reach OpenBao can't
revoke, and one that can has no excuse.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from broker.audit.record import GAP, TYPE_PREFIX
from broker.grants import GRANT_MOVES, LIVE, GrantState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.grants import Grant
    from tests.chaos.faults import Span
    from tests.chaos.model import Credential, Model
    from tests.chaos.watch import Sight

BOUND_S: Final = 15.0
"""How long a credential may outlive its time, not counting while a fault is in force.

A claim of a dead replica (3 s here) and a mint nobody heard of (9 s) have to run out before another
takes them up, and a way that was shut is tried again every five seconds.
"""
_MOVES: Final = {
    "grant.activated": GrantState.ACTIVE,
    "grant.failed": GrantState.FAILED,
    "grant.revoking": GrantState.REVOKING,
    "grant.stuck": GrantState.STUCK,
    "grant.revoked": GrantState.REVOKED,
    "grant.abandoned": GrantState.ABANDONED,
}


@dataclass(frozen=True, slots=True)
class Alive:
    """What there is, seen from outside first and in the ledger then.

    ``at`` is when the looking began. ``tokens`` are those that OpenBao has of tasks, by the task
    and the handle in their metadata; ``handles`` what the ledger knows of both, of tasks that
    aren't closed.
    """

    at: float
    roles: frozenset[str]
    leases: frozenset[str]
    tokens: frozenset[tuple[str, str]]
    grants: Sequence[Grant]
    handles: frozenset[tuple[str, str]]
    unclosed: frozenset[str] = frozenset()


@dataclass(slots=True)
class Evidence:
    """All that a round has left. Times are seconds of the machine's clock."""

    model: Model
    seen: Mapping[str, Sight]
    spans: Sequence[Span]
    until: float
    """When PostgreSQL was looked at last."""
    healed: Alive
    """After the faults and a reconciliation, while tasks still run."""
    ended: Alive
    log: Sequence[Mapping[str, Any]]
    """The events of this round in the signed log."""
    verified: Mapping[str, Any]
    reconciled: Mapping[str, Any]
    strays: int = 0
    """How many leases and accounts that no grant has reconciling ended, once it could be sure."""
    early_ends: bool = False
    """Whether a clock was stepped: what a broker issues then may end before its time."""
    others: list[str] = field(default_factory=list[str])
    """What was noticed besides."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``worst`` is the longest that a credential outlived its time, ``worst_healthy`` that without
    the time while a fault was in force."""

    problems: tuple[str, ...]
    credentials: int
    worst: float
    worst_healthy: float


def judge(evidence: Evidence, *, bound_s: float = BOUND_S) -> Verdict:
    problems = list(evidence.others)
    credentials = evidence.model.credentials()
    worst = healthy = 0.0
    for credential in credentials:
        late, late_healthy = _lateness(credential, evidence)
        worst, healthy = max(worst, late), max(healthy, late_healthy)
        problems += _of_credential(credential, evidence, late_healthy, bound_s)
    problems += _tried(evidence.model)
    problems += [f"once healed, {text}" for text in unknown(evidence.healed, evidence.strays)]
    problems += _left(evidence.ended)
    problems += _audit(evidence, credentials)
    if not evidence.reconciled.get("agreement"):
        problems.append(f"not reconciled at the end: {evidence.reconciled}")
    return Verdict(tuple(problems), len(credentials), worst, healthy)


def healthy_s(since: float, until: float, spans: Iterable[Span]) -> float:
    """How much of a time no fault was in force."""
    left = since
    total = 0.0
    for began, over in sorted(spans):
        if began >= until:
            break
        total += max(0.0, began - left)
        left = max(left, over)
    return total + max(0.0, until - left)


def _lateness(credential: Credential, evidence: Evidence) -> tuple[float, float]:
    sight = evidence.seen.get(credential.user)
    gone = evidence.until if sight is None or sight.gone is None else sight.gone
    if sight is None or gone <= credential.must_die:
        return 0.0, 0.0
    late = gone - credential.must_die
    return late, healthy_s(credential.must_die, gone, evidence.spans)


def _of_credential(
    credential: Credential, evidence: Evidence, late_s: float, bound_s: float
) -> list[str]:
    name = f"{credential.grant} ({credential.user}, {credential.why})"
    sight = evidence.seen.get(credential.user)
    if sight is None:  # it came and went between two looks, or while PostgreSQL didn't answer
        return []
    problems: list[str] = []
    if late_s > bound_s:
        problems.append(f"{name} was alive {late_s:.1f} s past its time")
    if sight.alive > credential.said_dead:
        after = sight.alive - credential.said_dead
        problems.append(
            f"{name} was alive {after:.2f} s after the broker had said that it was dead"
        )
    if sight.revived is not None:
        problems.append(f"{name} was dead, and then alive again")
    if sight.gone is not None and sight.gone < credential.may_die and not evidence.early_ends:
        early = credential.may_die - sight.gone
        problems.append(f"{name} was dead {early:.2f} s before anybody had asked for it")
    return problems


def _tried(model: Model) -> list[str]:
    problems: list[str] = []
    for line in model.grants.values():
        tried = model.tried.get(line["user"])
        if tried is None:
            problems.append(f"{line['id']} was not tried at the end")
            continue
        problems += [
            f"{line['id']} ({line['user']}): its {what} works after everything was ended"
            for what in ("login", "session")
            if tried[what]
        ]
    return problems


def unknown(alive: Alive, strays: int = 0) -> list[str]:
    """What is alive and not in the ledger, as far as can be told; ``strays`` are accounted for.

    A grant whose answer was lost is in the ledger, and neither its lease nor its account is: for
    each of those there may be one that nobody can name yet.
    """
    standing = [g for g in alive.grants if g.state in LIVE or g.ended_at / 1000 >= alive.at]
    nameless = strays + sum(not grant.account for grant in standing)
    problems: list[str] = []
    for what, found, known in (
        ("roles", alive.roles, {grant.account for grant in standing}),
        ("leases", alive.leases, {grant.lease for grant in standing}),
    ):
        strangers = sorted(found - known)
        if len(strangers) > nameless:
            problems.append(f"the ledger knows nothing of {what} {strangers} ({nameless} nameless)")
    if strangers := sorted(alive.tokens - alive.handles):
        problems.append(f"the ledger knows nothing of tokens {strangers}")
    return problems


def _left(alive: Alive) -> list[str]:
    left = {
        "roles at PostgreSQL": alive.roles,
        "leases at OpenBao": alive.leases,
        "tokens at OpenBao": alive.tokens,
        "live grants in the ledger": [
            f"{g.id}: {g.state}" for g in alive.grants if g.state in LIVE
        ],
        "tasks not closed": alive.unclosed,
    }
    return [f"everything was ended, and there are {k}: {sorted(v)}" for k, v in left.items() if v]


def _audit(evidence: Evidence, credentials: Sequence[Credential]) -> list[str]:
    problems: list[str] = []
    if not evidence.verified.get("ok"):
        problems.append(f"the log doesn't verify: {evidence.verified}")
    gaps = [event["data"] for event in evidence.log if event["type"] == GAP]
    problems += [f"a gap in the log: {gap}" for gap in gaps]
    states, wrong = replayed(evidence.log)
    problems += wrong
    for grant in evidence.ended.grants:
        if states.get(grant.id) != grant.state:
            problems.append(f"{grant.id} is {grant.state}, and {states.get(grant.id)} in the log")
    problems += [
        f"{credential.grant} was handed out, and the log doesn't know it"
        for credential in credentials
        if credential.grant not in states
    ]
    opened = {
        event["task"] for event in evidence.log if event["type"] == f"{TYPE_PREFIX}task.opened"
    }
    missing = sorted(evidence.model.tasks.keys() - opened)
    problems += [f"{task} was opened, and the log doesn't know it" for task in missing]
    return problems


def replayed(log: Iterable[Mapping[str, Any]]) -> tuple[dict[str, GrantState], list[str]]:
    """Play the log's moves of every grant by the table: where each stands, and what couldn't be."""
    states: dict[str, GrantState] = {}
    wrong: list[str] = []
    twice: dict[str, int] = defaultdict(int)
    for event in log:
        twice[event["id"]] += 1
        kind, grant = event["type"].removeprefix(TYPE_PREFIX), event.get("grant", "")
        if kind == "grant.reserved":
            states[grant] = GrantState.PENDING
        elif (to := _MOVES.get(kind)) is not None:
            if grant not in states or to not in GRANT_MOVES[states[grant]]:
                wrong.append(f"the log has {grant} from {states.get(grant)} to {to}")
            states[grant] = to
    wrong += [f"the log has event {event} {n} times" for event, n in twice.items() if n > 1]
    return states, wrong
