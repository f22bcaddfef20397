"""Reconciling, step by step.

1. Look at Vault and the targets, then at the ledger    (``survey.py``)
2. Compare                                              (``compare.py``)
3. Look again at each finding, at its own place
4. Applying: end those that an earlier run has shown, each logged before it is ended
5. Keep the report, log the run

A finding is of what nobody has, or of a grant that is dead already: what was shown once doesn't
become right again by itself, so the second look is one at the backend alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.clock import to_rfc3339
from broker.errors import ConfigError, Conflict, Unavailable
from broker.grants import GrantState
from broker.logs import get_logger
from broker.reconcile.compare import compare
from broker.reconcile.findings import Action, Finding, Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.backends.vault_look import VaultLook
    from broker.ledger.reconciling import Reconciling
    from broker.pipeline import Pipeline
    from broker.reconcile.survey import Survey
    from broker.targets.protocol import Target

log = get_logger("reconcile")
MOST: Final = 1000
"""Findings of one run that are shown and acted on: what is wrong stays bounded, too."""
_TOGETHER: Final = 16


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found, and what became of it. ``at`` is epoch milliseconds."""

    at: int
    applied: bool
    backend: str
    findings: Sequence[tuple[Finding, Outcome]]
    omitted: int
    problems: Sequence[str]

    @property
    def agrees(self) -> bool:
        """Whether everything was seen, and nothing is left to be done or looked at."""
        return not (self.findings or self.problems or self.omitted)

    @property
    def lost(self) -> int:
        """How many things there are that this ledger must have known."""
        return sum(finding.lost for finding, _ in self.findings)


class Reconciliation:
    """Finds what ledger, backends and targets disagree on, and ends it."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        survey: Survey,
        table: Reconciling,
        look: VaultLook | None,
        targets: Sequence[Target],
    ) -> None:
        """End grants through the pipeline, like everybody; the rest where it is."""
        self._pipeline = pipeline
        self._survey = survey
        self._table = table
        self._look = look
        self._targets = {target.name: target for target in targets}
        self._one_at_a_time = asyncio.Lock()

    async def run(
        self,
        backend: str,
        *,
        actor: str,
        shown_ms: int = 0,
        shown_at: str = "",
        spare: frozenset[Kind] = frozenset(),
        fence: int = 0,
    ) -> Result:
        """Compare, and with ``shown_ms`` end what a run in the last so many milliseconds showed.

        ``shown_at`` says which run that must have been. ``spare`` are kinds that are only shown.
        ``fence`` is the job's.

        Raises:
            Conflict: it was another run, so that nothing was compared; or another replica has taken
                over from the job.
            LedgerUnavailable: nothing was compared, or not all of it is known to be done.
        """
        async with self._one_at_a_time:
            shown = await self._shown(shown_ms, shown_at) if shown_ms else frozenset[str]()
            seen = await self._survey.see(backend)
            found = compare(seen.ledger, seen.vault, seen.targets, seen.unread)
            found.sort(key=lambda finding: finding.action is Action.NONE)  # these never hide others
            again = {view.name: view.accounts for view in seen.targets}
            problems = list(seen.problems)
            still = await self._still(found[:MOST], again, problems)
            gate = asyncio.Semaphore(_TOGETHER)

            async def one(finding: Finding) -> tuple[Finding, Outcome]:
                if not shown_ms or finding.action is Action.NONE or finding.kind in spare:
                    return finding, Outcome.SHOWN
                if finding.key not in shown:
                    return finding, Outcome.NEW
                async with gate:
                    return finding, await self._apply(finding, actor)

            result = Result(
                at=seen.ledger.now,
                applied=bool(shown_ms),
                backend=backend,
                findings=await asyncio.gather(*map(one, still)),
                omitted=max(0, len(found) - MOST),
                problems=list(dict.fromkeys(problems)),
            )
            report, counts = report_json(result), counts_json(result)
            if not await self._table.finished(report, counts, actor=actor, fence=fence):
                raise Conflict("Another replica reconciles now.")
            return result

    async def _shown(self, within_ms: int, at: str) -> frozenset[str]:
        """Return what the last run showed, if that isn't too long ago."""
        last = await self._table.last()
        if at and (last is None or last["at"] != at):
            raise Conflict("Another run has come in between: look at what that one has found.")
        if last is None or await self._pipeline.queries.now() - last["at_ms"] > within_ms:
            return frozenset()
        return frozenset(last["keys"])

    async def _still(
        self, found: Sequence[Finding], again: dict[str, frozenset[str]], problems: list[str]
    ) -> list[Finding]:
        """Leave out what isn't so any more: it came or went while the sides were being read."""
        for name in {f.place for f in found} & again.keys():
            try:
                again[name] = await self._targets[name].accounts()
            except (Unavailable, ConfigError) as error:
                problems.append(f"target {name}: {error.detail}")
                del again[name]
        gate = asyncio.Semaphore(_TOGETHER)

        async def check(finding: Finding) -> bool:
            async with gate:
                try:
                    return await self._is_so(finding, again.get(finding.place))
                except Unavailable as error:
                    problems.append(f"{finding.place}: {error.detail}")
                    return False

        kept = await asyncio.gather(*map(check, found))
        return [finding for finding, so in zip(found, kept, strict=True) if so]

    async def _is_so(self, finding: Finding, accounts: frozenset[str] | None) -> bool:
        match finding.kind:
            case Kind.ORPHAN_TOKEN:
                return await self._vault.token(finding.accessor) is not None
            case Kind.RESURRECTED_LEASE | Kind.UNCLAIMED_LEASE:
                return await self._vault.lease(finding.subject) is not None
            case Kind.ORPHAN_ACCOUNT:
                return accounts is not None and finding.subject in accounts
            case Kind.LEASE_GONE | Kind.ACCOUNT_GONE:
                grant = await self._pipeline.queries.grant(finding.grant_id)
                if grant is None or grant.state is not GrantState.ACTIVE:
                    return False
                if finding.kind is Kind.ACCOUNT_GONE:
                    return accounts is not None and grant.account not in accounts
                return await self._vault.lease(grant.lease) is None

    @property
    def _vault(self) -> VaultLook:
        assert self._look is not None  # noqa: S101  there are findings about it
        return self._look

    async def _apply(self, finding: Finding, actor: str) -> Outcome:
        await self._table.applied(
            finding_json(finding), task_id=finding.task_id, grant_id=finding.grant_id, actor=actor
        )
        try:
            return await self._end(finding, actor)
        except (Unavailable, ConfigError) as error:
            log.warning("not reconciled", finding=finding.key, error=error.detail)
            return Outcome.FAILED

    async def _end(self, finding: Finding, actor: str) -> Outcome:
        match finding.action:
            case Action.REVOKE_TOKEN:
                gone = await self._vault.end_token(finding.accessor)
            case Action.REVOKE_LEASE:
                gone = await self._vault.end_lease(finding.subject)
            case Action.END_ACCOUNT:
                target = self._targets[finding.place]
                await target.end(finding.subject)
                gone = finding.subject not in await target.accounts()
            case _:
                gone = await self._end_grant(finding.grant_id, actor)
        return Outcome.DONE if gone else Outcome.UNDER_WAY

    async def _end_grant(self, grant_id: str, actor: str) -> bool:
        """Revoke a grant like any other; first its account, which no lease will end any more."""
        grant = await self._pipeline.queries.grant(grant_id)
        if grant is not None and grant.account:
            for target in self._targets.values():
                if grant.capability in target.capabilities and target.owns(grant.account):
                    await target.end(grant.account)
        marked = await self._pipeline.ledger.begin_revoke(
            [grant_id], reason="reconciled", actor=actor
        )
        return (await self._pipeline.revoke(marked)).revoking == 0


def finding_json(finding: Finding) -> dict[str, Any]:
    """Write a finding, without what could end it."""
    return {
        "kind": finding.kind,
        "place": finding.place,
        "subject": finding.subject,
        "evidence": finding.evidence,
        "action": finding.action,
        "task_id": finding.task_id or None,
        "grant_id": finding.grant_id or None,
    }


def counts_json(result: Result) -> dict[str, Any]:
    """Say how much a run found, by kind, and what became of it."""
    return {
        "applied": result.applied,
        "backend": result.backend or None,
        "agreement": result.agrees,
        "found": dict(Counter(finding.kind for finding, _ in result.findings)),
        "outcomes": dict(Counter(outcome for _, outcome in result.findings)),
        "omitted": result.omitted,
        "problems": list(result.problems),
    }


def report_json(result: Result) -> dict[str, Any]:
    """Write a report as it is kept; ``keys`` are what the next run may act on."""
    return {
        **counts_json(result),
        "at": to_rfc3339(result.at),
        "at_ms": result.at,
        "findings": [
            {**finding_json(finding), "outcome": outcome} for finding, outcome in result.findings
        ],
        "keys": [finding.key for finding, _ in result.findings],
    }
