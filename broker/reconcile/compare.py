"""The comparison itself: what three views of one moment disagree on. No I/O.

The views of backend and target were taken before the ledger's. The ledger is written before
anything exists (steps 4 to 6 of ``pipeline.py``), so what a backend has and the ledger doesn't
know was never known, or was lost. In the other direction a thing may have come between the two
views; whoever acts looks again at the backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from broker.clock import to_rfc3339
from broker.grants import LIVE, Grant, GrantState
from broker.reconcile.findings import Action, Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from broker.backends.vault_look import Lease, TaskToken
    from broker.tasks import Task


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What the ledger knows: grants that are live or whose leases were seen, tasks of tokens seen.

    ``mint_ms`` is how long a lease may exist without being written down. No task that was opened
    after ``since`` can have been forgotten by now. Times are epoch milliseconds.
    """

    now: int
    grants: Sequence[Grant]
    tasks: Mapping[str, Task]
    mint_ms: int
    since: int


@dataclass(frozen=True, slots=True)
class VaultView:
    """What Vault has: our task tokens, and the ids of leases below each path of ours.

    ``looked`` are the leases that were looked up: those the ledger doesn't count as live. One that
    is missing there has gone meanwhile. ``exclusive`` are the paths that nobody else reads.
    """

    name: str
    tokens: Sequence[TaskToken]
    leases: Mapping[str, frozenset[str]]
    looked: Mapping[str, Lease]
    exclusive: frozenset[str]


@dataclass(frozen=True, slots=True)
class TargetView:
    """Which accounts of ours a target has: those that ``pattern`` matches, made for capabilities.

    ``paths`` are where these are read.
    """

    name: str
    pattern: str
    accounts: frozenset[str]
    capabilities: frozenset[str]
    paths: frozenset[str]


def compare(
    ledger: LedgerView,
    vault: VaultView | None,
    targets: Sequence[TargetView],
    unread: frozenset[str] = frozenset(),
) -> list[Finding]:
    """Return everything that the views disagree on. Pending grants are never part of it.

    ``unread`` are capabilities that have accounts at a target besides, which didn't answer.
    """
    found: list[Finding] = []
    doubts = _doubts(ledger, vault)
    if vault is not None:
        found += _tokens(ledger, vault)
        found += _leases(ledger, vault)
        found += _gone(ledger, vault)
    ending = {finding.grant_id for finding in found}
    for target in targets:
        found += _accounts(ledger, vault, target, doubts)
    found += _missing(ledger, targets, unread, ending)
    return found


def _tokens(ledger: LedgerView, vault: VaultView) -> Iterator[Finding]:
    for token in vault.tokens:
        task = ledger.tasks.get(token.task)
        if task is None:
            why = f"the ledger has no task {token.task}"
        elif task.closed_at:
            why = f"all of its task was confirmed dead, {to_rfc3339(task.closed_at)}"
        elif token.handle not in task.handles:
            why = f"its task is {task.state}, and doesn't know it"
        else:
            continue
        yield Finding(
            Kind.ORPHAN_TOKEN,
            vault.name,
            token.handle,
            f"made {to_rfc3339(token.created_at)}: {why}",
            Action.REVOKE_TOKEN,
            task_id=task.id if task else "",
            accessor=token.accessor,
            lost=task is None and token.created_at > ledger.since,
        )


def _leases(ledger: LedgerView, vault: VaultView) -> Iterator[Finding]:
    owners = {grant.lease: grant for grant in ledger.grants if grant.lease}
    unsettled = {g.path for g in ledger.grants if g.state in LIVE and not g.lease}
    for path, ids in vault.leases.items():
        for identifier in sorted(ids & vault.looked.keys()):
            grant, lease = owners.get(identifier), vault.looked[identifier]
            if lease.ttl_s <= 0:  # being ended
                continue
            made = f"made {to_rfc3339(lease.issued_at)}"
            if grant is not None and grant.state is GrantState.REVOKED:
                dead = f"{grant.id} was confirmed dead, {to_rfc3339(grant.ended_at)}"
                yield Finding(
                    Kind.RESURRECTED_LEASE,
                    vault.name,
                    identifier,
                    f"{made}: {dead} by {grant.evidence or 'look-up'}",
                    Action.REVOKE_LEASE,
                    task_id=grant.task_id,
                    grant_id=grant.id,
                )
            elif grant is None:
                if path in unsettled and ledger.now - lease.issued_at < ledger.mint_ms:
                    continue  # it is being written down
                ours = path in vault.exclusive and path not in unsettled
                yield Finding(
                    Kind.UNCLAIMED_LEASE,
                    vault.name,
                    identifier,
                    f"{made}: no grant has it" + ("" if ours else f"; {_whose(path, unsettled)}"),
                    Action.REVOKE_LEASE if ours else Action.NONE,
                )


def _whose(path: str, unsettled: set[str]) -> str:
    if path in unsettled:
        return "a grant whose lease isn't known may"
    return "whoever else reads the path may"


def _gone(ledger: LedgerView, vault: VaultView) -> Iterator[Finding]:
    for grant in ledger.grants:
        seen = vault.leases.get(grant.path)
        if (
            seen is not None
            and grant.backend == vault.name
            and grant.state is GrantState.ACTIVE
            and grant.expires_at > ledger.now
            and grant.lease.startswith(f"{grant.path}/")
            and grant.lease not in seen
        ):
            yield Finding(
                Kind.LEASE_GONE,
                vault.name,
                grant.id,
                f"active until {to_rfc3339(grant.expires_at)}: Vault has no lease {grant.lease}",
                Action.REVOKE_GRANT,
                task_id=grant.task_id,
                grant_id=grant.id,
            )


def _doubts(ledger: LedgerView, vault: VaultView | None) -> dict[str, str]:
    """Return, by path, why something there may be somebody's although no grant says so."""
    doubts: dict[str, str] = {}
    for grant in ledger.grants:
        if grant.state in LIVE and not grant.account:
            doubts.setdefault(grant.path, f"{grant.id}, whose account isn't known, may have it")
    if vault is not None:
        owned = {grant.lease for grant in ledger.grants if grant.lease}
        for path, ids in vault.leases.items():
            for identifier in ids - owned:
                doubts.setdefault(path, f"lease {identifier}, which no grant has, may be its")
    return doubts


def _accounts(
    ledger: LedgerView, vault: VaultView | None, target: TargetView, doubts: Mapping[str, str]
) -> Iterator[Finding]:
    # Also whoever's lease is still there, however dead its grant, and whoever was given up.
    leases = frozenset[str]().union(*vault.leases.values() if vault is not None else ())
    owners = {
        grant.account
        for grant in ledger.grants
        if grant.account
        and (grant.state in LIVE or grant.state is GrantState.ABANDONED or grant.lease in leases)
    }
    unread = (
        "" if vault is not None and target.paths <= vault.leases.keys() else "Vault wasn't read"
    )
    doubt = unread or next((doubts[p] for p in sorted(target.paths) if p in doubts), "")
    for account in sorted(target.accounts - owners):
        yield Finding(
            Kind.ORPHAN_ACCOUNT,
            target.name,
            account,
            f"no live grant has it{f'; {doubt}' if doubt else ''}",
            Action.NONE if doubt else Action.END_ACCOUNT,
        )


def _missing(
    ledger: LedgerView, targets: Sequence[TargetView], unread: frozenset[str], ending: set[str]
) -> Iterator[Finding]:
    for grant in ledger.grants:
        # Where a capability has several targets, such as the nodes of one system, it is at one.
        places = [
            target
            for target in targets
            if grant.capability in target.capabilities
            and fnmatchcase(grant.account, target.pattern)
        ]
        if (
            places
            and grant.state is GrantState.ACTIVE
            and grant.expires_at > ledger.now
            and grant.capability not in unread
            and not any(grant.account in target.accounts for target in places)
            and grant.id not in ending
        ):
            yield Finding(
                Kind.ACCOUNT_GONE,
                places[0].name,
                grant.id,
                f"active until {to_rfc3339(grant.expires_at)}: no account {grant.account} there",
                Action.REVOKE_GRANT,
                task_id=grant.task_id,
                grant_id=grant.id,
            )
