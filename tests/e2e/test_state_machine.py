"""Random lives of tasks and grants on real servers, with replicas killed on the way.

``HYPOTHESIS_PROFILE=thorough`` plays many more and longer ones.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.dev.config import OWNER
from broker.grants import LIVE, GrantState
from broker.steps import Step
from tests.admin import Admin
from tests.e2e.life import BACKENDS, CAPABILITIES, KINDS, MINUTE, PATHS, Grant, Task
from tests.e2e.mortal import Replica, gathered, replay
from tests.world import logs_in

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from broker.config import Config
    from broker.dev.stack import DevStack

T = TypeVar("T")
QUICK: Final = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("thorough", QUICK, max_examples=200, stateful_step_count=30)
THOROUGH: Final = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


class Life(RuleBasedStateMachine):
    """The model: which tasks and grants are active. All else is asked of the real servers."""

    def __init__(self, stack: DevStack, config: Config) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.unsettled = True
        self.stack, self.config, self.admin = stack, config, Admin(stack)
        self.tasks: list[Task] = []
        self.grants: list[Grant] = []
        self.frozen: set[tuple[str, str]] = set()
        self.replica = self.fresh()
        self.run(self.replica.world.app.connection.command("FLUSHALL"))
        self.roles_before, self.leases_before = self.run(self.servers())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def fresh(self) -> Replica:
        async def make() -> Replica:
            return Replica(self.stack.issuer, self.config)

        return self.run(make())

    def act(self, work: Coroutine[Any, Any, T], bomb: Step | None = None) -> T | None:
        """Do something on the replica; if it dies of it, another takes its place."""
        self.unsettled = True
        self.replica.bomb = bomb
        answer = self.run(self.replica.attempt(work))
        self.replica.bomb = None
        if not self.replica.dead:
            return answer
        self.run(self.replica.close())
        self.replica = self.fresh()
        return None

    async def servers(self) -> tuple[set[str], set[str]]:
        """The accounts PostgreSQL has, and the leases OpenBao has."""
        leases = [await self.admin.leases(path) for path in PATHS]
        return await self.admin.roles(), set[str]().union(*leases)

    def active_tasks(self) -> list[Task]:
        return [task for task in self.tasks if task.active]

    def something_lives(self) -> bool:
        return any(grant.active for grant in self.grants)

    def kill(self, which: Callable[[Task], bool]) -> None:
        """In the model: these tasks end, and all below them."""
        ended = [task for task in self.tasks if task.active and which(task)]
        for task in self.tasks:
            task.active = task.active and not any(task.below(end) for end in ended)
        for grant in self.grants:
            grant.active = grant.active and grant.task.active

    def is_frozen(self, *fields: tuple[str, str]) -> bool:
        return bool(self.frozen & {("all", "all"), *fields})

    # What the parties do.

    @initialize()
    def begin(self) -> None:
        for agent in CAPABILITIES:
            self.open(agent, None, 120, beats=False)
            self.ask(self.tasks[-1], "orders-read", 15)
        self.open("order-clerk", self.tasks[0], 120, beats=False)
        self.ask(self.tasks[-1], "orders-read", 15)

    @rule(
        data=st.data(),
        agent=st.sampled_from(list(CAPABILITIES)),
        minutes=st.sampled_from([30, 120]),
        beats=st.booleans(),
        child=st.booleans(),
    )
    def open_task(
        self, data: st.DataObject, agent: str, minutes: int, beats: bool, child: bool
    ) -> None:
        parents = [task for task in self.tasks if task.parent is None and task.agent != agent]
        parent = data.draw(st.sampled_from(parents)) if child and parents else None
        self.open(agent, parent, minutes, beats=beats)
        self.ask(self.tasks[-1], "orders-read", 15)

    def open(self, agent: str, parent: Task | None, minutes: int, *, beats: bool) -> None:
        mine = CAPABILITIES[agent]
        names = mine if parent is None else tuple(c for c in mine if c in parent.capabilities)
        ask: dict[str, Any] = {"agent": agent, "purpose": "p", "capabilities": list(names)}
        ask |= {"ttl": f"{minutes}m"}
        ask |= {"heartbeat": "10m"} if beats else {}
        ask |= {"parent_task_id": parent.id} if parent else {}
        answer = self.act(self.replica.world.call("orchestrator", "POST", "/v1/tasks", ask))
        assert answer is not None
        above = parent.names() if parent else ()
        if self.is_frozen(("agent", agent), ("owner", OWNER), *above):
            assert answer.json()["code"] == "frozen"
        elif parent is not None and not parent.active:
            assert answer.json()["code"] == "task_not_active"
        else:
            assert answer.status_code == 201, answer.text
            lives = min([10 if beats else minutes] + ([parent.minutes] if parent else []))
            self.tasks.append(Task(answer.json(), agent, names, parent, lives))

    @rule(data=st.data(), ttl=st.sampled_from([5, 15]), more=st.integers(1, 3))
    def request(self, data: st.DataObject, ttl: int, more: int) -> None:
        task = data.draw(st.sampled_from(self.active_tasks() or self.tasks))
        for _ in range(more):
            self.ask(task, data.draw(st.sampled_from(task.capabilities)), ttl)

    @rule(data=st.data(), bomb=st.sampled_from(list(Step)[2:6]))
    @precondition(lambda self: bool(self.active_tasks()))
    def die_issuing(self, data: st.DataObject, bomb: Step) -> None:
        task = data.draw(st.sampled_from(self.active_tasks()))
        self.ask(task, data.draw(st.sampled_from(task.capabilities)), 15, bomb)

    def ask(self, task: Task, capability: str, ttl: int, bomb: Step | None = None) -> None:
        path = f"/v1/tasks/{task.id}/grants"
        ask = {"capability": capability, "ttl": f"{ttl}m"}
        answer = self.act(self.replica.world.call("orchestrator", "POST", path, ask), bomb)
        backend = ("backend", BACKENDS[capability])
        if answer is None:
            known = {grant.id for grant in self.grants}
            for left in self.run(self.replica.grants()).values():
                if left.id not in known:  # active only if it died with the credential in hand
                    grant = Grant(left.id, task, capability, ttl, active=bomb is Step.DELIVER)
                    self.grants.append(grant)
        elif not task.active:
            assert answer.json()["code"] == "task_not_active"
        elif self.is_frozen(*task.names(), ("owner", OWNER), ("capability", capability), backend):
            assert answer.json()["code"] == "frozen"
        else:
            assert answer.status_code == 201, answer.text
            body = answer.json()
            grant = Grant(body["grant_id"], task, capability, ttl, body["credential"])
            self.grants.append(grant)

    @rule(
        data=st.data(),
        outcome=st.sampled_from(["completed", "failed", "cancelled"]),
        bomb=st.sampled_from([None, Step.REVOKE, Step.CONFIRM]),
    )
    @precondition(lambda self: self.something_lives())
    def end(self, data: st.DataObject, outcome: str, bomb: Step | None) -> None:
        task = data.draw(st.sampled_from(self.active_tasks()))
        path = f"/v1/tasks/{task.id}/complete"
        ask = {"outcome": outcome}
        self.act(self.replica.world.call("orchestrator", "POST", path, ask), bomb)
        self.kill(lambda other: other is task)

    @rule(
        data=st.data(),
        kind=st.sampled_from(KINDS),
        freeze=st.booleans(),
        bomb=st.sampled_from([None, None, Step.REVOKE, Step.CONFIRM]),
    )
    @precondition(lambda self: self.something_lives())
    def revoke(self, data: st.DataObject, kind: str, freeze: bool, bomb: Step | None) -> None:
        value = data.draw(self.values(kind))
        freeze = freeze and kind != "grant_id"
        selector = {"selector": {kind: True if kind == "all" else value}, "reason": "r"}
        ask = {**selector, "freeze": freeze}
        self.act(self.replica.world.call("operator", "POST", "/v1/revocations", ask), bomb)
        if freeze:
            self.frozen.add((kind.removesuffix("_id"), value))
        self.kill(lambda task: value in {"all", OWNER, task.agent, task.id})
        for grant in self.grants:
            mine = {grant.id, grant.capability, BACKENDS[grant.capability]}
            grant.active = grant.active and value not in mine

    def values(self, kind: str) -> st.SearchStrategy[str]:
        known: dict[str, Iterator[str]] = {
            "agent": iter(CAPABILITIES),
            "capability": iter(BACKENDS),
            "backend": iter(("vault", "token")),
            "task_id": (task.id for task in self.tasks),
            "grant_id": (grant.id for grant in self.grants),
            "owner": iter([OWNER]),
            "all": iter(["all"]),
        }
        # Where there is nothing of the kind, one that doesn't exist: it matches nothing.
        return st.sampled_from(list(known[kind]) or ["grt_000000000000000000000000000"])

    @rule(data=st.data(), kind=st.sampled_from(KINDS[:-1]))
    @precondition(lambda self: not self.frozen)
    def freeze(self, data: st.DataObject, kind: str) -> None:
        self.frozen.add((kind.removesuffix("_id"), self.change_freeze("POST", data, kind)))

    @rule(data=st.data())
    @precondition(lambda self: bool(self.frozen))
    def thaw(self, data: st.DataObject) -> None:
        for kind, value in sorted(self.frozen):
            name = f"{kind}_id" if kind == "task" else kind
            self.change_freeze("DELETE", data, name, value)
        self.frozen.clear()

    def change_freeze(self, method: str, data: st.DataObject, kind: str, value: str = "") -> str:
        value = value or data.draw(self.values(kind))
        ask = {"selector": {kind: True if kind == "all" else value}, "reason": "r"}
        answer = self.act(self.replica.world.call("operator", method, "/v1/freezes", ask))
        assert answer is not None
        assert answer.is_success, answer.text
        return value

    @rule(data=st.data())
    @precondition(lambda self: bool(self.tasks))
    def heartbeat(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        path = f"/v1/tasks/{task.id}/heartbeat"
        answer = self.act(self.replica.world.call("orchestrator", "POST", path))
        assert answer is not None
        assert answer.is_success is task.active, answer.text

    # What time does.

    @rule(
        minutes=st.sampled_from([1, 7, 12, 20, 40]),
        bomb=st.sampled_from([None, Step.REVOKE, Step.CONFIRM]),
    )
    @precondition(lambda self: self.something_lives())
    def expire(self, minutes: int, bomb: Step | None) -> None:
        self.act(self.replica.claim_ahead(minutes * MINUTE), bomb)
        self.kill(lambda task: task.minutes < minutes)
        for grant in self.grants:
            grant.active = grant.active and grant.minutes > minutes

    @rule()
    @precondition(lambda self: self.unsettled)
    def sweep(self) -> None:
        self.settle()

    # What must hold.

    @invariant()
    def the_log_tells_every_move(self) -> None:
        self.run(self.check_log())

    async def check_log(self) -> None:
        held = await self.replica.grants()
        # Over all shards the log shows what is a few milliseconds old.
        await asyncio.sleep(0.005)
        assert replay(await self.replica.events()) == {g.id: g.state for g in held.values()}

    def settle(self) -> None:
        self.run(self.replica.settle())
        self.run(self.check_servers())
        self.unsettled = False

    async def check_servers(self) -> None:
        held = await self.replica.grants()
        active = {g.id for g in held.values() if g.state is GrantState.ACTIVE}
        assert active == {grant.id for grant in self.grants if grant.active}

        vault = [g for g in held.values() if g.backend == "vault" and g.state in LIVE]
        lost = sum(1 for grant in vault if not grant.lease)
        roles, leases = await self.servers()
        roles, leases = roles - self.roles_before, leases - self.leases_before
        known = {grant.lease for grant in vault if grant.lease}
        assert known <= leases
        assert len(leases - known) <= lost
        assert len(roles) == len(leases)

        delivered = [grant for grant in self.grants if grant.credential]
        alive = await gathered(*(self.works(grant.credential) for grant in delivered))
        assert alive == [grant.active for grant in delivered]

    async def works(self, credential: dict[str, Any]) -> bool:
        """Whether the credential's own server accepts it."""
        if token := credential.get("access_token"):
            return await self.replica.introspects(token)
        return await logs_in(credential)

    def teardown(self) -> None:
        try:
            self.settle()
            ask = {"selector": {"all": True}, "reason": "the end"}
            self.act(self.replica.world.call("operator", "POST", "/v1/revocations", ask))
            self.kill(lambda _: True)
            self.settle()
        finally:
            self.run(self.replica.close())
            self.loop.close()


@pytest.mark.timeout(7200 if THOROUGH else 120)
def test_no_credential_outlives_its_task(engines: tuple[DevStack, Config]) -> None:
    chosen = settings.get_profile("thorough") if THOROUGH else QUICK

    class Machine(Life):
        def __init__(self) -> None:
            super().__init__(*engines)

    run_state_machine_as_test(Machine, settings=chosen)
