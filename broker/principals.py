"""What operators do about principals: add, suspend, resume, retire, review; and who looks on.

Operators change, operators and auditors read. Nobody is made an operator or an auditor at run time,
and nobody suspends or retires themselves, so that somebody is always left who can resume.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from broker.catalog import PrincipalState
from broker.errors import Conflict, InvalidRequest, NotFound
from broker.identity.models import Role
from broker.ledger.registry import Change
from broker.logs import get_logger
from broker.reach import power_json
from broker.register import Entry
from broker.registration import check_unique, definition
from broker.reviews import UNUSED, due, why
from broker.standing import FINISH_AFTER_MS, PRINCIPAL
from broker.visibility import must_operate, must_see_all
from broker.wire import page_json
from broker.wire_principals import principal_json, usage_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from broker.access import Caller
    from broker.catalog import Principal
    from broker.pipeline import Pipeline
    from broker.reach import Reach
    from broker.register import Register
    from broker.reviews import ReviewRules
    from broker.standing import Standing
    from broker.steps import Outcome
    from broker.wire_principals import AddPrincipal, Because, Review

log = get_logger("principals")
REVIEWER: Final = "reviewer"
"""In whose name the job suspends."""
_OPERATION: Final = {
    PrincipalState.ACTIVE: "resume",
    PrincipalState.SUSPENDED: "suspend",
    PrincipalState.RETIRED: "retire",
}
_DONE: Final = {
    PrincipalState.ACTIVE: "resumed",
    PrincipalState.SUSPENDED: "suspended",
    PrincipalState.RETIRED: "retired",
}


class Principals:
    """The operations on principals."""

    def __init__(
        self,
        *,
        standing: Standing,
        pipeline: Pipeline,
        reach: Reach,
        rules: ReviewRules,
        issuers: Collection[str],
        broker: str,
    ) -> None:
        """``issuers`` are the names that identities may be of, ``broker`` the broker's own URL."""
        self.roster = standing.roster
        self.rules = rules
        self._standing = standing
        self._reach = reach
        self._judge = standing.judge
        self._registry = standing.roster.registry
        self._queries = pipeline.queries
        self._capabilities = pipeline.catalog.capabilities
        self._issuers = frozenset(issuers)
        self._broker = broker

    # Reading.

    async def principals(
        self,
        caller: Caller,
        *,
        role: str = "",
        owner: str = "",
        state: str = "",
        due_only: bool = False,
        limit: int = 100,
        cursor: str = "",
    ) -> dict[str, Any]:
        """Return a page of those there are, by name; with ``due_only`` those to be reviewed."""
        must_see_all(caller)
        register = await self._registry.load()
        now, grants = await self._queries.now(), await self._registry.census()
        found = [
            principal
            for name, principal in sorted(self._standing.people(register).items())
            if name > cursor
            and role in ("", principal.role)
            and owner in ("", principal.owner)
            and state in ("", register.entry(name).state)
            and not (due_only and due(principal, register, self.rules, now) is None)
        ]
        rows = [self._json(principal, register, now, grants) for principal in found[:limit]]
        return page_json(rows, found[limit - 1].name if len(found) > limit else None)

    async def principal(self, caller: Caller, name: str) -> dict[str, Any]:
        """Return one of them; of an agent also what it can do now, and what it has used."""
        must_see_all(caller)
        register = await self._registry.load()
        now, grants = await self._queries.now(), await self._registry.census()
        principal = self._named(register, name)
        shown = self._json(principal, register, now, grants)
        if principal.role is not Role.AGENT:
            return {**shown, "effective_power": None, "granted": [], "used": []}
        return {
            **shown,
            "effective_power": power_json(await self._reach.of_agent(name)),
            **usage_json(principal, register, self._capabilities),
        }

    async def _shown(self, name: str) -> dict[str, Any]:
        register = await self._registry.load()
        now, grants = await self._queries.now(), await self._registry.census()
        return self._json(self._named(register, name), register, now, grants)

    def _json(
        self, principal: Principal, register: Register, now: int, grants: Mapping[str, int]
    ) -> dict[str, Any]:
        found = due(principal, register, self.rules, now)
        return principal_json(
            principal,
            register,
            due=found.reasons if found else (),
            overdue_at=found.overdue_at if found else 0,
            live_grants=grants.get(principal.name, 0),
        )

    def _named(self, register: Register, name: str) -> Principal:
        principal = self._standing.people(register).get(name)
        if principal is None:
            raise NotFound("There is no such principal.")
        return principal

    # Changing.

    async def add(self, caller: Caller, ask: AddPrincipal) -> dict[str, Any]:
        """Register a principal. The same request again answers with the same principal.

        Raises:
            InvalidRequest: it can't be one.
            Conflict: its name, identity or resource is somebody's, or its owner has left.
        """
        must_operate(caller)
        await self._judge.operate(caller, "add_principal", f"agent:{ask.name}")
        added = definition(
            ask, issuers=self._issuers, capabilities=self._capabilities, broker=self._broker
        )

        def decide(register: Register, now: int) -> Change | None:
            self._standing.check(register, caller)
            known = register.entries.get(ask.name)
            entry = Entry(
                name=ask.name, owner=ask.owner, added=added, added_at=now, added_by=caller.name
            )
            if known is not None and _is_the_same(known, entry):
                if ask.name not in self.roster.configured:
                    return None
            elif known is not None and ask.name not in self._standing.people(register):
                # Of a configuration that had it once: its name stays what it was.
                raise Conflict(f"The name {ask.name!r} was another's: choose another.")
            check_unique(entry, self._standing.people(register).values())
            if register.has_left(ask.owner):
                raise Conflict(
                    f"The owner {ask.owner!r} has left: name another, or reinstate them."
                )
            _check_future(ask.review_by, now, "review_by")
            said = {key: value for key, value in added.items() if key != "jwks"}
            about = {"name": ask.name, "owner": ask.owner, **said}
            return Change(entries=[entry], events=[("principal.added", about)])

        await self._standing.change(decide, actor=caller.name)
        return await self._shown(ask.name)

    async def suspend(
        self, caller: Caller, name: str, ask: Because
    ) -> tuple[dict[str, Any], Outcome]:
        """Stop a principal: no token, task or grant any more, and all it had is revoked."""
        return await self._set(caller, name, PrincipalState.SUSPENDED, ask.reason)

    async def resume(
        self, caller: Caller, name: str, ask: Because
    ) -> tuple[dict[str, Any], Outcome]:
        """Let a suspended principal work again; what was revoked stays so."""
        return await self._set(caller, name, PrincipalState.ACTIVE, ask.reason)

    async def retire(
        self, caller: Caller, name: str, ask: Because
    ) -> tuple[dict[str, Any], Outcome]:
        """As ``suspend``, for good: the name is never anybody else's."""
        return await self._set(caller, name, PrincipalState.RETIRED, ask.reason)

    async def _set(
        self, caller: Caller, name: str, state: PrincipalState, reason: str
    ) -> tuple[dict[str, Any], Outcome]:
        must_operate(caller)
        stops = state is not PrincipalState.ACTIVE
        await self._judge.operate(
            caller, f"{_OPERATION[state]}_principal", f"agent:{name}", always=stops
        )

        def decide(register: Register, now: int) -> Change | None:
            self._standing.check(register, caller)
            self._named(register, name)
            if name == caller.name:
                raise Conflict("Nobody does this to themselves: ask another operator.")
            return self._moved(register, name, state, now, caller.name, reason)

        await self._standing.change(decide, actor=caller.name)
        # Also when nothing was changed: whoever asks again may be finishing what a crash left.
        outcome = await self._standing.finish(PRINCIPAL + name, actor=caller.name)
        return await self._shown(name), outcome

    def _moved(
        self,
        register: Register,
        name: str,
        state: PrincipalState,
        now: int,
        actor: str,
        reason: str,
    ) -> Change | None:
        entry = register.entry(name)
        if entry.state is state:
            return None
        if entry.state is PrincipalState.RETIRED:
            raise Conflict(f"Principal {name!r} is retired, for good.", state=str(entry.state))
        after = replace(entry, state=state, state_at=now, state_by=actor, state_reason=reason)
        if state is PrincipalState.ACTIVE:
            after = replace(after, back_at=now)
        event = (f"principal.{_DONE[state]}", {"name": name, "reason": reason})
        return Change(entries=[after], todo=[PRINCIPAL + name], events=[event])

    async def review(self, caller: Caller, name: str, ask: Review) -> dict[str, Any]:
        """Somebody looked at a principal, and says when to look again."""
        must_operate(caller)
        await self._judge.operate(caller, "review_principal", f"agent:{name}")

        def decide(register: Register, now: int) -> Change:
            self._standing.check(register, caller)
            self._named(register, name)
            entry = register.entry(name)
            if entry.state is PrincipalState.RETIRED:
                raise Conflict(f"Principal {name!r} is retired, for good.", state=str(entry.state))
            _check_future(ask.next, now, "next")
            after = replace(
                entry,
                review_at=ask.next,
                reviewed_at=now,
                reviewed_by=caller.name,
                review_note=ask.note or "",
            )
            about = {"name": name, "next": ask.next, "note": ask.note or ""}
            return Change(entries=[after], events=[("principal.reviewed", about)])

        await self._standing.change(decide, actor=caller.name)
        return await self._shown(name)

    # The periodic jobs.

    async def keep_up(self, *, older_than_ms: int = FINISH_AFTER_MS) -> None:
        """Write down who was used, notice changes, and finish those that a replica left undone."""
        await self.roster.keep_up()
        if self.roster.register.todo:
            register = await self.roster.reread()
            if done := await self._standing.finish_all(register, older_than_ms=older_than_ms):
                log.warning("finished what a replica had left", changes=done)

    async def sweep(self, *, now_ms: int | None = None) -> list[str]:
        """Put the marks right, and suspend the overdue as of ``now_ms``; returns whom."""
        register = await self._registry.load()
        await self._note_new(register)
        if wrong := await self._standing.repair(register):
            log.warning("marks put right", marks=wrong)
        if not self.rules.suspend:
            return []
        now = now_ms or await self._queries.now()
        suspended: list[str] = []
        for name, principal in self._standing.people(register).items():
            found = due(principal, register, self.rules, now)
            if found is not None and found.overdue_at <= now and await self._overdue(name, now):
                suspended.append(name)
        return suspended

    async def _note_new(self, register: Register) -> None:
        """Write down who is new here, and since when an agent may have a capability."""
        new = set(self.roster.configured) - set(register.seen)
        may = {
            (name, capability)
            for name, principal in self._standing.people(register).items()
            if principal.role is Role.AGENT and principal.state is not PrincipalState.RETIRED
            for capability in principal.capabilities
        }
        held = set(register.allowed)
        if new or may != held:
            await self._registry.note(seen=new, allowed=may - held, gone=held - may)

    async def _overdue(self, name: str, as_of: int) -> bool:
        def decide(register: Register, now: int) -> Change | None:
            principal = self._standing.people(register).get(name)
            found = due(principal, register, self.rules, as_of) if principal else None
            if found is None or found.overdue_at > as_of:
                return None  # used, reviewed or stopped meanwhile
            reason = why(found, self.rules)
            change = self._moved(register, name, PrincipalState.SUSPENDED, now, REVIEWER, reason)
            if change is None or UNUSED not in found.reasons:
                return change
            return replace(change, unused=(name, as_of - self.rules.unused_after_ms))

        if not await self._standing.change(decide, actor=REVIEWER):
            return False
        log.warning("principal suspended, nobody reviewed it", principal=name)
        await self._standing.finish(PRINCIPAL + name, actor=REVIEWER)
        return True


def _is_the_same(known: Entry, asked: Entry) -> bool:
    same = known.added == asked.added and known.owner == asked.owner
    return same and known.state is not PrincipalState.RETIRED


def _check_future(at: int | None, now: int, field: str) -> None:
    if at is not None and at <= now:
        raise InvalidRequest(f"{field}: must be a day to come", field=field)
