"""What every backend does, whatever it makes: one suite over ``broker/backends/protocol.py``.

A new backend adds one line to ``CASES``, and how to tell whether its credential works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.backends.protocol import Renewable
from broker.errors import BrokerError, NotRenewable, Unavailable
from broker.grants import Grant, GrantState
from broker.ids import new_id, shard_of
from broker.secret import Secret
from broker.tasks import Task, TaskState
from tests import windows
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.backends.protocol import Backend, Minted, Prepared
    from broker.catalog import Capability
    from broker.config import Config
    from broker.dev.stack import DevStack

Works = Callable[[World, Mapping[str, str]], Awaitable[bool]]
NOWHERE: Final = "127.0.0.1:1"


async def a_login(_: World, fields: Mapping[str, str]) -> bool:
    return await logs_in(dict(fields))


async def an_active_token(world: World, fields: Mapping[str, str]) -> bool:
    answer = await world.http.post(
        "/oauth/introspect",
        data={"token": fields["access_token"]},
        headers={"Authorization": f"Bearer {await world.token('orders-service')}"},
    )
    return answer.json()["active"]


CASES: Final[dict[str, tuple[str, Works]]] = {
    "vault": ("orders-read", a_login),
    "token": ("orders-api", an_active_token),
}


@dataclass
class Case:
    """A backend, a task and a capability of it."""

    world: World
    backend: Backend
    capability: Capability
    task: Task
    works_by: Works

    async def prepare(self) -> Prepared:
        return await self.backend.prepare(self.task, self.capability)

    async def elevate(self) -> tuple[str, Prepared]:
        """Start an elevation of a task that hasn't the capability itself, and prepare under it."""
        elevation = await windows.elevate(self.world, self.task.id, self.capability.name)
        return elevation, await self.prepare_under(elevation)

    async def prepare_under(self, elevation: str) -> Prepared:
        bare = replace(self.task, capabilities=())
        until_ms = await self.world.app.pipeline.queries.now() + 60_000
        return await self.backend.prepare(bare, self.capability, elevation, until_ms)

    async def reserve(self, prepared: Prepared) -> Grant:
        grant = Grant(
            id=new_id("grt", shard_of(self.task.id, "tsk") or 0),
            state=GrantState.PENDING,
            task_id=self.task.id,
            agent=self.task.agent,
            orchestrator=self.task.orchestrator,
            capability=self.capability.name,
            backend=self.backend.name,
            power=self.capability.power,
            path=self.capability.path,
            handle=prepared.handle,
            lease=prepared.lease,
            created_at=0,
            expires_at=0,
        )
        return await self.world.app.pipeline.ledger.reserve(
            grant, ttl_ms=60_000, max_live=10, decision={}, actor="test"
        )

    async def mint(self, grant: Grant) -> Minted:
        return await self.backend.mint(grant, self.task, self.capability)

    async def issue(self, prepared: Prepared | None = None) -> tuple[Grant, Minted]:
        grant = await self.reserve(prepared or await self.prepare())
        minted = await self.mint(grant)
        active = await self.world.app.pipeline.ledger.activate(
            grant, lease=minted.lease, lifetime_ms=minted.lifetime_ms, actor="test"
        )
        return active, minted

    async def works(self, minted: Minted) -> bool:
        fields = {k: v.reveal() if isinstance(v, Secret) else v for k, v in minted.fields.items()}
        return await self.works_by(self.world, fields)

    async def fresh(self) -> Task:
        found = await self.world.app.pipeline.queries.task(self.task.id)
        assert found is not None
        return found


@pytest.fixture(params=CASES)
async def case(world: World, request: pytest.FixtureRequest) -> AsyncGenerator[Case]:
    name: str = request.param
    capability, works = CASES[name]
    opened = await world.open(capabilities=[capability])
    task = await world.app.pipeline.queries.task(opened["task_id"])
    assert task is not None
    pipeline = world.app.pipeline
    made = Case(
        world, pipeline.backends[name], pipeline.catalog.capabilities[capability], task, works
    )
    assert made.backend.name == name
    yield made
    ending = "/v1/revocations", {"selector": {"all": True}, "reason": "over"}
    await world.call("operator", "POST", *ending)
    await world.sweep()


async def test_a_credential_works_lives_and_hides_its_secrets(case: Case) -> None:
    grant, minted = await case.issue()

    assert grant.state is GrantState.ACTIVE
    assert minted.lease
    assert minted.lifetime_ms > 0
    assert minted.type
    assert await case.backend.is_live(grant)
    assert await case.works(minted)
    secrets = [v.reveal() for v in minted.fields.values() if isinstance(v, Secret)]
    assert secrets
    assert not any(secret in repr(minted) for secret in secrets)
    assert not any(secret in repr(grant) for secret in secrets)


async def test_what_is_prepared_can_kill_it_before_it_exists(case: Case) -> None:
    prepared = await case.prepare()

    assert prepared.handle or prepared.lease
    if prepared.handle:
        assert prepared.handle in (await case.fresh()).handles


async def test_revoked_it_neither_lives_nor_works(case: Case) -> None:
    grant, minted = await case.issue()

    await case.backend.revoke(grant)

    assert not await case.backend.is_live(grant)
    assert not await case.works(minted)


async def test_revoking_twice_or_at_once_is_success(case: Case) -> None:
    grant, minted = await case.issue()

    await asyncio.gather(*(case.backend.revoke(grant) for _ in range(3)))
    await case.backend.revoke(grant)

    assert not await case.backend.is_live(grant)
    assert not await case.works(minted)


async def test_revoking_what_never_existed_is_success(case: Case) -> None:
    grant, _ = await case.issue()
    jti = new_id("jti", shard_of(case.task.id, "tsk") or 0)
    never = replace(grant, lease=f"{case.capability.path}/{'x' * 24}" if grant.path else jti)

    await case.backend.revoke(never)

    assert not await case.backend.is_live(never)
    assert await case.backend.is_live(grant)


async def test_revoking_one_leaves_its_siblings_alone(case: Case) -> None:
    (one, first), (other, second) = await case.issue(), await case.issue()

    await case.backend.revoke(one)

    assert not await case.works(first)
    assert await case.backend.is_live(other)
    assert await case.works(second)


async def test_one_that_renews_says_for_how_long_and_only_while_it_lives(case: Case) -> None:
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


async def test_what_was_minted_and_never_recorded_dies_by_what_was_prepared(case: Case) -> None:
    """A crash between minting and recording: the lease was never learnt."""
    grant = await case.reserve(await case.prepare())
    minted = await case.mint(grant)

    if grant.handle:
        task = await case.fresh()
        await case.backend.revoke_handle(task, grant.handle)
        await case.backend.revoke_handle(task, grant.handle)

        async def gone() -> bool:
            return not await case.backend.handle_is_live(task, grant.handle, [grant])

        await wait_until(gone, "the handle and what hangs from it is gone")
    else:
        await case.backend.revoke(grant)
        assert not await case.backend.is_live(grant)

    assert not await case.works(minted)


async def test_a_handle_that_never_existed_is_dead_and_may_be_revoked(case: Case) -> None:
    await case.backend.revoke_handle(case.task, "feedfeedfeed")

    assert not await case.backend.handle_is_live(case.task, "feedfeedfeed", [])


async def test_preparing_at_once_gives_each_grant_something_that_kills_it(case: Case) -> None:
    prepared = await asyncio.gather(*(case.prepare() for _ in range(5)))

    leases = [p.lease for p in prepared if p.lease]
    handles = {p.handle for p in prepared if p.handle}
    assert len(set(leases)) == len(leases)
    assert len(leases) == 5 or len(handles) == 1


async def test_what_is_forgotten_is_made_anew_and_the_old_goes_on(case: Case) -> None:
    grant, minted = await case.issue()

    case.backend.forget(case.task.id)
    case.backend.forget("tsk_unknown")

    other, second = await case.issue()
    assert (other.handle, other.lease) != (grant.handle, grant.lease)
    assert await case.works(minted)
    assert await case.works(second)


async def test_nothing_is_made_for_a_task_that_has_ended(case: Case) -> None:
    grant = await case.reserve(await case.prepare())
    await case.world.app.pipeline.ledger.end_task(
        case.task.id, TaskState.COMPLETED, reason="over", actor="test"
    )
    # As closing the task does; what slips in before this is revoked when it is activated.
    task = await case.world.app.pipeline.queries.task(case.task.id)
    assert task is not None
    await case.backend.revoke_handle(task, grant.handle)

    with pytest.raises(BrokerError):
        await case.mint(grant)


async def test_under_an_elevation_a_task_gets_what_its_own_list_does_not_have(case: Case) -> None:
    _, prepared = await case.elevate()

    grant, minted = await case.issue(prepared)

    assert await case.works(minted)
    await case.backend.revoke(grant)
    assert not await case.backend.is_live(grant)
    assert not await case.works(minted)


async def test_what_kills_it_is_of_one_elevation_and_the_ledger_says_of_which(case: Case) -> None:
    own = await case.prepare()
    elevations = dict([await case.elevate() for _ in "12"])
    again = await asyncio.gather(*(case.prepare_under(e) for e in elevations for _ in range(3)))

    if own.handle:
        handles = {e: prepared.handle for e, prepared in elevations.items()}
        assert len({own.handle, *handles.values()}) == 3
        assert [p.handle for p in again] == [h for h in handles.values() for _ in range(3)]
        task = await case.fresh()
        assert {e: task.handles_under(e) for e in handles} == {e: (h,) for e, h in handles.items()}
        assert own.handle in task.handles
    else:
        assert len({p.lease for p in (own, *elevations.values(), *again)}) == 9


async def test_what_was_lost_under_an_elevation_dies_with_it_and_nothing_else_does(
    case: Case,
) -> None:
    own, mine = await case.issue()
    elevation, prepared = await case.elevate()
    lost = await case.reserve(prepared)
    minted = await case.mint(lost)

    task = await case.fresh()
    for handle in task.handles_under(elevation):
        await case.backend.revoke_handle(task, handle)

        async def gone(handle: str = handle) -> bool:
            return not await case.backend.handle_is_live(task, handle, [lost])

        await wait_until(gone, "the elevation's handle is gone, and what hangs from it")
    if not lost.handle:
        await case.backend.revoke(lost)

    assert not await case.works(minted)
    assert await case.works(mine)
    assert await case.backend.is_live(own)


async def test_a_task_that_is_forgotten_is_forgotten_with_its_elevations(case: Case) -> None:
    elevation, first = await case.elevate()

    case.backend.forget(case.task.id)

    second = await case.prepare_under(elevation)
    assert (first.handle, first.lease) != (second.handle, second.lease)


async def test_rotating_leaves_what_is_live_alive_and_revocable(case: Case) -> None:
    grant, minted = await case.issue()
    capabilities = case.world.app.pipeline.catalog.capabilities.values()
    behind = [c for c in capabilities if c.backend == case.backend.name and c.rotate]

    for capability in (*behind, *behind):  # again, as when an answer was lost
        assert await case.backend.rotate(capability)
    assert not await case.backend.rotate(case.capability)

    other, second = await case.issue()
    assert await case.works(minted)
    assert await case.works(second)
    for each, its in ((grant, minted), (other, second)):
        await case.backend.revoke(each)
        assert not await case.backend.is_live(each)
        assert not await case.works(its)


async def test_a_server_that_is_away_is_an_unavailable_of_ours(
    case: Case, engines: tuple[DevStack, Config]
) -> None:
    grant, minted = await case.issue()
    stack, config = engines
    assert config.vault is not None
    away: dict[str, Any] = {
        "vault": config.vault.model_copy(update={"address": f"http://{NOWHERE}"}),
        "redis": config.redis.model_copy(update={"url": f"redis://{NOWHERE}/0"}),
    }
    cut_off = World(stack.issuer, config.model_copy(update=away))
    backend = cut_off.app.pipeline.backends[case.backend.name]
    try:
        with pytest.raises(Unavailable):
            await backend.revoke(grant)
        with pytest.raises(Unavailable):
            await backend.is_live(grant)
        with pytest.raises(Unavailable):
            await backend.mint(grant, case.task, case.capability)
        if isinstance(backend, Renewable):
            with pytest.raises(Unavailable):
                await backend.renew(grant, 600_000)
    finally:
        await cut_off.close()
    assert await case.works(minted)
