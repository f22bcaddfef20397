"""Step 8, for policy: live grants are decided again, and those no longer allowed are revoked.

Asked when other policies come into force, and when something is reported of an agent, a task or an
owner. Policies that can't be evaluated, such as when a decision point elsewhere is down, are no
reason to stop all work: what can't be decided about stays, whoever asked for the review is told,
and it is asked again until it is decided.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from broker.again import decided_again
from broker.errors import NotFound, Unavailable
from broker.grants import GrantState
from broker.logs import get_logger
from broker.policy.policies import POLICY_ERROR
from broker.steps import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.grants import Grant
    from broker.pipeline import Pipeline

log = get_logger("watch")
_CHUNK: Final = 200
"""Grants read, decided and marked together."""
_RETRY_S: Final = 5


class Watch:
    """Decides again."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Revoke through the one pipeline."""
        self._pipeline = pipeline

    async def review(self, selector: str = "", *, reason: str) -> Outcome:
        """Decide the live grants of ``task:ID``, ``agent:NAME``, ``owner:OWNER``, or all, again.

        A task's include those of every task below it, an orchestrator's those of its chains.
        Returns what became of those revoked.

        Raises:
            Unavailable: some could not be decided about; those that could have been.
        """
        kind, _, value = selector.partition(":")
        chains = self._pipeline.queries.chains
        if kind:
            members = await chains.below(await chains.of(kind, value))
            ids = [grant.id for grant in await chains.grants(m.task.id for m in members)]
        else:
            ids = await self._pipeline.queries.live_under("gc|")
        undecided = 0
        reviewed: list[asyncio.Task[Outcome]] = []
        for start in range(0, len(ids), _CHUNK):
            # What is refused goes at once, however many there are still to be decided.
            refused, unclear = await self._refused(ids[start : start + _CHUNK])
            undecided += unclear
            marked = await self._pipeline.ledger.begin_revoke(
                refused, reason=reason, actor="broker"
            )
            reviewed.append(self._pipeline.work.spawn(self._pipeline.revoke(marked)))
        outcomes = await asyncio.gather(*reviewed)
        if undecided:
            log.error("live grants can't be decided about", grants=undecided, reason=reason)
            msg = (
                f"{undecided} live grants could not be decided about, since the policies can't be "
                "evaluated; that is tried again. Revoke them if you don't want to wait."
            )
            raise Unavailable(msg, retry_after=_RETRY_S)
        return sum(outcomes, Outcome())

    async def _refused(self, ids: Sequence[str]) -> tuple[list[str], int]:
        """Return which of some grants policy doesn't allow any more, and how many it can't tell."""
        by_task: defaultdict[str, list[Grant]] = defaultdict(list)
        for grant in await self._pipeline.queries.chains.grant_rows(ids):
            if grant.state in (GrantState.PENDING, GrantState.ACTIVE):
                by_task[grant.task_id].append(grant)
        refused: list[str] = []
        unclear = 0
        for task_id, grants in by_task.items():
            try:
                task, survey = await self._pipeline.judge.actions.survey(task_id)
            except NotFound:
                continue
            for grant in grants:
                decision = await decided_again(
                    self._pipeline.judge,
                    grant,
                    task,
                    survey,
                    durable=self._pipeline.ledger_durable,
                )
                await asyncio.sleep(0)  # each takes Cedar a while, and others wait for their turn
                if decision is None or decision.allowed:
                    continue
                if POLICY_ERROR in decision.reasons:
                    unclear += 1
                else:
                    refused.append(grant.id)
        return refused, unclear
