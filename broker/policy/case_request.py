"""From a case to the question that it stands for, by the same builders as real requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.approvals import Yeses
from broker.catalog import TOOL, Capability, Power, Principal, Revocability
from broker.identity.models import Role
from broker.policy.arguments import amount_of, canonical
from broker.policy.case_file import Done, Grantable, Person
from broker.policy.destination import destination
from broker.policy.question import (
    Action,
    Moment,
    Question,
    Use,
    approving,
    opening,
    operating,
    using,
)
from broker.tasks import Task, TaskState
from broker.trail import AMOUNT_SCALE, Signals, Step, Survey, Trail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.catalog import Catalog
    from broker.policy.case_file import Case

_MINUTE: Final = 60_000


class NoRequestError(Exception):
    """What a case says can't be a request."""


class CaseRequest:
    """A case, being made into a question. ``used`` is the capability or tool it is about."""

    def __init__(self, case: Case, catalog: Catalog | None, private: frozenset[str]) -> None:
        self.case = case
        self._catalog = catalog
        self._private = private
        self.action = case.action or (Action.CALL_TOOL if case.tool else Action.ISSUE_GRANT)
        self.used: Capability | None = None

    def question(self) -> Question:
        """Return it.

        Raises:
            BadArgument: a tool isn't called with such arguments.
            NoRequestError: it makes no sense.
        """
        match self.action:
            case Action.OPEN_TASK | Action.DELEGATE:
                return self._opening()
            case Action.APPROVE:
                caller = self._person(self.case.caller, "operator", Role.OPERATOR)
                about = {k: str(v) for k, v in self.case.approval.model_dump().items()}
                return approving(caller, "apr_1", about, self._moment())
            case Action.OPERATE:
                caller = self._person(self.case.caller, "operator", Role.OPERATOR)
                case = self.case
                return operating(caller, case.operation, case.selector, self._moment())
            case _:
                return self._using()

    def _using(self) -> Question:
        case = self.case
        is_call = self.action is Action.CALL_TOOL
        capability = self.used = self._grantable(case.tool if is_call else case.capability, is_call)
        arguments = canonical(capability, case.arguments) if is_call else None
        if case.arguments and not is_call:
            raise NoRequestError("only tools have arguments")
        step = Step(
            effects=capability.effects,
            data_class=capability.data_class,
            lasting=not is_call,
            rank=capability.power.rank,
            amount=amount_of(capability, case.arguments) if is_call else 0,
        )
        caller = self._person(case.caller, "agent", Role.AGENT)
        use = Use(
            caller=caller.role,
            ttl_ms=case.ttl,
            intent=case.intent,
            destination=self._destination(),
            arguments=arguments,
            asker=caller.name,
            elevate=self.action is Action.ELEVATE,
            elevated=case.elevated,
            break_glass=self.action is Action.BREAK_GLASS,
            ledger_durable=case.durable,
        )
        agent = self._person(case.agent, "agent", Role.AGENT, (capability.name,))
        wanted = (capability.name,)
        return using(
            agent, capability, self._task(wanted), self._survey(), step, use, self._moment()
        )

    def _opening(self) -> Question:
        case, below = self.case, self.action is Action.DELEGATE
        wanted = [self._grantable(asked, is_call=False) for asked in case.asks or ("thing",)]
        names = tuple(c.name for c in wanted)
        role = Role.AGENT if below else Role.ORCHESTRATOR
        return opening(
            self._person(case.caller, "parent" if below else "orchestrator", role),
            self._person(case.agent, "agent", Role.AGENT, names),
            wanted,
            purpose=case.task.purpose,
            on_behalf_of=case.task.on_behalf_of,
            ttl_ms=case.ttl,
            parent=self._parent(names) if below else None,
            survey=self._survey(),
            moment=self._moment(),
        )

    # What it is made of.

    def _grantable(self, spec: str | Grantable | None, is_call: bool) -> Capability:  # noqa: FBT001
        if isinstance(spec, str) and self._catalog is not None:
            known = self._catalog.capabilities.get(spec)
            if known is None or (is_call and not known.is_tool):
                what = "tool" if is_call else "capability"
                raise NoRequestError(f"there is no {what} {spec!r} in the configuration")
            return known
        given = Grantable(name=spec) if isinstance(spec, str) else spec or Grantable()
        return Capability(
            name=given.name,
            power=given.power,
            backend=TOOL if is_call else given.backend,
            ttl_ms=5 * _MINUTE,
            max_ttl_ms=15 * _MINUTE,
            data_class=given.data_class,
            effects=frozenset(given.effects),
            revocability=Revocability.INSTANT if given.instant else Revocability.TTL_ONLY,
            arguments={
                name: (kind.removesuffix("?"), kind.endswith("?"))
                for name, kind in given.arguments.items()
            },
            amount=given.amount,
        )

    def _person(
        self,
        spec: str | Person | None,
        name: str,
        role: Role,
        capabilities: Sequence[str] = (),
    ) -> Principal:
        if isinstance(spec, str) and self._catalog is not None:
            if spec not in self._catalog.principals:
                raise NoRequestError(f"there is no principal {spec!r} in the configuration")
            return self._catalog.principals[spec]
        given = Person(name=spec) if isinstance(spec, str) else spec or Person()
        allowed = capabilities if given.capabilities is None else given.capabilities
        return Principal(
            name=given.name or name,
            role=given.role or role,
            owner=given.owner,
            capabilities=frozenset(allowed),
        )

    def _task(self, wanted: tuple[str, ...]) -> Task:
        case, given = self.case, self.case.task
        allowed = wanted if given.capabilities is None else given.capabilities
        name = case.agent if isinstance(case.agent, str) else case.agent.name or "agent"
        return _task(
            name,
            allowed,
            purpose=given.purpose,
            subject=given.on_behalf_of,
            created_at=self._now - given.age,
            expires_at=self._now + given.left,
            depth=given.depth,
            heartbeat_ms=_MINUTE if given.heartbeat else 0,
        )

    def _parent(self, wanted: tuple[str, ...]) -> Task | None:
        given = self.case.parent
        if given is None:
            return _task("parent", wanted, created_at=self._now, expires_at=self._now + _MINUTE)
        allowed = wanted if given.capabilities is None else given.capabilities
        return _task(
            given.agent,
            allowed,
            purpose=given.purpose,
            actors=given.agents or (given.agent,),
            created_at=self._now,
            expires_at=self._now + _MINUTE,
            depth=given.depth,
        )

    def _survey(self) -> Survey:
        own, others = _trail(self.case.trail), _trail(self.case.chain)
        together = Trail(
            own.effects | others.effects,
            own.data_classes | others.data_classes,
            own.ways | others.ways,
            own.grants + others.grants,
            own.calls + others.calls,
            own.amount + others.amount,
            max(own.rank, others.rank),
        )
        tasks = 1 if others == Trail() else 2
        return Survey("case", own, together, tasks, self._signals)

    @property
    def _signals(self) -> Signals:
        return Signals(self.case.risk, self.case.verdict)

    @property
    def _now(self) -> int:
        return int(self.case.at.timestamp() * 1000)

    def _moment(self) -> Moment:
        case = self.case
        return Moment(
            now_ms=self._now,
            environment=case.environment,
            method=case.proof.method,
            bound=case.proof.bound,
            private=self._private,
            signals=self._signals,
            approvals=Yeses(case.approvals, case.approvers),
        )

    def _destination(self) -> dict[str, Any] | None:
        try:
            return destination(self.case.destination) if self.case.destination else None
        except ValueError as error:
            raise NoRequestError(f"destination: {error}") from None


def _trail(done: Done) -> Trail:
    return Trail(
        effects=frozenset(done.effects) | frozenset(done.ways),
        data_classes=frozenset(done.data_classes),
        ways=frozenset(done.ways),
        grants=done.grants,
        calls=done.calls,
        amount=round(done.amount * AMOUNT_SCALE),
        rank=Power(done.power).rank,
    )


def _task(agent: str, capabilities: Sequence[str], **more: Any) -> Task:  # noqa: ANN401  of a Task
    plain: dict[str, Any] = {
        "purpose": "a case",
        "subject": "orchestrator",
        "actors": (agent,),
        "depth": 0,
    }
    return Task(
        id="tsk_1",
        state=TaskState.ACTIVE,
        agent=agent,
        owner="team@example.com",
        created_by="orchestrator",
        orchestrator="orchestrator",
        capabilities=tuple(capabilities),
        parent_id="",
        root_id="tsk_1",
        **{**plain, **more},
    )
