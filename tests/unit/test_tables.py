"""The tables of legal moves say what DESIGN.md says."""

from __future__ import annotations

import itertools

import pytest

from broker.grants import DEAD, GRANT_MOVES, LIVE, GrantState
from broker.ledger import scripts
from broker.ledger.models import is_dead
from broker.ledger.rows import grant_row
from broker.tasks import ENDED, TASK_MOVES, TaskState

GRANTS = """
pending → active → revoking → revoked
pending → failed
pending → revoking
revoking → stuck → revoking
revoking → abandoned
stuck → abandoned
"""
TASKS = """
pending_approval → active → completed
active → failed
active → cancelled
active → expired
active → revoked
pending_approval → denied
pending_approval → cancelled
pending_approval → expired
pending_approval → revoked
"""


def moves(text: str) -> set[tuple[str, str]]:
    chains = [line.split(" → ") for line in text.split("\n") if line]
    return {pair for chain in chains for pair in itertools.pairwise(chain)}


def test_grants_move_as_designed() -> None:
    assert {(str(a), str(b)) for a, to in GRANT_MOVES.items() for b in to} == moves(GRANTS)


def test_tasks_move_as_designed() -> None:
    assert {(str(a), str(b)) for a, to in TASK_MOVES.items() for b in to} == moves(TASKS)


def test_every_state_has_its_row() -> None:
    assert set(GRANT_MOVES) == set(GrantState)
    assert set(TASK_MOVES) == set(TaskState)


def test_only_the_dead_and_the_ended_stay_as_they_are() -> None:
    assert {GrantState.REVOKED, GrantState.FAILED, GrantState.ABANDONED} == DEAD
    assert set(GrantState) - DEAD == LIVE
    assert set(TaskState) - ENDED == {TaskState.PENDING_APPROVAL, TaskState.ACTIVE}


@pytest.mark.parametrize("state", list(GrantState))
def test_dead_means_the_same_everywhere(state: GrantState) -> None:
    row = (
        f'{{"state": "{state}", "task_id": "t", "agent": "a", "orchestrator": "o",'
        '"capability": "c", "backend": "b", "power": "read", "created_at": 1, "expires_at": 2,'
        '"of_a_newer_version": true}'
    )
    assert is_dead(grant_row(row, "g")) is (state in DEAD)


@pytest.mark.parametrize("name", scripts.NAMES)
def test_every_script_is_given_both_tables(name: str) -> None:
    text = scripts.source(name)
    assert text.startswith("#!lua")
    assert "  revoking = { abandoned = true, revoked = true, stuck = true },\n" in text
    assert "  revoked = {  },\n" in text
    assert text.count("local GRANT_MOVES = {") == text.count("local TASK_MOVES = {") == 1
