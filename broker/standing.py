"""Makes changes of the register, and sees to it that they take effect everywhere.

A change is decided on the register as it is and written in one script: the entry, the first shard's
marks, its events, and that its effects are still to be spread. Then, in this order:

1. the marks go to every shard, and from there on nothing more is issued;
2. the tasks of whoever is stopped end, and with them their grants;
3. the change counts as done.

Each step can be repeated. What a crash has left between them, ``finish_all`` of any replica does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.catalog import PrincipalState
from broker.errors import LedgerUnavailable, PrincipalSuspended
from broker.identity.models import Role
from broker.ledger.registry import Stopped
from broker.register import all_marks, marks_of, marks_of_owner, view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.access import Caller
    from broker.catalog import Principal
    from broker.ledger.registry import Change
    from broker.ledger.roster import Roster
    from broker.pipeline import Pipeline
    from broker.register import Mark, Register
    from broker.steps import Outcome

    Decide = Callable[[Register, int], Change | None]

PRINCIPAL: Final = "p|"
OWNER: Final = "o|"
FINISH_AFTER_MS: Final = 5_000
"""How old an unfinished change is before another replica than its maker's finishes it."""
_TRIES: Final = 50


class Standing:
    """Changes of the register. ``actor`` is the principal in whose name one is logged."""

    def __init__(self, pipeline: Pipeline, roster: Roster) -> None:
        """End tasks and revoke through the one pipeline."""
        self.roster = roster
        self._registry = roster.registry
        self._pipeline = pipeline
        self.judge = pipeline.judge

    def people(self, register: Register) -> Mapping[str, Principal]:
        """Return everybody there is by a register."""
        return view(self.roster.configured.values(), register)

    async def change(self, decide: Decide, *, actor: str) -> bool:
        """Make the change that ``decide`` returns for the register and the time (epoch ms).

        It is asked again when another change came between; what it raises is refused, and None
        means that there is nothing to change. Returns whether something was.
        """
        for _ in range(_TRIES):
            register = await self._registry.load()
            change = decide(register, await self._pipeline.queries.now())
            if change is None:
                await self.roster.reload()
                return False
            after = register.changed(change.entries, change.owners)
            marks = self._marks(
                after, {e.name for e in change.entries}, {o.owner for o in change.owners}
            )
            answer = await self._registry.write(register, change, marks, actor=actor)
            if answer != "changed":
                await self.roster.reload()
                return answer == "ok"
        msg = "Too many changes of principals at once; nothing was changed. Try again."
        raise LedgerUnavailable(msg, retry_after=1)

    def _marks(self, register: Register, names: Iterable[str], owners: Iterable[str]) -> list[Mark]:
        """Return the marks of some principals, and of some owners and all that is theirs."""
        people, owners = self.people(register), set(owners)
        names = set(names) | {p.name for p in people.values() if p.owner in owners}
        marks = [mark for owner in sorted(owners) for mark in marks_of_owner(register, owner)]
        for name in sorted(names):
            owner = people[name].owner if name in people else register.entry(name).owner
            marks += marks_of(register, name, owner)
        return marks

    async def finish(self, item: str, *, actor: str) -> Outcome:
        """Take a change through steps 1 to 3; ``item`` is ``p|NAME`` or ``o|OWNER``."""
        register = await self._registry.load()
        kind, name = item[:2], item[2:]
        people = self.people(register)
        if kind == PRINCIPAL:
            marks = self._marks(register, [name], [])
            affected = [people[name]] if name in people else []
            stopped = _stopped(affected)
            entry = register.entry(name)
            reason = f"principal {name} {entry.state}: {entry.state_reason}"
        else:
            handed = [e.name for e in register.entries.values() if e.handed_over_at]
            marks = self._marks(register, handed, [name])
            affected = [p for p in people.values() if p.owner == name]
            left = register.has_left(name)
            keep = [n for n in handed if n in people and people[n].owner != name]
            stopped = _stopped(affected, owners=[name] if left else [], keep=keep)
            reason = f"owner {name} left"
        await self._registry.spread(marks, register.version)
        claimed = await self._registry.end_tasks(stopped, reason=reason, actor=actor)
        if item in register.todo:
            await self._registry.settle(item, register.todo[item][0])
        return await self._pipeline.revoke_and_close(claimed)

    async def finish_all(self, register: Register, *, older_than_ms: int) -> list[str]:
        """Finish what nobody did; returns what that was."""
        now = await self._pipeline.queries.now()
        left = [i for i, (_, at) in register.todo.items() if now - at >= older_than_ms]
        for item in left:
            await self.finish(item, actor="broker")
        return left

    async def repair(self, register: Register) -> int:
        """Put every shard's marks right; returns how many were wrong."""
        wanted = all_marks(register, self.people(register))
        return await self._registry.repair(wanted, register.version)

    def check(self, register: Register, caller: Caller) -> None:
        """Refuse a caller who was stopped since they were let in.

        Decided together with the change, so of two operators who suspend each other one remains.

        Raises:
            PrincipalSuspended: the caller is.
        """
        principal = self.people(register).get(caller.name)
        if principal is None or principal.state is not PrincipalState.ACTIVE:
            raise PrincipalSuspended(f"Principal {caller.name!r} is suspended or retired.")


def _stopped(
    affected: Iterable[Principal], *, owners: Iterable[str] = (), keep: Iterable[str] = ()
) -> Stopped:
    found = [p for p in affected if p.state is not PrincipalState.ACTIVE]
    return Stopped(
        agents=[p.name for p in found],
        orchestrators=[p.name for p in found if p.role is Role.ORCHESTRATOR],
        owners=list(owners),
        keep=list(keep),
    )
