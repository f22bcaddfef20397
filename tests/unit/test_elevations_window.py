"""When an elevation is in force, and how it is read from its task's row."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.elevations import Elevation, elevated_to, elevations_of, read_elevation
from broker.tasks import Task, TaskState

_TASK = Task(
    id="tsk_x",
    state=TaskState.ACTIVE,
    agent="report-writer",
    owner="ann@example.com",
    created_by="orchestrator",
    orchestrator="orchestrator",
    subject="ann",
    purpose="a test",
    capabilities=("read",),
    parent_id="",
    root_id="tsk_x",
    actors=("report-writer",),
    depth=0,
    created_at=0,
    expires_at=100,
)
times = st.integers(0, 100)
elevation_of = st.builds(
    Elevation,
    id=st.sampled_from(("elv_a", "elv_b", "elv_c")),
    task_id=st.just("tsk_x"),
    capability=st.sampled_from(("read", "write")),
    power=st.just("privileged"),
    by=st.just("ann"),
    started_at=times,
    expires_at=times,
    heartbeat_due=times,
    ended_at=times,
)


def task_with(*elevations: Elevation) -> Task:
    rows: dict[str, Any] = {e.id: _row(e) for e in elevations}
    return replace(_TASK, elevations=rows)


def _row(elevation: Elevation) -> dict[str, Any]:
    row = asdict(elevation)
    del row["id"], row["task_id"]
    return row


@given(elevation_of, times, times)
def test_what_is_over_stays_over(elevation: Elevation, now: int, later: int) -> None:
    if not elevation.live(now):
        assert not elevation.live(now + later)
    if elevation.live(now):
        assert not elevation.ended_at
        assert elevation.expires_at > now


@given(elevation_of)
def test_a_row_is_read_as_it_was_written_and_newer_fields_are_left(elevation: Elevation) -> None:
    row = {**_row(elevation), "from_a_later_version": [1]}
    assert read_elevation("tsk_x", elevation.id, row) == elevation


@given(st.lists(elevation_of, max_size=3, unique_by=lambda e: e.id), times)
def test_a_task_has_only_what_is_live_for_it(elevations: list[Elevation], now: int) -> None:
    task = task_with(*elevations)
    started = [e.started_at for e in elevations_of(task)]
    assert started == sorted(started)
    for capability in ("read", "write"):
        live = [e for e in elevations if e.capability == capability and e.live(now)]
        for own in (True, False):  # a broken glass is for the task's own agent
            theirs = [e for e in live if own or not e.break_glass]
            found = elevated_to(task, capability, now, by_its_agent=own)
            assert found in theirs if theirs else found is None
