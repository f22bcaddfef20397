"""Shutting accounts out where they are, before the backend is asked to end them.

Vault ends the accounts of one database one after another, and none while it is away. A target of
the configuration takes many of them the login, and ends their sessions, in one go. That hastens
their death and proves nothing: steps 9 and 10 of ``pipeline.py`` follow all the same, and a target
that fails holds them up for ``LONGEST_S`` at most.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Final

from broker.catalog import Revocability
from broker.errors import Unavailable
from broker.lanes import Way
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.clock import Clock
    from broker.grants import Grant
    from broker.metrics import Metrics
    from broker.targets.protocol import Target

log = get_logger("lockout")
LONGEST_S: Final = 2.0
"""How long revoking waits for a target."""
_SHUT_S: Final = 30.0
"""A target that failed is let alone for so long at most."""
_MOST: Final = 200
"""Accounts that one call names: what the target locks meanwhile is soon free again."""


class Lockout:
    """Shuts the account of a grant that is to be revoked out of every target that it is at."""

    def __init__(self, targets: Iterable[Target], clock: Clock, metrics: Metrics) -> None:
        """Of ``targets`` those that have accounts shut out."""
        self._doors = [_Door(target, clock, metrics) for target in targets if target.lockout]

    async def shut(self, grant: Grant) -> None:
        """Return once a grant's account is shut out, or that is given up. It raises nothing.

        That of a static secret isn't: it is others' too, and nobody would let it in again.
        """
        if grant.revocability == Revocability.NEVER:
            return
        doors = [door for door in self._doors if door.target.is_of(grant)]
        if doors:
            places = [door.ask(grant.account) for door in doors]
            await asyncio.wait(places, timeout=LONGEST_S)

    async def close(self) -> None:
        """Close connections."""
        for door in self._doors:
            await door.target.close()


class _Door:
    """One target. While it is busy with some accounts, others wait, and then go together."""

    def __init__(self, target: Target, clock: Clock, metrics: Metrics) -> None:
        self.target = target
        self._way = Way(clock, _SHUT_S)
        self._metrics = metrics
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._busy: asyncio.Task[None] | None = None

    def ask(self, account: str) -> asyncio.Future[None]:
        """Have an account shut out with the next that are; what is returned ends when they are."""
        place = self._waiting.setdefault(account, asyncio.get_running_loop().create_future())
        if self._busy is None:
            self._busy = asyncio.ensure_future(self._work())
        return place

    async def _work(self) -> None:
        try:
            while accounts := list(islice(self._waiting, _MOST)):
                places = [self._waiting.pop(account) for account in accounts]
                if not self._way.shut_for:
                    await self._shut(accounts)
                for place in places:
                    place.set_result(None)
        finally:
            self._busy = None

    async def _shut(self, accounts: Sequence[str]) -> None:
        kept_in: Sequence[str] = accounts
        try:
            async with asyncio.timeout(LONGEST_S):
                kept_in = await self.target.shut(accounts)
        except (Unavailable, TimeoutError) as error:
            self._way.failed()
            why = error.detail if isinstance(error, Unavailable) else "it takes too long"
            log.warning(
                "accounts not shut out; they end as the backend ends them",
                target=self.target.name,
                accounts=len(accounts),
                error=why,
            )
        except Exception:  # whoever revokes goes on
            self._way.failed()
            log.exception("shutting out failed", target=self.target.name)
        else:
            self._way.answered()
            if kept_in:
                log.warning(
                    "accounts not shut out: the target's login may not change them",
                    target=self.target.name,
                    accounts=sorted(kept_in),
                )
        self._metrics.shut_out(len(accounts) - len(kept_in), done=True)
        self._metrics.shut_out(len(kept_in), done=False)
