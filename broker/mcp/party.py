"""Whom the server acts for: the one agent beside a process, or whoever has sent a request.

Who that is comes from the identity that the broker has verified, and from nothing else: not from
arguments, headers, or what a client says of itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.client import InvalidRequest, NotFound

if TYPE_CHECKING:
    from broker.client import AsyncClient

SCHEME: Final = "task://"


@dataclass(slots=True)
class Party:
    """One that is acted for. Its client's tokens are sealed: by them no credential is seen.

    ``task_id`` is the task that its token is for. ``agent`` is whom an orchestrator's tasks are
    opened for. ``opened`` are the tasks that were opened here and haven't ended here, each with the
    time in seconds after which silence ends it, or None. A ``confined`` party reaches these alone,
    whatever else its identity could; else the broker's word is enough, since its token is for one
    task. ``news`` is set when a task was opened.
    """

    client: AsyncClient
    task_id: str | None = None
    agent: str | None = None
    confined: bool = False
    heartbeat: str | None = None
    opened: dict[str, float | None] = field(default_factory=dict[str, float | None])
    news: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are known here, its own first."""
        own = (self.task_id,) if self.task_id else ()
        return (*own, *self.opened)

    def task(self, asked: str | None) -> str:
        """Return the task that a call is about.

        Raises:
            InvalidRequest: none is named, and there isn't just one.
            NotFound: it is none of those that this party may name.
        """
        if asked is None:
            if self.task_id is not None:
                return self.task_id
            if len(self.opened) == 1:
                return next(iter(self.opened))
            msg = "Name one of the tasks in task_id." if self.opened else "Call open_task first."
            raise InvalidRequest(f"There isn't just one task. {msg}", code="task_needed")
        if self.confined and asked not in self.tasks:
            raise NotFound("There is no such task here.")
        return asked

    async def link(self, approval_id: str) -> str:
        """Return where people look at an approval, and answer it once they have signed in."""
        return f"{await self.client.get_issuer()}/console/approvals/{approval_id}"


def resource_of(task_id: str) -> str:
    """Return the URI of a task's state."""
    return f"{SCHEME}{task_id}"
