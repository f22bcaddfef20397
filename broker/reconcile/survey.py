"""The look at all three sides: what is needed of each, read in the order that the comparison needs.

A side that doesn't answer is a problem of the report, and nothing is concluded from its silence.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.backends.token import NAME as TOKEN
from broker.errors import ConfigError, Unavailable
from broker.grants import LIVE, GrantState
from broker.reconcile.compare import LedgerView, TargetView, VaultView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.backends.vault_look import TaskToken, VaultLook
    from broker.grants import Grant
    from broker.ledger.quarantine import QuarantineTable
    from broker.ledger.reconciling import Reconciling
    from broker.pipeline import Pipeline
    from broker.targets.protocol import Target
    from broker.tasks import Task

_SLACK_MS: Final = 60_000
"""How far the clocks of ledger and Vault may be apart."""
_STILL_KNOWN: Final = LIVE | {GrantState.ABANDONED}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of each side, and why something of it wasn't."""

    ledger: LedgerView
    vault: VaultView | None
    targets: Sequence[TargetView]
    unread: frozenset[str]
    """Capabilities that have accounts at a target that didn't answer."""
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Listed:
    """What Vault listed before the ledger was read."""

    tokens: Sequence[TaskToken]
    leases: dict[str, frozenset[str]]


class Survey:
    """Reads all sides."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        table: Reconciling,
        released: QuarantineTable,
        look: VaultLook | None,
        targets: Sequence[Target],
    ) -> None:
        """``look`` is None where there is no Vault.

        What an operator knew of when the last quarantine was ``released`` isn't lost any more.
        """
        self._queries = pipeline.queries
        self._times = pipeline.ledger.times
        self._capabilities = tuple(pipeline.catalog.capabilities.values())
        self._table = table
        self._released = released
        self._look = look
        self._targets = targets
        self._vault = "vault"

    async def see(self, backend: str) -> Seen:
        """Look at all that has to do with a backend, or at everything.

        Raises:
            LedgerUnavailable: without the ledger there is nothing to compare with.
        """
        problems: list[str] = []
        asked = backend in ("", self._vault)
        if not asked and backend != TOKEN:  # whose credentials are the ledger's own
            problems.append(f"{backend}: it doesn't list what it made, so nothing was compared")
        listed, accounts = await asyncio.gather(
            self._list(problems) if asked else _nothing(), self._accounts(problems, asked=asked)
        )
        seen = frozenset[str]().union(*listed.leases.values()) if listed else frozenset[str]()

        def keep(grant: Grant) -> bool:
            return grant.state in _STILL_KNOWN or grant.lease in seen

        grants, now = await self._table.grants(keep), await self._queries.now()
        vault = None
        if listed is not None:
            vault = await self._looked(listed, seen, grants, problems)
        return Seen(
            ledger=LedgerView(
                now=now,
                grants=grants,
                tasks=await self._tasks(listed.tokens if listed else ()),
                mint_ms=max(self._times.pending_ms, _SLACK_MS),
                since=max(now - self._times.retain_ms, await self._released.released_at()),
            ),
            vault=vault,
            targets=accounts,
            unread=self._unread({view.name for view in accounts}),
            problems=problems,
        )

    def _paths(self, names: frozenset[str] | None = None) -> frozenset[str]:
        return frozenset(
            c.path
            for c in self._capabilities
            if c.backend == self._vault and (names is None or c.name in names)
        )

    def _unread(self, read: set[str]) -> frozenset[str]:
        blind = (target.capabilities for target in self._targets if target.name not in read)
        return frozenset[str]().union(*blind)

    async def _list(self, problems: list[str]) -> _Listed | None:
        assert self._look is not None or not self._paths()  # noqa: S101  the configuration says so
        if self._look is None:
            return None
        try:
            tokens = [token async for token in self._look.task_tokens()]
            leases = {
                path: frozenset(await self._look.lease_ids(path)) for path in sorted(self._paths())
            }
        except Unavailable as error:
            problems.append(f"{self._vault}: {error.detail}")
            return None
        return _Listed(tokens, leases)

    async def _looked(
        self,
        listed: _Listed,
        seen: frozenset[str],
        grants: Sequence[Grant],
        problems: list[str],
    ) -> VaultView | None:
        assert self._look is not None  # noqa: S101  it was listed
        fine = {g.lease for g in grants if g.state in _STILL_KNOWN}
        try:
            looked = await self._look.leases(seen - fine)
        except Unavailable as error:
            problems.append(f"{self._vault}: {error.detail}")
            return None
        shared = {
            c.path for c in self._capabilities if c.backend == self._vault and not c.exclusive
        }
        return VaultView(self._vault, listed.tokens, listed.leases, looked, self._paths() - shared)

    async def _accounts(self, problems: list[str], *, asked: bool) -> list[TargetView]:
        views: list[TargetView] = []
        for target in self._targets if asked else ():
            try:
                accounts = await target.accounts()
            except (Unavailable, ConfigError) as error:
                problems.append(f"target {target.name}: {error.detail}")
                continue
            paths = self._paths(target.capabilities)
            views.append(
                TargetView(target.name, target.pattern, accounts, target.capabilities, paths)
            )
        return views

    async def _tasks(self, tokens: Sequence[TaskToken]) -> dict[str, Task]:
        ids = list({token.task for token in tokens})
        found = await asyncio.gather(*map(self._queries.task, ids))
        return {task.id: task for task in found if task is not None}


async def _nothing() -> None:
    return None
