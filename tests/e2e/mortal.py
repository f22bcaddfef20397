"""A replica that can be killed at a step, and what the real servers and the log say of its work."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from broker.grants import GRANT_MOVES, LIVE, GrantState
from broker.ledger.models import LedgerTimes
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.config import Config
    from broker.dev.issuer import DevIssuer
    from broker.events import Event
    from broker.grants import Grant
    from broker.ledger.redis import RedisLedger
    from broker.steps import Step

SHORT_MS: Final = 200
"""Claims and pending grants come due this soon: here nothing is under way but what we started."""


class Killed(BaseException):
    """The replica is dead: no ``except Exception`` of its own saves it."""


class Replica:
    """One process of the broker. ``bomb`` kills it before a step; a dead one takes no more steps.

    What was in its memory, such as the tokens of its tasks, is lost with it.
    """

    def __init__(self, issuer: DevIssuer, config: Config) -> None:
        self.bomb: Step | None = None
        self.watch: Callable[[Step], None] = lambda _: None
        self.dead = False
        self.world = World(issuer, _hasty(config), before_step=self._before)
        self.pipeline = self.world.app.pipeline
        self.queries = self.pipeline.queries
        self.ledger: RedisLedger = self.pipeline.ledger
        self.ledger.times = LedgerTimes(claim_ms=SHORT_MS, pending_ms=SHORT_MS)

    def _before(self, step: Step) -> None:
        self.watch(step)
        if step is self.bomb:
            self.dead = True
        if self.dead:
            raise Killed

    async def attempt(self, work: Awaitable[Any]) -> Any:
        """Do something until it is done or the replica dies of it, then let its work run out."""
        answer = None
        with contextlib.suppress(Killed):
            answer = await work
        await self.pipeline.work.drain(20)
        return answer

    async def claim_ahead(self, ahead_ms: int) -> None:
        """One round of what a sweep would do ``ahead_ms`` from now.

        Not ``Reaper.sweep(horizon_ms=…)``: that claims again and again what is to be retried
        before the horizon, such as a lost grant that waits for its siblings.
        """
        horizon = await self.queries.now() + ahead_ms
        due = await self.queries.next_due()
        shards = [shard for shard, at in due.items() if at <= horizon]
        claimed = await self.ledger.claim_due(shards, limit=1000, horizon_ms=horizon)
        for grant in claimed.grants:
            self.pipeline.work.spawn(self.pipeline.revoke_claimed(grant))
        for task in claimed.tasks:
            self.pipeline.work.spawn(self.pipeline.close(task))

    async def settle(self) -> None:
        """Sweep until all that can be brought to its end has been."""

        async def settled() -> bool:
            await self.world.app.reaper.sweep()
            await self.pipeline.work.drain(20)
            return not await self.unsettled()

        await wait_until(settled, "everything settled", within_s=15)

    async def unsettled(self) -> list[object]:
        """Ended tasks that aren't closed, and grants on their way.

        A grant whose lease was never learnt may wait for others made with the same task token.
        """
        tasks = (await self.queries.tasks(lambda t: bool(t.ended_at), limit=500)).items
        grants = await self.grants()
        left: list[object] = [task for task in tasks if not task.closed_at]
        for grant in grants.values():
            waits = any(
                other.handle == grant.handle and other.lease and other.state in LIVE
                for other in grants.values()
            )
            moving = grant.state in LIVE - {GrantState.ACTIVE}
            if moving and (grant.lease or not waits):
                left.append(grant)
        return left

    async def grants(self) -> dict[str, Grant]:
        """Every grant in the ledger."""
        page = await self.queries.grants(lambda _: True, limit=1000)
        assert page.next is None
        return {grant.id: grant for grant in page.items}

    async def events(self) -> list[Event]:
        """The whole audit log, page by page."""
        found: list[Event] = []
        while True:
            after = found[-1].id if found else ""
            page = await self.queries.events(after=after, limit=200)
            found += page.items
            if page.next is None:
                return found

    async def introspects(self, token: str) -> bool:
        """Whether the resource server is told that a token is alive."""
        bearer = {"Authorization": f"Bearer {await self.world.token('orders-service')}"}
        answer = await self.world.http.post(
            "/oauth/introspect", data={"token": token}, headers=bearer
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["active"]

    async def close(self) -> None:
        await self.world.close()


def replay(events: list[Event]) -> dict[str, GrantState]:
    """Play the log's moves of every grant by the table; return where each must stand now."""
    states: dict[str, GrantState] = {}
    moves = {
        "grant.activated": GrantState.ACTIVE,
        "grant.failed": GrantState.FAILED,
        "grant.revoking": GrantState.REVOKING,
        "grant.stuck": GrantState.STUCK,
        "grant.revoked": GrantState.REVOKED,
    }
    for event in events:
        if event.type == "grant.reserved":
            assert event.grant_id not in states
            states[event.grant_id] = GrantState.PENDING
        elif to := moves.get(event.type):
            was = states[event.grant_id]
            assert to in GRANT_MOVES[was], f"{event.grant_id}: {was} → {to}"
            assert event.data.get("from", was) == was
            states[event.grant_id] = to
    return states


def _hasty(config: Config) -> Config:
    """The same configuration with retries that don't keep a test waiting."""
    revocation = config.revocation.model_copy(update={"backoff": 50, "max_backoff": 100})
    return config.model_copy(update={"revocation": revocation})


async def gathered(*work: Awaitable[bool]) -> list[bool]:
    return list(await asyncio.gather(*work))
