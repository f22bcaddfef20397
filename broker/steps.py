"""The pipeline's numbered steps, its bounds, what it answers, and the work it has under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from broker.approvals import ANYBODY
from broker.errors import BrokerError
from broker.grants import Grant, GrantState
from broker.ids import new_id, shard_of
from broker.logs import get_logger
from broker.tracing import span

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable
    from typing import Any, Self

    from broker.access import Caller
    from broker.approvals import Yeses
    from broker.backends.protocol import Minted, Prepared
    from broker.catalog import Capability
    from broker.metrics import Metrics
    from broker.rulings import Ruling
    from broker.tasks import Task
    from broker.wire import RequestGrant

log = get_logger("work")


class Step(IntEnum):
    """The numbered steps, for whoever watches the pipeline."""

    RESOLVE = 2
    DECIDE = 3
    RESERVE = 4
    MINT = 5
    ACTIVATE = 6
    DELIVER = 7
    REVOKE = 9
    CONFIRM = 10


class Steps:
    """Takes the numbered steps, each as a span, and tells of it before to whoever watches."""

    def __init__(self, metrics: Metrics, before: Callable[[Step], None] = lambda _: None) -> None:
        """``before`` is called before each step, and may stop there."""
        self.metrics = metrics
        self._before = before

    @contextlib.contextmanager
    def take(self, step: Step, **ids: str) -> Generator[None]:
        """Take a step; ``ids`` say of what: ``task``, ``grant``."""
        self._before(step)
        with span(step.name.lower(), ids):
            yield

    def over(self, grant: Grant) -> None:
        """Take note of what became of a grant that was to be confirmed dead, or was given up."""
        if grant.state is GrantState.REVOKED:
            asked_at, ended_at = grant.revoke_at, grant.ended_at
            self.metrics.dead(grant.backend, grant.power, asked_at=asked_at, ended_at=ended_at)
        elif grant.state is GrantState.ABANDONED:
            self.metrics.abandoned(grant.backend, grant.power)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the pipeline; times in milliseconds."""

    attempts: int = 6
    backoff_ms: int = 1000
    max_backoff_ms: int = 30_000
    stuck_limit: int = 50
    backlog_limit: int = 1000
    wait_ms: int = 10_000
    lane_width: int = 16


@dataclass(frozen=True, slots=True)
class Issued:
    """A grant with its credential, on its way to the one who asked."""

    grant: Grant
    minted: Minted
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of revoking some grants; nobody confirms of the ``abandoned`` that they died."""

    revoked: int = 0
    revoking: int = 0
    abandoned: int = 0

    @classmethod
    def of(cls, states: Iterable[GrantState]) -> Self:
        """Count grants by the states they are in; what failed was never issued."""
        counts = Counter(states)
        revoked, abandoned = counts[GrantState.REVOKED], counts[GrantState.ABANDONED]
        settled = revoked + abandoned + counts[GrantState.FAILED]
        return cls(revoked, counts.total() - settled, abandoned)

    def __add__(self, other: Outcome) -> Outcome:
        """Return both taken together."""
        return Outcome(
            self.revoked + other.revoked,
            self.revoking + other.revoking,
            self.abandoned + other.abandoned,
        )

    @property
    def matched(self) -> int:
        """How many there were."""
        return self.revoked + self.revoking + self.abandoned

    def as_json(self) -> dict[str, int]:
        """Return the counts as answers have them."""
        return {
            "revoked": self.revoked,
            "revoking": self.revoking,
            "abandoned": self.abandoned,
        }


class Work:
    """Work that goes on to its end even if whoever asked for it goes away."""

    def __init__(self) -> None:
        self._jobs: set[asyncio.Task[Any]] = set()
        self._ending: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], *, ends: bool = False) -> asyncio.Task[Any]:
        """Start a piece of work; ``ends`` says that it ends a credential or what one hangs from."""
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        if ends:
            self._ending.add(job)
            job.add_done_callback(self._ending.discard)
        job.add_done_callback(self._done)
        return job

    def _done(self, job: asyncio.Task[Any]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            unforeseen = not isinstance(error, BrokerError)
            (log.error if unforeseen else log.debug)("work failed", exc_info=error)

    @property
    def in_flight(self) -> int:
        """How many pieces are under way."""
        return len(self._jobs)

    @property
    def ending(self) -> int:
        """How many of them end something; however much is issued, that isn't among these."""
        return len(self._ending)

    async def drain(self, timeout_s: float) -> None:
        """Wait for what is under way, and what that starts, so that little is left to sweep."""
        async with asyncio.timeout(timeout_s):
            while self._jobs:
                await asyncio.wait(self._jobs)


def counted(yeses: Yeses | None) -> dict[str, int]:
    """Return yeses as rows hold them: by group, all of them under no name."""
    if yeses is None or not yeses.total:
        return {}
    return {ANYBODY: yeses.total, **(yeses.groups or {})}


def bare_grant(task: Task, capability: Capability, prepared: Prepared) -> Grant:
    """Return what any pending grant has; the ledger sets its times."""
    return Grant(
        id=new_id("grt", shard_of(task.id, "tsk") or 0),
        state=GrantState.PENDING,
        task_id=task.id,
        agent=task.agent,
        orchestrator=task.orchestrator,
        capability=capability.name,
        backend=capability.backend,
        power=capability.power,
        path=capability.path,
        handle=prepared.handle,
        lease=prepared.lease,
        created_at=0,
        expires_at=0,
    )


def pending_grant(
    caller: Caller,
    task: Task,
    capability: Capability,
    ask: RequestGrant,
    prepared: Prepared,
    ruling: Ruling,
) -> Grant:
    """Return the grant as it is reserved."""
    return replace(
        bare_grant(task, capability, prepared),
        intent=ask.intent or "",
        parameters=ask.parameters or {},
        cnf=caller.cnf,
        via=caller.lineage,
        decision_id=ruling.id,
        method=caller.method,
        asker=caller.name if caller.name != task.agent else "",
        approval_id=ruling.approval.id if ruling.approval else "",
        approvals=counted(ruling.yeses),
        elevation_id=ruling.elevation.id if ruling.elevation else "",
        replaces=ask.replaces,
    )
