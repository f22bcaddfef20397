"""What every backend does, whatever it makes. The numbers are of the pitfalls that tests are for.

 2. Revoked is gone: looked up, and tried where it is for.
 3. Sessions that are open end too.
 5. What isn't there (any more) has been revoked.
 6. Grants share nothing.
 8. Many may end at once while others are issued.
24. Secrets are wrapped.
28. Asking at once makes no more than asking once.
29. Starting asks nothing of anybody.
30. A server that is away is an error, and neither a yes nor a no.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.backends.protocol import Renewable
from broker.errors import BrokerError, InvalidRequest, NotRenewable, Unavailable
from broker.testing.case import Case, revealed, secrets_of

if TYPE_CHECKING:
    from broker.testing.target import Target

_SEVERAL = 5


@pytest.mark.asyncio
class BackendContract:
    """Inherit this, name the class ``Test…``, and give it a fixture ``target``."""

    @pytest.fixture
    def case(self, target: Target) -> Case:
        """A task that has the capability, and a fresh replica's backend."""
        ledger = target.ledger()
        return Case(target, ledger, target.backend(ledger))

    # Issuing.

    async def test_a_credential_works_lives_and_hides_its_secrets(self, case: Case) -> None:
        """24."""
        grant, minted = await case.issue()

        assert case.backend.name == case.capability.backend
        assert minted.lease
        assert minted.lifetime_ms > 0
        assert minted.type
        assert await case.backend.is_live(grant)
        assert await case.works(minted)
        secrets = secrets_of(minted)
        assert secrets, "nothing of it is wrapped in Secret"
        shown = repr(minted), repr(grant), repr(case.backend), case.backend.evidence(grant)
        assert not any(secret in text for secret in secrets for text in shown)
        assert not any(secret in (minted.lease, minted.account) for secret in secrets)

    async def test_what_is_prepared_can_kill_it_before_it_exists(self, case: Case) -> None:
        prepared = await case.prepare()

        assert prepared.handle or prepared.lease
        if prepared.handle:
            assert prepared.handle in (await case.ledger.task()).handles
        if prepared.lease:
            assert (await case.mint(await case.reserve(prepared))).lease == prepared.lease

    async def test_preparing_at_once_gives_each_grant_something_that_kills_it(
        self, case: Case
    ) -> None:
        """28."""
        prepared = await asyncio.gather(*(case.prepare() for _ in range(_SEVERAL)))

        leases = [p.lease for p in prepared if p.lease]
        handles = {p.handle for p in prepared if p.handle}
        assert len(set(leases)) == len(leases)
        assert len(leases) == _SEVERAL or len(handles) == 1

    async def test_grants_share_nothing(self, case: Case) -> None:
        """6."""
        issued = await asyncio.gather(*(case.issue() for _ in range(_SEVERAL)))

        assert len({grant.lease for grant, _ in issued}) == _SEVERAL
        assert len({tuple(secrets_of(minted)) for _, minted in issued}) == _SEVERAL
        accounts = [grant.account for grant, _ in issued if grant.account]
        assert len(set(accounts)) == len(accounts)

    async def test_a_parameter_that_it_does_not_know_is_refused_by_name(self, case: Case) -> None:
        with pytest.raises(InvalidRequest) as caught:
            case.backend.check(case.capability, {"no-such-parameter": "x"})
        assert str(caught.value.extra["field"]).startswith("parameters")
        case.backend.check(case.capability, {})

    # Revoking.

    async def test_revoked_it_neither_lives_nor_works(self, case: Case) -> None:
        """2."""
        grant, minted = await case.issue()

        await case.backend.revoke(grant)

        assert await case.dead(grant, minted)
        assert re.fullmatch("[a-z_]+", case.backend.evidence(grant))

    async def test_an_open_session_ends_with_it(self, case: Case) -> None:
        """3."""
        grant, minted = await case.issue()
        answers = await case.target.session(revealed(minted))
        if answers is None:
            pytest.skip("this kind has no sessions")
        assert await answers()

        await case.backend.revoke(grant)

        assert not await answers()
        assert await case.dead(grant, minted)

    async def test_revoking_twice_or_at_once_is_success(self, case: Case) -> None:
        """5."""
        grant, minted = await case.issue()

        await asyncio.gather(*(case.backend.revoke(grant) for _ in range(3)))
        await case.backend.revoke(grant)

        assert await case.dead(grant, minted)

    async def test_revoking_what_never_existed_is_success(self, case: Case) -> None:
        """5."""
        grant, minted = await case.issue()
        never = replace(grant, lease=case.target.unknown_lease(grant))
        assert never.lease != grant.lease

        await case.backend.revoke(never)

        assert not await case.backend.is_live(never)
        assert await case.backend.is_live(grant)
        assert await case.works(minted)

    async def test_revoking_what_its_target_has_lost_is_success(self, case: Case) -> None:
        """5."""
        grant, minted = await case.issue()
        if not await case.target.lose(grant, revealed(minted)):
            pytest.skip("its target can't lose one by itself")
        assert not await case.works(minted)

        await case.backend.revoke(grant)

        assert await case.dead(grant, minted)

    async def test_one_that_renews_says_for_how_long_and_only_while_it_lives(
        self, case: Case
    ) -> None:
        grant, minted = await case.issue()
        if not isinstance(case.backend, Renewable):
            return  # a rotation issues another

        for asked_ms in (7_200_000, 7_200_000, 600_000):
            assert 0 < await case.backend.renew(grant, asked_ms) <= asked_ms
        assert await case.works(minted)

        await case.backend.revoke(grant)
        with pytest.raises(NotRenewable):
            await case.backend.renew(grant, 600_000)
        assert not await case.backend.is_live(grant)
        assert not await case.works(minted)

    async def test_revoking_one_leaves_its_siblings_alone(self, case: Case) -> None:
        (one, first), (other, second) = await case.issue(), await case.issue()

        await case.backend.revoke(one)

        assert await case.dead(one, first)
        assert await case.backend.is_live(other)
        assert await case.works(second)

    async def test_many_end_at_once_while_others_are_issued(self, case: Case) -> None:
        """8."""
        ending = await asyncio.gather(*(case.issue() for _ in range(_SEVERAL)))

        async def issue_more() -> list[bool]:
            return [await case.works((await case.issue())[1]) for _ in range(3)]

        more = asyncio.ensure_future(issue_more())
        await asyncio.gather(*(case.backend.revoke(grant) for grant, _ in ending))

        assert all(await more)
        assert all([await case.dead(grant, minted) for grant, minted in ending])

    async def test_another_replica_sees_it_and_ends_it(self, case: Case) -> None:
        grant, minted = await case.issue()
        other = case.elsewhere()
        assert await other.backend.is_live(grant)

        await other.backend.revoke(grant)

        assert not await other.backend.is_live(grant)
        assert await case.dead(grant, minted)

    async def test_rotating_leaves_what_is_live_alive_and_revocable(self, case: Case) -> None:
        grant, minted = await case.issue()

        done = {await case.backend.rotate(case.capability) for _ in "12"}

        assert done in ({True}, {False})
        assert await case.works(minted)
        other, second = await case.issue()
        for each, its in ((grant, minted), (other, second)):
            await case.backend.revoke(each)
            assert await case.dead(each, its)

    # What was lost, and what it hangs from.

    async def test_what_was_minted_and_never_recorded_dies_by_what_was_prepared(
        self, case: Case
    ) -> None:
        """A crash between minting and recording: the lease was never learnt."""
        grant = await case.reserve()
        minted = await case.mint(grant)

        if grant.handle:
            task = await case.ledger.task()
            await case.backend.revoke_handle(task, grant.handle)
            await case.end_handle(task, grant.handle, grant)
        else:
            await case.backend.revoke(grant)

        assert await case.dead(replace(grant, lease=minted.lease), minted)

    async def test_a_handle_that_never_existed_is_dead_and_may_be_revoked(self, case: Case) -> None:
        """5."""
        task = await case.ledger.task()
        await case.backend.revoke_handle(task, "feedfeedfeed")

        assert not await case.backend.handle_is_live(task, "feedfeedfeed", [])

    async def test_what_is_forgotten_is_made_anew_and_the_old_goes_on(self, case: Case) -> None:
        grant, minted = await case.issue()

        case.backend.forget(grant.task_id)
        case.backend.forget("tsk_unknown")

        other, second = await case.issue()
        assert (other.handle, other.lease) != (grant.handle, grant.lease)
        assert await case.works(minted)
        assert await case.works(second)

    async def test_what_is_made_for_a_task_that_ends_meanwhile_can_be_ended_too(
        self, case: Case
    ) -> None:
        grant = await case.reserve()
        await case.ledger.end()

        try:
            minted = await case.mint(grant)
        except BrokerError:
            return  # so nothing is
        issued = replace(grant, lease=minted.lease)
        await case.backend.revoke(issued)
        assert await case.dead(issued, minted)

    # Under an elevation.

    async def test_under_an_elevation_a_task_gets_what_its_own_list_does_not_have(
        self, case: Case
    ) -> None:
        grant, minted = await case.issue(await case.prepare_under(*await case.elevate()))

        assert await case.works(minted)
        await case.backend.revoke(grant)
        assert await case.dead(grant, minted)

    async def test_what_kills_it_is_of_one_elevation_and_the_ledger_says_of_which(
        self, case: Case
    ) -> None:
        own = await case.prepare()
        windows = dict([await case.elevate() for _ in "12"])
        first = {e: await case.prepare_under(e, until) for e, until in windows.items()}
        again = await asyncio.gather(
            *(case.prepare_under(e, until) for e, until in windows.items() for _ in range(3))
        )

        if own.handle:
            handles = {e: prepared.handle for e, prepared in first.items()}
            assert len({own.handle, *handles.values()}) == len(windows) + 1
            assert [p.handle for p in again] == [h for h in handles.values() for _ in range(3)]
            task = await case.ledger.task()
            assert {e: task.handles_under(e) for e in handles} == {
                e: (h,) for e, h in handles.items()
            }
            assert own.handle in task.handles
        else:
            every = (own, *first.values(), *again)
            assert len({p.lease for p in every}) == len(every)

    async def test_what_was_lost_under_an_elevation_dies_with_it_and_nothing_else_does(
        self, case: Case
    ) -> None:
        own, mine = await case.issue()
        elevation, until_ms = await case.elevate()
        lost = await case.reserve(await case.prepare_under(elevation, until_ms))
        minted = await case.mint(lost)

        task = await case.ledger.task()
        for handle in task.handles_under(elevation):
            await case.end_handle(task, handle, lost)
        if not lost.handle:
            await case.backend.revoke(lost)

        assert await case.dead(replace(lost, lease=minted.lease), minted)
        assert await case.works(mine)
        assert await case.backend.is_live(own)

    async def test_a_task_that_is_forgotten_is_forgotten_with_its_elevations(
        self, case: Case
    ) -> None:
        elevation, until_ms = await case.elevate()
        first = await case.prepare_under(elevation, until_ms)

        case.backend.forget((await case.ledger.task()).id)

        second = await case.prepare_under(elevation, until_ms)
        assert (first.handle, first.lease) != (second.handle, second.lease)

    # Without its server.

    async def test_a_server_that_is_away_is_an_unavailable_of_ours(self, case: Case) -> None:
        """29, 30."""
        grant, minted = await case.issue()
        cut_off = replace(case, backend=case.target.cut_off(case.ledger))

        for ask in (
            cut_off.backend.revoke(grant),
            cut_off.backend.is_live(grant),
            cut_off.mint(grant),
        ):
            with pytest.raises(Unavailable) as caught:
                await ask
            said = f"{caught.value!r} {caught.value.detail} {caught.value.extra}"
            assert not any(secret in said for secret in secrets_of(minted))
        await cut_off.backend.close()
        assert await case.works(minted)
