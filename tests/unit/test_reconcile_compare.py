"""The comparison: what is an orphan, what is only in doubt, and what nobody may touch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.backends.vault_look import Lease, TaskToken
from broker.grants import Grant, GrantState
from broker.reconcile.compare import LedgerView, TargetView, VaultView, compare
from broker.reconcile.findings import Action, Finding, Kind
from broker.tasks import Task, TaskState

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW: Final = 1_800_000_000_000
PATH: Final = "database/creds/orders-read"
GRANT: Final = Grant(
    id="grt_1",
    state=GrantState.ACTIVE,
    task_id="tsk_1",
    agent="report-writer",
    orchestrator="orchestrator",
    capability="orders-read",
    backend="vault",
    power="read",
    path=PATH,
    handle="h1",
    created_at=NOW - 500_000,
    expires_at=NOW + 500_000,
    lease=f"{PATH}/a",
    account="v-a",
)
TASK: Final = Task(
    id="tsk_1",
    state=TaskState.ACTIVE,
    agent="report-writer",
    owner="you",
    created_by="orchestrator",
    orchestrator="orchestrator",
    subject="orchestrator",
    purpose="",
    capabilities=("orders-read",),
    parent_id="",
    root_id="tsk_1",
    actors=("report-writer",),
    depth=0,
    created_at=NOW - 500_000,
    expires_at=NOW + 500_000,
    handles={"h1": {"value": "accessor"}},
)
TOKEN: Final = TaskToken("accessor", "tsk_1", "h1", NOW - 400_000)
OLD: Final = Lease(f"{PATH}/b", NOW - 400_000, 100)
PENDING: Final = replace(GRANT, id="grt_2", state=GrantState.PENDING, lease="", account="")
DEAD: Final = replace(GRANT, state=GrantState.REVOKED, ended_at=NOW - 1)
TARGET: Final = TargetView(
    "orders", "v-*", frozenset({"v-a"}), frozenset({"orders-read"}), frozenset({PATH})
)


def findings(
    *grants: Grant,
    tasks: Sequence[Task] = (TASK,),
    tokens: Sequence[TaskToken] = (TOKEN,),
    ids: Sequence[str] = (f"{PATH}/a",),
    looked: Sequence[Lease] = (),
    exclusive: bool = False,
    vault: bool = True,
    target: TargetView | None = None,
    since: int = 0,
) -> list[Finding]:
    ledger = LedgerView(NOW, grants, {task.id: task for task in tasks}, 60_000, since)
    view = VaultView(
        "vault",
        tokens,
        {PATH: frozenset(ids)},
        {lease.id: lease for lease in looked},
        frozenset({PATH} if exclusive else ()),
    )
    return compare(ledger, view if vault else None, [target] if target else [])


def shown(found: Sequence[Finding]) -> list[tuple[Kind, Action]]:
    return [(finding.kind, finding.action) for finding in found]


def test_what_all_sides_have_is_no_finding() -> None:
    assert not findings(GRANT, target=TARGET)


@pytest.mark.parametrize(
    "state", [GrantState.PENDING, GrantState.REVOKING, GrantState.STUCK, GrantState.ABANDONED]
)
def test_only_an_active_grant_can_have_lost_its_lease_or_its_account(state: GrantState) -> None:
    grant = replace(GRANT, state=state)
    bare = replace(TARGET, accounts=frozenset())
    assert not findings(grant, ids=(), target=bare)
    assert shown(findings(replace(grant, state=GrantState.ACTIVE), ids=(), target=bare)) == [
        (Kind.LEASE_GONE, Action.REVOKE_GRANT)
    ]


def test_a_token_is_an_orphan_unless_a_task_that_is_not_closed_knows_it() -> None:
    ended = replace(TASK, state=TaskState.COMPLETED, ended_at=NOW)
    assert not findings(GRANT, tasks=[ended])
    for task in (replace(ended, closed_at=NOW), replace(TASK, handles={})):
        [found] = findings(GRANT, tasks=[task])
        assert (found.kind, found.action, found.lost) == (
            Kind.ORPHAN_TOKEN,
            Action.REVOKE_TOKEN,
            False,
        )
        assert "accessor" not in repr(found)


@pytest.mark.parametrize(("since", "lost"), [(0, True), (TOKEN.created_at, False), (NOW, False)])
def test_a_token_of_a_task_that_cannot_have_been_forgotten_was_lost(since: int, lost: bool) -> None:
    [found] = findings(GRANT, tasks=[], since=since)
    assert (found.kind, found.lost) == (Kind.ORPHAN_TOKEN, lost)


def test_a_lease_whose_grant_is_dead_has_risen_unless_it_is_being_ended() -> None:
    lease = replace(OLD, id=DEAD.lease)
    assert shown(findings(DEAD, looked=[lease])) == [(Kind.RESURRECTED_LEASE, Action.REVOKE_LEASE)]
    assert not findings(DEAD, looked=[replace(lease, ttl_s=0)])
    assert not findings(replace(DEAD, state=GrantState.ABANDONED), looked=[lease])


@pytest.mark.parametrize(
    ("grants", "exclusive", "action"),
    [
        ([GRANT], True, Action.REVOKE_LEASE),
        ([GRANT], False, Action.NONE),
        ([GRANT, PENDING], True, Action.NONE),
    ],
    ids=["the broker's path", "a shared path", "a grant whose lease isn't known"],
)
def test_a_lease_that_nobody_claims_is_ended_only_where_it_can_be_nobody_elses(
    grants: list[Grant], exclusive: bool, action: Action
) -> None:
    ids = (GRANT.lease, OLD.id)
    found = findings(*grants, ids=ids, looked=[OLD], exclusive=exclusive)
    assert shown(found) == [(Kind.UNCLAIMED_LEASE, action)]
    young = replace(OLD, issued_at=NOW - 59_999)
    soon = findings(*grants, ids=ids, looked=[young], exclusive=exclusive)
    # Grants are written before their leases are made: a young one is of one that is there.
    assert shown(soon) == ([] if PENDING in grants else shown(found))


_STRAY: Final = replace(TARGET, accounts=TARGET.accounts | {"v-b"})


@pytest.mark.parametrize(
    ("case", "action"),
    [
        ({}, Action.END_ACCOUNT),
        ({"ids": (GRANT.lease, OLD.id)}, Action.NONE),
        ({"vault": False}, Action.NONE),
        ({"target": replace(_STRAY, paths=frozenset({PATH, "elsewhere"}))}, Action.NONE),
    ],
    ids=["nobody's", "a lease that nobody claims", "no Vault", "a path that wasn't read"],
)
def test_an_account_is_ended_only_if_it_can_be_nobodys(
    case: dict[str, Any], action: Action
) -> None:
    given: dict[str, Any] = {"target": _STRAY, **case}
    [found] = findings(GRANT, **given)
    assert (found.kind, found.subject, found.action) == (Kind.ORPHAN_ACCOUNT, "v-b", action)
    nameless = replace(GRANT, id="grt_3", account="")
    assert shown(findings(GRANT, nameless, target=_STRAY)) == [(Kind.ORPHAN_ACCOUNT, Action.NONE)]


def test_the_account_of_a_lease_that_is_still_there_goes_with_the_lease() -> None:
    lease = replace(OLD, id=DEAD.lease)
    assert shown(findings(DEAD, looked=[lease], target=TARGET)) == [
        (Kind.RESURRECTED_LEASE, Action.REVOKE_LEASE)
    ]
    assert shown(findings(DEAD, ids=(), target=TARGET)) == [
        (Kind.ORPHAN_ACCOUNT, Action.END_ACCOUNT)
    ]


def test_an_account_that_the_pattern_does_not_match_is_not_missed() -> None:
    bare = replace(TARGET, accounts=frozenset())
    assert shown(findings(GRANT, target=bare)) == [(Kind.ACCOUNT_GONE, Action.REVOKE_GRANT)]
    assert not findings(GRANT, target=replace(bare, pattern="w-*"))
    assert not findings(GRANT, target=replace(bare, capabilities=frozenset({"other"})))
    assert not findings(replace(GRANT, expires_at=NOW), target=bare)


def test_an_account_is_missed_only_where_no_target_of_its_capability_has_it() -> None:
    first = replace(TARGET, name="first", accounts=frozenset())
    second = replace(TARGET, name="second")
    ledger = LedgerView(NOW, [GRANT], {TASK.id: TASK}, 60_000, 0)
    assert not compare(ledger, None, [first, second])
    bare = replace(second, accounts=frozenset())
    assert shown(compare(ledger, None, [first, bare])) == [(Kind.ACCOUNT_GONE, Action.REVOKE_GRANT)]
    assert not compare(ledger, None, [first], first.capabilities)
