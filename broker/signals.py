"""What detectors and operators report of tasks, agents and owners, and what follows at once.

A report is written first, in every shard that must know; from there on nothing is decided without
it. Then live grants are decided again, and those that policy doesn't allow any more are revoked.
If a replica dies in between, any other finishes the work.

Who may report is policy's business (``Operation::"signal"``); lowering is for operators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.clock import to_rfc3339
from broker.errors import NotFound, Unavailable
from broker.identity.models import Role
from broker.ledger.signals import Statement
from broker.logs import get_logger
from broker.visibility import must_operate, must_see_all
from broker.wire import page_json

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.ledger.roster import Roster
    from broker.ledger.signals import Signal, SignalTable
    from broker.pipeline import Pipeline
    from broker.steps import Outcome
    from broker.watch import Watch
    from broker.wire_signals import Concerned, ReportSignal, TakeBackSignal

log = get_logger("signals")
FINISH_AFTER_MS: Final = 5_000
"""How old an unfinished report is before another replica than its maker's finishes it."""
_REASON: Final = "risk"
_MET: Final = (Role.AGENT, Role.ORCHESTRATOR)
"""Whose tasks there are, so of whom a report has an effect."""


class Detections:
    """The operations on signals."""

    def __init__(
        self, *, table: SignalTable, watch: Watch, pipeline: Pipeline, roster: Roster
    ) -> None:
        """Decide again through ``watch``; ``roster`` knows who there is."""
        self._table = table
        self._watch = watch
        self._judge = pipeline.judge
        self._queries = pipeline.queries
        self._roster = roster

    async def report(self, caller: Caller, ask: ReportSignal) -> tuple[dict[str, Any], Outcome]:
        """Write what is reported, and revoke what policy doesn't allow any more.

        Raises:
            AccessDenied: policy doesn't let the caller, or it would lower what stands.
            NotFound: there is no such task, agent or owner.
            Unavailable: it counts from now on, and some live grants are still to be decided about.
        """
        operates = caller.principal.role is Role.OPERATOR
        # Policies that can't be evaluated don't keep an operator from stopping somebody.
        await self._judge.operate(caller, "signal", ask.selector.field, always=operates)
        await self._check(ask.selector)
        statement = Statement(
            risk=ask.risk or 0,
            verdict=ask.verdict or "clean",
            reason=ask.reason,
            ttl_ms=ask.ttl or 0,
        )
        signal = await self._table.report(
            ask.selector.field, statement, only_raise=not operates, actor=caller.name
        )
        return signal_json(signal), await self._take_effect(signal)

    async def take_back(self, caller: Caller, ask: TakeBackSignal) -> None:
        """What was reported counts no more; what was revoked stays so.

        Raises:
            NotFound: nothing is reported.
        """
        must_operate(caller)
        await self._judge.operate(caller, "signal", ask.selector.field)
        signal = await self._table.take_back(
            ask.selector.field, reason=ask.reason, actor=caller.name
        )
        await self._take_effect(signal)

    async def listed(self, caller: Caller, *, limit: int, cursor: str) -> dict[str, Any]:
        """Return a page of what counts now, by selector."""
        must_see_all(caller)
        found, more = await self._table.listed(after=cursor, limit=limit)
        now = await self._queries.now()
        return page_json([signal_json(signal) for signal in found if signal.stands(now)], more)

    async def finish(self, *, older_than_ms: int = FINISH_AFTER_MS) -> list[str]:
        """Let take effect what a replica left undone; returns about whom that was."""
        found = await self._table.unsettled()
        now = await self._queries.now() if found else 0
        left = [signal for signal in found if now - signal.at >= older_than_ms]
        done: list[str] = []
        for signal in left:
            try:
                await self._take_effect(signal)
            except Unavailable as error:  # the others don't wait for it, and it stays open
                log.warning("not finished yet", signal=signal.selector, error=error.detail)
            else:
                done.append(signal.selector)
        if done:
            log.warning("finished what a replica had left", signals=done)
        return done

    async def _take_effect(self, signal: Signal) -> Outcome:
        await self._table.spread(signal)
        outcome = await self._watch.review(signal.selector, reason=_REASON)
        await self._table.settle(signal)
        return outcome

    async def _check(self, about: Concerned) -> None:
        """Refuse what nobody is or has."""
        kind, value = about.item
        if kind == "task_id":
            return  # the ledger looks, in the same write
        if self._is_known(kind, value) or await self._queries.chains.of(kind, value):
            return  # the second: they are nobody any more, and what they had isn't all dead yet
        # Or they were added by another replica.
        if not (await self._roster.refresh() and self._is_known(kind, value)):
            raise NotFound(f"There is no such {kind}.")

    def _is_known(self, kind: str, value: str) -> bool:
        people = self._roster.catalog.principals
        if kind == "agent":
            return value in people and people[value].role in _MET
        owners = self._roster.register.owners
        return value in owners or any(p.owner == value for p in people.values())


def signal_json(signal: Signal) -> dict[str, Any]:
    """A signal: about whom, what, by whom, since when, why, and until when."""
    return {
        "selector": signal.selector,
        "risk": signal.risk,
        "verdict": signal.verdict,
        "by": signal.by,
        "reason": signal.reason,
        "at": to_rfc3339(signal.at),
        "expires_at": to_rfc3339(signal.until_ms) if signal.until_ms else None,
    }
