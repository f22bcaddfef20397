"""The client reads all that a real broker says of approvals, elevations and broken glasses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import pytest

from broker.client import ApprovalRequired, AsyncClient, Conflict, Denied, Secret

if TYPE_CHECKING:
    from tests.http.consenting import ConsentWorld


def client(consent: ConsentWorld, name: str, task: str = "") -> AsyncClient:
    """A client in this process, as one of the parties."""
    return AsyncClient(
        consent.config.broker.issuer,
        lambda: Secret(consent.identity(name)),
        task_id=task,
        http_transport=httpx2.ASGITransport(consent.app.http()),
    )


async def test_waiting_ends_when_somebody_has_said_yes(consent: ConsentWorld) -> None:
    task = (await consent.open(capabilities=["orders-read"]))["task_id"]
    async with client(consent, "report-writer", task) as agent, client(consent, "alice") as alice:
        with pytest.raises(ApprovalRequired) as caught:
            await agent.elevate(task, "orders-admin", intent="mend order 7", ttl="5m")
        needed = caught.value
        assert needed.retry_after is not None
        assert needed.expires_at is not None
        waiting = asyncio.create_task(agent.wait_for_approval(needed.approval_id, "1m"))

        (asked,) = [a async for a in alice.iter_approvals(state="pending", task_id=task)]
        assert asked.approval_id == needed.approval_id
        assert asked.request == {"ttl_ms": 300_000, "heartbeat_ms": 60_000}
        assert (await alice.approve(asked.approval_id, "ticket 7")).votes[0].by == "alice"

        approved = await waiting
        assert (approved.state, approved.votes, approved.needs[0].have) == ("approved", (), 1)
        elevation = await agent.elevate(task, "orders-admin", intent="mend it", ttl="5m")
        assert elevation.approval_id == needed.approval_id
        assert not elevation.extra, "the client knows every member"
        assert not approved.extra
        with pytest.raises(Conflict):
            await alice.deny(asked.approval_id, "too late")
        assert (await agent.end_elevation(task, elevation.elevation_id)).state == "ended"
        assert (await agent.end_elevation(task, elevation.elevation_id)).state == "ended"


async def test_a_broken_glass_is_reviewed(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-read"])
    broken = await consent.break_glass(task)
    assert broken.status_code == 201, broken.text
    elevation = broken.json()["elevation_id"]
    async with client(consent, "bob") as bob, client(consent, "orchestrator") as stranger:
        (review,) = [r async for r in bob.iter_reviews(state="open")]
        assert (review.elevation_id, review.break_glass, review.review) == (elevation, True, "open")
        assert review.rotation == {"database/rotate-root/orders": "pending"}
        with pytest.raises(Denied):
            await stranger.close_review(elevation, "nothing to see")
        await bob.end_elevation(task["task_id"], elevation)
        closed = await bob.close_review(elevation, "nothing was read")
        assert (closed.review, closed.reviewed_by, closed.extra) == ("closed", "bob", {})
        assert [r.elevation_id async for r in bob.iter_reviews(state="closed")] == [elevation]
        assert [r async for r in bob.iter_reviews()] == []
