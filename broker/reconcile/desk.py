"""Who reconciles: operators, by hand, and a job.

A ledger that was set back is in quarantine until an operator says that it may issue again, or has
reconciled it until nothing is found. The job never lifts it, ends nothing while it stands, and sets
it where Vault has what this ledger must have lost.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.clock import to_rfc3339
from broker.errors import AccessDenied, Conflict, InvalidRequest, NotFound
from broker.ledger.lease import Lease
from broker.ledger.quarantine import QuarantineTable
from broker.ledger.reconciling import JOB, Reconciling
from broker.logs import get_logger
from broker.reconcile.findings import Kind
from broker.reconcile.run import Reconciliation, report_json
from broker.reconcile.survey import Survey
from broker.visibility import must_operate, must_see_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.access import Caller
    from broker.backends.vault_look import VaultLook
    from broker.ledger.connection import Connection
    from broker.ledger.quarantine import Quarantine
    from broker.metrics import Metrics
    from broker.pipeline import Pipeline
    from broker.reconcile.run import Result
    from broker.targets.protocol import Target
    from broker.wire_reconcile import Reconcile

log = get_logger("reconcile")
_ACTOR: Final = "broker"
_AGREED: Final = "ledger, backends and targets agree"
_BY_HAND: Final = frozenset({Kind.ACCOUNT_GONE})
"""Only a person can tell a target that was wiped from one that is looked for in the wrong place."""


@dataclass(frozen=True, slots=True)
class ReconcileRules:
    """``[reconcile]``: times in milliseconds; ``every_ms`` is None for by hand only."""

    every_ms: int | None = 3_600_000
    apply: bool = False
    shown_ms: int = 900_000


class ReconcileDesk:
    """The operations."""

    def __init__(
        self,
        pipeline: Pipeline,
        connection: Connection,
        *,
        look: VaultLook | None,
        targets: Sequence[Target],
        rules: ReconcileRules,
        metrics: Metrics,
    ) -> None:
        """``look`` looks at Vault, if there is one."""
        self.rules = rules
        self._metrics = metrics
        metrics.reconciled(dict.fromkeys(Kind, 0), problems=0)
        self._pipeline = pipeline
        self._table = table = Reconciling(connection)
        self._quarantine = QuarantineTable(connection)
        self._lease = Lease(connection, JOB)
        survey = Survey(
            pipeline=pipeline, table=table, released=self._quarantine, look=look, targets=targets
        )
        self._reconciliation = Reconciliation(
            pipeline=pipeline, survey=survey, table=table, look=look, targets=targets
        )

    async def reconcile(self, caller: Caller, ask: Reconcile) -> dict[str, Any]:
        """Compare, end what was shown before if that is asked, and lift a quarantine.

        Raises:
            Conflict: the ledger isn't in quarantine, so it can't be released; or what is to be
                applied isn't what the last run has shown.
            InvalidRequest: there is no such backend.
        """
        must_operate(caller)
        # Policies that can't be evaluated don't keep an operator from revoking.
        judge = self._pipeline.judge
        await judge.operate(caller, "reconcile", ask.backend or "", always=True)
        if ask.backend is not None and ask.backend not in self._pipeline.backends:
            known = ", ".join(sorted(self._pipeline.backends))
            raise InvalidRequest(f"backend: one of {known}", field="backend")
        held = await self._quarantine.standing()
        if ask.release:
            await judge.operate(caller, "release")
            if held is None:
                raise Conflict("The ledger is not in quarantine.")
        shown_ms = self.rules.shown_ms if ask.apply else 0
        result = await self._reconciliation.run(
            ask.backend or "", actor=caller.name, shown_ms=shown_ms, shown_at=ask.shown or ""
        )
        self._count(result)
        # Not one that was set meanwhile: what was compared may be from before it.
        if held is not None and held == await self._quarantine.standing():
            await self._lift(caller, ask, agreed=ask.backend is None and result.agrees)
        return _answer(report_json(result), await self._quarantine.standing())

    async def _lift(self, caller: Caller, ask: Reconcile, *, agreed: bool) -> None:
        """End the quarantine, if that is asked, or applying found nothing and its asker may."""
        if ask.release:
            await self._quarantine.release(actor=caller.name, reason=ask.reason or "")
        elif ask.apply and agreed:
            with suppress(AccessDenied):  # it is logged; the quarantine in the answer says it, too
                await self._pipeline.judge.operate(caller, "release")
                await self._quarantine.release(actor=caller.name, reason=_AGREED)

    async def last(self, caller: Caller) -> dict[str, Any]:
        """Return what the last run found, whoever asked for it.

        Raises:
            NotFound: there was none lately.
        """
        must_see_all(caller)
        report = await self._table.last()
        if report is None:
            raise NotFound("Nothing was reconciled lately.")
        return _answer(report, await self._quarantine.standing())

    async def state(self) -> str:
        """Say in a word how it stands.

        In quarantine the broker stays in service: whoever ends tasks must reach it, and whoever
        reconciles.
        """
        held = await self._quarantine.standing()
        if held is None:
            return "ok"
        since = to_rfc3339(held.at)
        return f"warning: in quarantine since {since}, nothing is issued: {held.why}"

    async def look(self) -> None:
        """Compare, and act as the rules say, unless another replica does or has: a job."""
        await self._lease.alone(self._look)

    async def _look(self, fence: int) -> None:
        every_ms = self.rules.every_ms or self.rules.shown_ms
        shown_ms = max(2 * every_ms, self.rules.shown_ms)
        last = await self._table.last()
        now = await self._pipeline.queries.now()
        if last is not None and last["backend"] is None and now - last["at_ms"] < every_ms // 2:
            return
        held = await self._quarantine.standing()
        applies = self.rules.apply and held is None
        result = await self._reconciliation.run(
            "", actor=_ACTOR, shown_ms=shown_ms if applies else 0, spare=_BY_HAND, fence=fence
        )
        self._count(result)
        if result.lost:
            await self._quarantine.set(
                f"Vault has {result.lost} tokens of tasks that the ledger has lost",
                seen_ms=result.at,
            )
        if not result.agrees:
            log.warning(
                "ledger, backends and targets disagree: run `broker reconcile`",
                findings=len(result.findings) + result.omitted,
                problems=list(result.problems),
            )

    def _count(self, result: Result) -> None:
        found = Counter(str(finding.kind) for finding, _ in result.findings)
        self._metrics.reconciled(found, problems=len(result.problems))


def _answer(report: Mapping[str, Any], held: Quarantine | None) -> dict[str, Any]:
    """Leave out what only the next run needs."""
    shown = {name: value for name, value in report.items() if name not in ("at_ms", "keys")}
    quarantine = {"since": to_rfc3339(held.at), "why": held.why} if held is not None else None
    return {**shown, "quarantine": quarantine}
