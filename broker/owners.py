"""Owners: who answers for whom, and what becomes of that when they leave.

Nothing is issued without a living owner. Who leaves takes all of theirs along, or hands it over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from broker.catalog import PrincipalState
from broker.errors import Conflict, InvalidRequest, NotFound
from broker.ledger.registry import Change
from broker.register import OwnerEntry
from broker.standing import OWNER
from broker.visibility import must_operate, must_see_all
from broker.wire import page_json
from broker.wire_principals import owner_json

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.catalog import Principal
    from broker.register import Entry, Register
    from broker.standing import Standing
    from broker.steps import Outcome
    from broker.wire_principals import ReinstateOwner, RetireOwner


class Owners:
    """The operations on owners."""

    def __init__(self, standing: Standing) -> None:
        """Change the register through ``standing``."""
        self._standing = standing
        self._registry = standing.roster.registry

    async def owners(self, caller: Caller) -> dict[str, Any]:
        """Return every owner there is or was, by name."""
        must_see_all(caller)
        register = await self._registry.load()
        grants = await self._registry.census()
        people = self._standing.people(register).values()
        names = sorted({p.owner for p in people} | set(register.owners))
        rows = [
            owner_json(
                name, register.owners.get(name), [p for p in people if p.owner == name], grants
            )
            for name in names
        ]
        return page_json(rows, None)

    async def retire(self, caller: Caller, ask: RetireOwner) -> tuple[dict[str, Any], Outcome]:
        """An owner leaves: all of theirs stops and is revoked, or is another's from now on.

        Raises:
            NotFound: nothing is, or was, theirs.
            Conflict: the new owner has left as well, or it is the caller's own.
        """
        must_operate(caller)
        await self._standing.judge.operate(
            caller, "retire_owner", f"owner:{ask.owner}", always=True
        )
        if ask.owner == ask.hand_over_to:
            raise InvalidRequest("hand_over_to: must be somebody else", field="hand_over_to")

        def decide(register: Register, now: int) -> Change | None:
            self._standing.check(register, caller)
            theirs = self._owned(register, ask.owner)
            known = register.owners.get(ask.owner)
            if known is None and not theirs:
                raise NotFound("Nothing here is, or was, this owner's.")
            if ask.hand_over_to is None:
                if any(p.name == caller.name for p in theirs):
                    raise Conflict("They own you: hand over, or ask another operator.")
                if known is not None and known.left:
                    return None
            elif register.has_left(ask.hand_over_to):
                raise Conflict(f"The owner {ask.hand_over_to!r} has left, too: name another.")
            elif known is not None and known.left and not theirs:
                return None
            return _retired(register, ask, theirs, now, caller.name)

        await self._standing.change(decide, actor=caller.name)
        outcome = await self._standing.finish(OWNER + ask.owner, actor=caller.name)
        return await self._shown(ask.owner), outcome

    async def reinstate(self, caller: Caller, ask: ReinstateOwner) -> dict[str, Any]:
        """An owner is back, and what is still theirs may work again."""
        must_operate(caller)
        await self._standing.judge.operate(caller, "reinstate_owner", f"owner:{ask.owner}")

        def decide(register: Register, now: int) -> Change | None:
            self._standing.check(register, caller)
            known = register.owners.get(ask.owner)
            if known is None:
                raise NotFound("No owner of this name has left.")
            if not known.left:
                return None
            back = OwnerEntry(
                owner=ask.owner, left=False, at=now, by=caller.name, reason=ask.reason
            )
            event = ("owner.reinstated", {"owner": ask.owner, "reason": ask.reason})
            return Change(owners=[back], todo=[OWNER + ask.owner], events=[event])

        await self._standing.change(decide, actor=caller.name)
        await self._standing.finish(OWNER + ask.owner, actor=caller.name)
        return await self._shown(ask.owner)

    def _owned(self, register: Register, owner: str) -> list[Principal]:
        people = self._standing.people(register).values()
        return [p for p in people if p.owner == owner and p.state is not PrincipalState.RETIRED]

    async def _shown(self, owner: str) -> dict[str, Any]:
        register = await self._registry.load()
        grants = await self._registry.census()
        return owner_json(owner, register.owners.get(owner), self._owned(register, owner), grants)


def _retired(
    register: Register, ask: RetireOwner, theirs: list[Principal], now: int, actor: str
) -> Change:
    to = ask.hand_over_to
    names = sorted(p.name for p in theirs)
    about: dict[str, Any] = {"owner": ask.owner, "reason": ask.reason, "principals": names}
    if to is not None:
        about["handed_over_to"] = to
    gone = OwnerEntry(
        owner=ask.owner, left=True, at=now, by=actor, reason=ask.reason, handed_to=to or ""
    )
    entries: list[Entry] = []
    if to is not None:
        had_left = register.has_left(ask.owner)
        for name in names:
            entry = register.entry(name)
            # Tokens from before the owner had left stay dead.
            back_at = now if had_left else entry.back_at
            entries.append(replace(entry, owner=to, handed_over_at=now, back_at=back_at))
    return Change(
        entries=entries, owners=[gone], todo=[OWNER + ask.owner], events=[("owner.retired", about)]
    )
