"""What follows a break-glass: rotation of what it touched, and somebody who looks at it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from broker.elevations import Elevation, ReviewState
from broker.errors import AccessDenied, BackendRefused, BackendUnavailable, NotFound
from broker.ledger import keys
from broker.logs import get_logger
from broker.visibility import must_operate, must_see_all
from broker.wire import page_json
from broker.wire_approvals import elevation_json

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.ledger.elevations import ElevationTable
    from broker.pipeline import Pipeline

log = get_logger("elevations")
_ACTOR: Final = "broker"
_ROTATING_MS: Final = 60_000
"""How long a rotation that nobody heard the end of may be going on."""
PENDING: Final = "pending"
DONE: Final = "done"
FAILED: Final = "failed"


class BrokenGlass:
    """Rotates, and keeps the reviews."""

    def __init__(self, pipeline: Pipeline, table: ElevationTable) -> None:
        """Rotate at the pipeline's backends."""
        self._pipeline = pipeline
        self._judge = pipeline.judge
        self._queries = pipeline.queries
        self._table = table

    async def rotate(self, elevation: Elevation) -> bool:
        """Rotate what a break-glass may have seen; whether nothing of it is left to do.

        One at a time for each path, over all replicas: OpenBao loses its connection to the target
        for good when it is told twice at once. A failure is told once, and tried again until it
        is done or the review is closed: from then on it is in the hands of whoever closed it.
        """
        for path in (path for path, state in elevation.rotation.items() if state != DONE):
            by = f"{elevation.id}:{secrets.token_hex(6)}"
            if await self._table.hold(keys.rotation(path), by, _ROTATING_MS) != by:
                return False
            try:
                error = await self._rotated(elevation, path)
            except BackendUnavailable as failed:
                error = failed.detail  # it may still be at it: the mark stays, and goes by itself
            else:
                await self._table.release(keys.rotation(path), by)
            state = FAILED if error else DONE
            await self._table.rotated(elevation, path, state, error=error, actor=_ACTOR)
            if error:
                log.warning("not rotated", path=path, elevation=elevation.id, error=error)
                return elevation.review == ReviewState.CLOSED
        return True

    async def _rotated(self, elevation: Elevation, path: str) -> str:
        """Rotate one of them; returns why it wasn't.

        Raises:
            BackendUnavailable: nobody knows whether it was.
        """
        capability = self._judge.catalog.capabilities.get(elevation.capability)
        backend = self._pipeline.backends.get(capability.backend) if capability else None
        if capability is None or backend is None or capability.rotate != path:
            return "the configuration doesn't say any more that it is to be rotated"
        try:
            done = await backend.rotate(capability)
        except BackendRefused as error:
            return error.detail
        return "" if done else "the backend has nothing to rotate there"

    async def reviews(
        self, caller: Caller, *, state: str, limit: int, cursor: str
    ) -> dict[str, Any]:
        """Return the break-glasses that nobody has looked at yet, or those that were."""
        must_see_all(caller)
        wanted = ReviewState(state or ReviewState.OPEN)
        found, more = await self._table.reviews(wanted, limit=limit, cursor=cursor)
        now = await self._queries.now()
        return page_json([elevation_json(t, e, live=e.live(now)) for t, e in found], more)

    async def review(self, caller: Caller, elevation_id: str) -> dict[str, Any]:
        """Return a break-glass by its id, whether it was looked at or not.

        Raises:
            NotFound: there is none.
        """
        must_see_all(caller)
        place = await self._table.review_of(elevation_id)
        if place is None:
            raise NotFound("There is no such review.")
        task, elevation = place
        return elevation_json(task, elevation, live=elevation.live(await self._queries.now()))

    async def close_review(
        self, caller: Caller, elevation_id: str, findings: str
    ) -> dict[str, Any]:
        """Close the review of a break-glass with what was found.

        Raises:
            NotFound: there is none.
            AccessDenied: the caller broke the glass, or policy says no.
            Conflict: it was closed before, or the glass is still broken.
        """
        must_operate(caller)
        await self._judge.operate(caller, "close_review")
        place = await self._table.review_of(elevation_id)
        if place is None:
            raise NotFound("There is no such review.")
        task, elevation = place
        if caller.name in (elevation.by, task.agent):
            raise AccessDenied("Somebody else has to review this: it was you who broke the glass.")
        task, closed = await self._table.close_review(
            task.id, elevation.id, findings=findings, actor=caller.name
        )
        return elevation_json(task, closed, live=False)
