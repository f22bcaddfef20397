"""Step 8, for policy: live grants are decided again, and those no longer allowed are revoked.

Asked when other policies come into force, and when something is reported of an agent, a task or an
owner. A grant that can't be decided about stays: issuing fails closed, and so does revoking what
policy itself says no to; but policies that can't be evaluated are no reason to stop all work.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from broker.errors import NotFound
from broker.grants import GrantState
from broker.logs import get_logger
from broker.policy.policies import POLICY_ERROR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.grants import Grant
    from broker.pipeline import Pipeline
    from broker.steps import Outcome

log = get_logger("watch")
_CHUNK: Final = 200
"""Grants decided before others get their turn: some tens of milliseconds."""


class Watch:
    """Decides again."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Revoke through the one pipeline."""
        self._pipeline = pipeline

    async def review(self, selector: str = "", *, reason: str) -> Outcome:
        """Decide the live grants of ``task:ID``, ``agent:NAME``, ``owner:OWNER``, or all, again.

        A task's include those of every task below it, an orchestrator's those of its chains.
        Returns what became of those revoked.
        """
        kind, _, value = selector.partition(":")
        chains = self._pipeline.queries.chains
        if kind:
            members = await chains.below(await chains.of(kind, value))
            ids = [grant.id for grant in await chains.grants(m.task.id for m in members)]
        else:
            ids = await self._pipeline.queries.live_under("gc|")
        refused = await self._refused(ids)
        marked: list[Grant] = []
        for start in range(0, len(refused), _CHUNK):
            chunk = refused[start : start + _CHUNK]
            marked += await self._pipeline.ledger.begin_revoke(chunk, reason=reason, actor="broker")
        return await self._pipeline.revoke(marked)

    async def _refused(self, ids: Iterable[str]) -> list[str]:
        """Return those of some grants that policy doesn't allow any more."""
        by_task: defaultdict[str, list[Grant]] = defaultdict(list)
        for grant_id in ids:
            grant = await self._pipeline.queries.grant(grant_id)
            if grant is not None and grant.state in (GrantState.PENDING, GrantState.ACTIVE):
                by_task[grant.task_id].append(grant)
        refused: list[str] = []
        decided = 0
        for task_id, grants in by_task.items():
            try:
                task, survey = await self._pipeline.judge.actions.survey(task_id)
            except NotFound:
                continue
            for grant in grants:
                decision = await self._pipeline.judge.again(
                    grant, task, survey, durable=self._pipeline.ledger_durable
                )
                if decision is None or decision.allowed:
                    continue
                if POLICY_ERROR in decision.reasons:
                    log.error("a live grant can't be decided about", grant=grant.id)
                    continue
                refused.append(grant.id)
                decided += 1
                if decided % _CHUNK == 0:
                    await asyncio.sleep(0)
        return refused
