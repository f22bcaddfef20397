"""What operators do to everybody: revoke by selector, freeze, thaw, read the log."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from broker.errors import Conflict, InvalidRequest, NotFound
from broker.event_search import Wanted, search
from broker.grants import WAITING, GrantState
from broker.ids import new_id
from broker.ledger.models import Claimed
from broker.previews import Previews
from broker.tasks import Task, TaskState
from broker.visibility import must_operate, must_see_all
from broker.wire import event_json, freeze_json, page_json

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.grants import Grant
    from broker.pipeline import Pipeline
    from broker.steps import Outcome
    from broker.wire import Freeze, Revoke, Selector
    from broker.wire_grants import AbandonGrant, RetryGrant

_CHUNK = 500
"""Grants marked by one script: it holds up the shard for a few milliseconds at most."""


class Operators:
    """The operations of operators and auditors."""

    def __init__(self, pipeline: Pipeline, shards: int) -> None:
        """``shards`` is the ledger's."""
        self._pipeline = pipeline
        self._ledger = pipeline.ledger
        self._queries = pipeline.queries
        self._shards = shards
        self._previews = Previews(pipeline)

    async def preview(self, caller: Caller, selector: Selector) -> dict[str, Any]:
        """Say what revoking by a selector would end, or what isn't dead of it yet."""
        must_operate(caller)
        return await self._previews.of(selector)

    async def revoke(self, caller: Caller, ask: Revoke) -> tuple[str, Outcome]:
        """Revoke everything a selector matches, and with ``freeze`` stop more from coming."""
        must_operate(caller)
        judge = self._pipeline.judge
        await judge.operate(caller, "revoke", ask.selector.field, always=True)
        shard = secrets.randbelow(self._shards)
        revocation_id = new_id("rev", shard)
        if ask.freeze:
            await self._freeze(caller, ask.selector, ask.reason, shard)
        about = {
            "id": revocation_id,
            "selector": ask.selector.field,
            "reason": ask.reason,
            "freeze": ask.freeze,
        }
        await self._ledger.record("revocation", shard=shard, actor=caller.name, data=about)
        claimed = await self._select(caller, ask.selector, ask.reason)
        return revocation_id, await self._pipeline.revoke_and_close(claimed)

    async def _select(self, caller: Caller, selector: Selector, reason: str) -> Claimed:
        """Mark what a selector matches. Whose tasks they are loses the tasks, not only grants."""
        kind, value = selector.item
        match kind:
            case "grant_id":
                if await self._queries.grant(value) is None:
                    raise NotFound("There is no such grant.")
                return await self._mark_grants(caller, [value], reason)
            case "task_id":
                return await self._end_tasks(caller, [value], reason)
            case "agent" | "owner":
                prefix = {"agent": "ta", "owner": "to"}[kind]
                ids = await self._queries.live_under(f"{prefix}|{value}|")
                return await self._end_tasks(caller, ids, reason)
            case "all":
                ids = await self._queries.live_under("ta|")
                ended = await self._end_tasks(caller, ids, reason)
                left = await self._mark_grants(
                    caller, await self._queries.live_under("gc|"), reason
                )
                seen = {grant.id for grant in ended.grants}
                more = tuple(grant for grant in left.grants if grant.id not in seen)
                return Claimed(ended.tasks, ended.grants + more)
            case "backend":
                return await self._mark_grants(
                    caller, await self._queries.live_under(f"gc|{value}|"), reason
                )
            case _:
                ids = [
                    grant_id
                    for backend in self._pipeline.backends
                    for grant_id in await self._queries.live_under(f"gc|{backend}|{value}|")
                ]
                return await self._mark_grants(caller, ids, reason)

    async def _end_tasks(self, caller: Caller, ids: list[str], reason: str) -> Claimed:
        tasks: list[Task] = []
        grants: list[Grant] = []
        for task_id in ids:
            _, claimed = await self._ledger.end_task(
                task_id, TaskState.REVOKED, reason=reason, actor=caller.name
            )
            tasks += claimed.tasks
            grants += claimed.grants
            if not claimed.tasks:
                # Ended before and not all dead yet: take over what is left.
                left = [grant.id for grant in await self._queries.grants_of(task_id)]
                grants += (await self._mark_grants(caller, left, reason)).grants
        return Claimed(tuple(tasks), tuple(grants))

    async def _mark_grants(self, caller: Caller, ids: list[str], reason: str) -> Claimed:
        grants: list[Grant] = []
        for start in range(0, len(ids), _CHUNK):
            grants += await self._ledger.begin_revoke(
                ids[start : start + _CHUNK], reason=reason, actor=caller.name
            )
        return Claimed(grants=tuple(grants))

    async def retry(self, caller: Caller, grant: Grant, ask: RetryGrant) -> Grant:
        """Have the next attempt to revoke a grant made now."""
        must_operate(caller)
        await self._pipeline.judge.operate(caller, "retry", f"grant:{grant.id}", always=True)
        after = await self._ledger.retry(grant, reason=ask.reason or "", actor=caller.name)
        if after.state not in WAITING:
            raise Conflict(
                f"The grant is {after.state}: nothing waits to be tried again.",
                state=str(after.state),
            )
        self._pipeline.lanes.of(after.backend, after.capability).probe_now()
        return after

    async def abandon(self, caller: Caller, grant: Grant, ask: AbandonGrant) -> Grant:
        """Give a grant up, for good, by a statement of who and why; it may live on."""
        must_operate(caller)
        await self._pipeline.judge.operate(caller, "abandon", f"grant:{grant.id}")
        if grant.state in WAITING:
            statement = f"{caller.name}: {ask.reason}"
            grant = await self._ledger.abandon(grant, statement=statement, actor=caller.name)
            if grant.state is GrantState.ABANDONED:
                self._pipeline.steps.over(grant)
                return grant
        msg = f"The grant is {grant.state}: only what is being revoked can be given up."
        raise Conflict(msg, state=str(grant.state))

    async def freeze(self, caller: Caller, ask: Freeze) -> None:
        """Stop issuing for a selector; what is live stays so."""
        must_operate(caller)
        judge = self._pipeline.judge
        await judge.operate(caller, "freeze", ask.selector.field, always=True)
        await self._freeze(caller, ask.selector, ask.reason, secrets.randbelow(self._shards))

    async def _freeze(self, caller: Caller, selector: Selector, reason: str, shard: int) -> None:
        if selector.item[0] == "grant_id":
            raise InvalidRequest("A grant can't be frozen: it was issued already. Revoke it.")
        record = {"by": caller.name, "reason": reason, "at": await self._queries.now()}
        await self._ledger.freeze(
            selector.field, record=record, actor=caller.name, event_shard=shard
        )

    async def thaw(self, caller: Caller, ask: Freeze) -> None:
        """Allow issuing for a selector again."""
        must_operate(caller)
        await self._pipeline.judge.operate(caller, "thaw", ask.selector.field)
        if ask.selector.field not in await self._queries.freezes():
            raise NotFound(f"{ask.selector.field!r} is not frozen.")
        await self._ledger.freeze(
            ask.selector.field,
            record=None,
            actor=caller.name,
            event_shard=secrets.randbelow(self._shards),
            reason=ask.reason,
        )

    async def freezes(self, caller: Caller) -> dict[str, Any]:
        """Return what is frozen."""
        must_see_all(caller)
        rows = await self._queries.freezes()
        return page_json([freeze_json(field, row) for field, row in sorted(rows.items())], None)

    async def events(
        self,
        caller: Caller,
        *,
        task_id: str,
        after: str,
        limit: int,
        kind: str = "",
        principal: str = "",
        text: str = "",
    ) -> dict[str, Any]:
        """Return audit events, oldest first: of a ``kind``, such as ``grant`` or ``grant.revoked``.

        ``text`` is looked for in all that an event says. A page is short, or empty, and has a
        ``next`` all the same, where little of what was read matches.
        """
        must_see_all(caller)
        since = 0
        if task_id and (task := await self._queries.task(task_id)):
            since = task.created_at
        page = await search(
            self._queries,
            Wanted(kind, principal, text),
            after=after,
            task_id=task_id,
            since_ms=since,
            limit=limit,
        )
        return page_json([event_json(event) for event in page.items], page.next)

    async def event(self, caller: Caller, event_id: str) -> dict[str, Any]:
        """Return one event."""
        must_see_all(caller)
        found = await self._queries.event(event_id)
        if found is None:
            raise NotFound("There is no such event in the ledger; `broker audit` looks into files.")
        return event_json(found)
