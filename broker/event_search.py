"""Looking for events in the ledger: those of a kind, of a principal, with some text in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.ledger.queries import Page
from broker.wire import event_json

if TYPE_CHECKING:
    from broker.events import Event
    from broker.ledger.queries import Queries

_SCAN: Final = 200
"""Events read in one go."""
_TIMES: Final = 10
"""How often, for one answer: whoever looks for what is rare goes on from its ``next``."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: ``kind`` is a type such as ``grant.revoked``, or its first word."""

    kind: str = ""
    principal: str = ""
    text: str = ""

    @property
    def is_all(self) -> bool:
        """Whether any event will do."""
        return not (self.kind or self.principal or self.text)

    def fits(self, event: Event) -> bool:
        """Say whether this is one of them."""
        if self.kind and event.type != self.kind and not event.type.startswith(f"{self.kind}."):
            return False
        if self.principal and event.principal != self.principal:
            return False
        said = json.dumps(event_json(event), ensure_ascii=False) if self.text else ""
        return self.text.casefold() in said.casefold()


async def search(
    queries: Queries, wanted: Wanted, *, after: str, task_id: str, since_ms: int, limit: int
) -> Page[Event]:
    """Return a page of the events that fit, oldest first.

    It may be short, or empty, and have a ``next`` all the same.
    """
    if wanted.is_all:
        return await queries.events(after=after, task_id=task_id, since_ms=since_ms, limit=limit)
    found: list[Event] = []
    for _ in range(_TIMES):
        page = await queries.events(after=after, task_id=task_id, since_ms=since_ms, limit=_SCAN)
        for event in filter(wanted.fits, page.items):
            found.append(event)
            if len(found) == limit:
                return Page(tuple(found), event.id)
        if page.next is None:
            return Page(tuple(found), None)
        after = page.next
    return Page(tuple(found), after)
