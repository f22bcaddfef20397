"""What an elevation is given at OpenBao: a token of its own, for one capability and one window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.errors import BackendRefused, TaskNotActive
from broker.grants import Grant, GrantState
from broker.ids import new_id, shard_of
from tests import windows
from tests.admin import Admin
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from broker.backends.protocol import Minted
    from broker.catalog import Capability
    from broker.config import Config
    from broker.dev.stack import DevStack
    from broker.pipeline import Pipeline
    from broker.tasks import Task

MINUTE: Final = 60_000
LIMIT: Final = 15 * MINUTE


@dataclass
class Clerk:
    """A task that may read orders, and is elevated to write them."""

    world: World
    admin: Admin
    task: Task

    @property
    def pipeline(self) -> Pipeline:
        return self.world.app.pipeline

    def capability(self, name: str) -> Capability:
        return self.pipeline.catalog.capabilities[name]

    async def fresh(self) -> Task:
        found = await self.pipeline.queries.task(self.task.id)
        assert found is not None
        return found

    async def now(self) -> int:
        return await self.pipeline.queries.now()

    async def elevate(self, ttl_ms: int = MINUTE) -> tuple[str, str]:
        """Start an elevation, and return its id and what its grants hang from."""
        elevation = await windows.elevate(self.world, self.task.id, "orders-write", ttl_ms)
        return elevation, await self.handle(elevation, ttl_ms)

    async def handle(self, elevation: str, ttl_ms: int = MINUTE, by: World | None = None) -> str:
        backend = (by or self.world).app.pipeline.backends["vault"]
        until_ms = await self.now() + ttl_ms
        wanted = self.capability("orders-write")
        return (await backend.prepare(self.task, wanted, elevation, until_ms)).handle

    async def own_handle(self) -> str:
        backend = self.pipeline.backends["vault"]
        return (await backend.prepare(self.task, self.capability("orders-read"))).handle

    async def reserve(self, handle: str, name: str = "orders-write") -> Grant:
        wanted = self.capability(name)
        grant = Grant(
            id=new_id("grt", shard_of(self.task.id, "tsk") or 0),
            state=GrantState.PENDING,
            task_id=self.task.id,
            agent=self.task.agent,
            orchestrator=self.task.orchestrator,
            capability=name,
            backend="vault",
            power=wanted.power,
            path=wanted.path,
            handle=handle,
            created_at=0,
            expires_at=0,
        )
        return await self.pipeline.ledger.reserve(
            grant, ttl_ms=MINUTE, max_live=10, decision={}, actor="test"
        )

    async def mint(self, grant: Grant) -> Minted:
        wanted = self.capability(grant.capability)
        return await self.pipeline.backends["vault"].mint(grant, self.task, wanted)

    async def token(self, handle: str) -> Mapping[str, Any]:
        """What OpenBao says of the token of a handle; nothing when it is gone."""
        accessor = (await self.fresh()).handles[handle]["value"]
        return (await self.tokens()).get(accessor, {})

    async def tokens(self) -> dict[str, Mapping[str, Any]]:
        """Every token that OpenBao has for this task, by accessor."""
        listed = await self.admin.vault("LIST", "auth/token/accessors")
        found: dict[str, Mapping[str, Any]] = {}
        for accessor in listed["data"]["keys"]:
            body = {"accessor": accessor}
            try:
                row = (await self.admin.vault("POST", "auth/token/lookup-accessor", body))["data"]
            except (AssertionError, KeyError):  # it is going just now
                continue
            meta: Mapping[str, str] = row.get("meta") or {}
            if meta.get("task") == self.task.id:
                found[accessor] = row
        return found


@pytest.fixture
async def clerk(
    world: World, pristine: None, engines: tuple[DevStack, Config]
) -> AsyncGenerator[Clerk]:
    opened = await world.open(agent="order-clerk", ttl="15m")
    task = await world.app.pipeline.queries.task(opened["task_id"])
    assert task is not None
    yield Clerk(world, Admin(engines[0]), task)
    ending = {"selector": {"all": True}, "reason": "over"}
    await world.call("operator", "POST", "/v1/revocations", ending)
    await world.sweep()


def expires_ms(token: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(token["expire_time"]).timestamp() * 1000


async def test_its_token_has_the_policy_of_its_capability_alone(clerk: Clerk) -> None:
    elevation, handle = await clerk.elevate()

    token = await clerk.token(handle)

    assert token["policies"] == ["broker-cap-orders-write"]
    assert (token["orphan"], token["renewable"], token["type"]) == (True, False, "service")
    assert token["meta"]["elevation"] == elevation
    assert token["meta"]["handle"] == handle
    own = await clerk.token(await clerk.own_handle())
    assert own["policies"] == ["broker-cap-orders-read"]
    assert "elevation" not in own["meta"]


async def test_it_reads_that_capability_and_not_what_the_task_has_itself(clerk: Clerk) -> None:
    _, handle = await clerk.elevate()

    minted = await clerk.mint(await clerk.reserve(handle))
    assert minted.lease.startswith("database/creds/orders-write/")
    with pytest.raises(BackendRefused, match="doesn't let"):
        await clerk.mint(await clerk.reserve(handle, "orders-read"))


async def test_the_tasks_own_token_reads_nothing_that_it_is_elevated_to(clerk: Clerk) -> None:
    own = await clerk.own_handle()
    await clerk.elevate()

    with pytest.raises(BackendRefused, match="doesn't let"):
        await clerk.mint(await clerk.reserve(own, "orders-write"))


@pytest.mark.parametrize("ttl_ms", [2 * MINUTE, LIMIT - MINUTE, 24 * 60 * MINUTE])
async def test_openbao_itself_ends_it_with_the_window_and_never_after_the_task(
    clerk: Clerk, ttl_ms: int
) -> None:
    asked_at = await clerk.now()
    _, handle = await clerk.elevate(ttl_ms)

    token = await clerk.token(handle)

    limit = min(asked_at + ttl_ms, clerk.task.expires_at)
    assert token["explicit_max_ttl"] * 1000 <= limit - asked_at + 1000
    # Up to a second earlier, and as long as the calls took later than it was reckoned.
    assert limit - 3000 < expires_ms(token) < limit + 1500


async def test_two_elevations_at_once_and_the_task_have_a_token_each(clerk: Clerk) -> None:
    own = await clerk.own_handle()
    one, first = await clerk.elevate()
    other, second = await clerk.elevate(2 * MINUTE)

    assert len({own, first, second}) == 3
    assert len(await clerk.tokens()) == 3
    await clerk.mint(await clerk.reserve(first))
    await clerk.mint(await clerk.reserve(second))
    assert [await clerk.handle(one), await clerk.handle(other)] == [first, second]


async def test_each_replica_makes_its_own_and_the_ledger_knows_both(
    clerk: Clerk, engines: tuple[DevStack, Config]
) -> None:
    elevation, handle = await clerk.elevate()
    replica = World(engines[0].issuer, clerk.world.config)
    try:
        other = await clerk.handle(elevation, by=replica)
    finally:
        await replica.close()

    assert other != handle
    assert set((await clerk.fresh()).handles_under(elevation)) == {handle, other}
    await windows.end(clerk.world, clerk.task.id, elevation)
    assert await clerk.pipeline.closing.close_elevation(clerk.task, elevation)
    assert await clerk.tokens() == {}


@pytest.mark.parametrize("until", ["past", "none"])
async def test_no_token_is_made_for_a_window_that_is_over(clerk: Clerk, until: str) -> None:
    elevation = await windows.elevate(clerk.world, clerk.task.id, "orders-write")
    until_ms = await clerk.now() - 1 if until == "past" else 0
    backend = clerk.pipeline.backends["vault"]

    with pytest.raises(TaskNotActive, match="elevation is over"):
        await backend.prepare(clerk.task, clerk.capability("orders-write"), elevation, until_ms)

    assert (await clerk.fresh()).handles == {}
    assert await clerk.tokens() == {}


@pytest.mark.parametrize("why", ["ended", "silent", "unknown"])
async def test_nor_for_an_elevation_that_the_ledger_does_not_have_as_live(
    clerk: Clerk, why: str
) -> None:
    elevation = await windows.elevate(clerk.world, clerk.task.id, "orders-write")
    if why == "ended":
        await windows.end(clerk.world, clerk.task.id, elevation)
    elif why == "silent":
        await windows.miss(clerk.world, clerk.task.id, elevation)
    else:
        elevation = "elv_unknown"

    with pytest.raises(TaskNotActive, match="elevation is over"):
        await clerk.handle(elevation)

    assert (await clerk.fresh()).handles == {}
    assert await clerk.tokens() == {}


async def test_one_that_ends_while_its_token_is_made_leaves_none(clerk: Clerk) -> None:
    """Ended between what is expected and what is recorded: OpenBao has made it by then."""
    elevation = await windows.elevate(clerk.world, clerk.task.id, "orders-write")
    ledger, backend = clerk.pipeline.ledger, clerk.pipeline.backends["vault"]
    accessor = await clerk.admin.vault(
        "POST",
        "auth/token/create/broker-task",
        {"policies": ["broker-cap-orders-write"], "meta": {"task": clerk.task.id}},
    )
    about: dict[str, Any] = {"backend": "vault", "actor": "broker", "elevation": elevation}
    assert await ledger.handle(clerk.task.id, "expect", "h", **about) == "active"
    await windows.end(clerk.world, clerk.task.id, elevation)

    # Closed meanwhile, it isn't done: an answer may be under way.
    assert not await clerk.pipeline.closing.close_elevation(clerk.task, elevation)
    value = accessor["auth"]["accessor"]
    state = await ledger.handle(clerk.task.id, "record", "h", value=value, **about)

    assert state == "elevation_ended"
    assert await clerk.pipeline.closing.close_elevation(clerk.task, elevation)
    assert not await backend.handle_is_live(clerk.task, "h", [])
    assert (await clerk.fresh()).handles == {}
    assert await clerk.tokens() == {}


async def test_closed_what_was_lost_under_it_is_dead_and_the_task_goes_on(clerk: Clerk) -> None:
    """A crash between minting and recording under an elevation."""
    own = await clerk.reserve(await clerk.own_handle(), "orders-read")
    kept = fields(await clerk.mint(own))
    elevation, handle = await clerk.elevate()
    lost = await clerk.reserve(handle)
    credential = fields(await clerk.mint(lost))
    assert await logs_in(credential)
    await windows.end(clerk.world, clerk.task.id, elevation)
    await clerk.pipeline.ledger.begin_revoke([lost.id], reason="elevation_ended", actor="test")

    async def closed() -> bool:
        return await clerk.pipeline.closing.close_elevation(clerk.task, elevation)

    await wait_until(closed, "the elevation is closed")

    assert not await logs_in(credential)
    assert await logs_in(kept)
    dead = await clerk.pipeline.queries.grant(lost.id)
    assert dead is not None
    assert dead.state is GrantState.REVOKED
    assert set((await clerk.fresh()).handles) == {own.handle}
    assert [t["policies"] for t in (await clerk.tokens()).values()] == [["broker-cap-orders-read"]]
    assert await closed()


async def test_it_is_not_closed_while_one_of_its_credentials_lives(clerk: Clerk) -> None:
    elevation, handle = await clerk.elevate()
    grant = await clerk.reserve(handle)
    minted = await clerk.mint(grant)
    ledger, closing = clerk.pipeline.ledger, clerk.pipeline.closing
    await ledger.activate(grant, lease=minted.lease, lifetime_ms=MINUTE, actor="test")
    await windows.end(clerk.world, clerk.task.id, elevation)

    assert not await closing.close_elevation(clerk.task, elevation)
    assert await clerk.token(handle)

    marked = await ledger.begin_revoke([grant.id], reason="elevation_ended", actor="test")
    assert (await clerk.pipeline.revoke(marked)).revoked == 1
    assert await closing.close_elevation(clerk.task, elevation)
    assert await clerk.tokens() == {}


async def test_the_end_of_the_task_is_the_end_of_what_its_elevations_have(clerk: Clerk) -> None:
    _, handle = await clerk.elevate()
    await clerk.elevate()
    credential = fields(await clerk.mint(await clerk.reserve(handle)))

    await clerk.world.complete({"task_id": clerk.task.id})

    async def closed() -> bool:
        await clerk.world.sweep(ahead_ms=MINUTE)
        return (await clerk.fresh()).closed_at > 0

    await wait_until(closed, "the task is closed")
    assert not await logs_in(credential)
    assert await clerk.tokens() == {}


async def test_a_server_that_is_away_leaves_it_to_be_closed_later(
    clerk: Clerk, engines: tuple[DevStack, Config]
) -> None:
    elevation, _ = await clerk.elevate()
    await windows.end(clerk.world, clerk.task.id, elevation)
    config = clerk.world.config
    assert config.vault is not None
    vault = config.vault.model_copy(update={"address": "http://127.0.0.1:1"})
    cut_off = World(engines[0].issuer, config.model_copy(update={"vault": vault}))
    try:
        assert not await cut_off.app.pipeline.closing.close_elevation(clerk.task, elevation)
    finally:
        await cut_off.close()

    assert len(await clerk.tokens()) == 1
    assert await clerk.pipeline.closing.close_elevation(clerk.task, elevation)
    assert await clerk.tokens() == {}


async def test_a_task_whose_deadline_is_nearer_than_the_window_gives_no_more_than_it_has(
    clerk: Clerk,
) -> None:
    elevation = await windows.elevate(clerk.world, clerk.task.id, "orders-write")
    over = replace(clerk.task, expires_at=await clerk.now() - 1)
    until_ms = await clerk.now() + MINUTE
    backend = clerk.pipeline.backends["vault"]

    with pytest.raises(TaskNotActive):
        await backend.prepare(over, clerk.capability("orders-write"), elevation, until_ms)
    assert await clerk.tokens() == {}


def fields(minted: Minted) -> dict[str, str]:
    return {k: v if isinstance(v, str) else v.reveal() for k, v in minted.fields.items()}
