"""``broker elevate``, ``break-glass`` and ``review``, against a real HTTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.consent_documents import ACCEPTED, APPROVED, ELEVATION, GLASS, page
from tests.unit.fake_broker import HANG_UP, FakeBroker, problem
from tests.unit.terminal import Terminal

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run

ELEVATIONS = "POST /v1/tasks/tsk_1/elevations"
BREAK = "POST /v1/tasks/tsk_1/break-glass"
ELEVATE = ("elevate", "tsk_1", "deploy", "--intent", "ship it")
GLASSES = ("break-glass", "tsk_1", "deploy", "--intent", "the shop is down")


def test_elevate(fake: FakeBroker, run: Run) -> None:
    fake.on(ELEVATIONS, 201, ELEVATION)

    ran = run(*ELEVATE, "--ttl", "10m", "--heartbeat", "30s")

    assert fake.last.json == {
        "capability": "deploy",
        "intent": "ship it",
        "ttl": "10m",
        "heartbeat": "30s",
    }
    assert ran.code == 0
    for words in ("elv_1", "active", "deploy (privileged)", "apr_1", "2026-01-02 03:14:05Z"):
        assert words in ran.out
    assert "broker task heartbeat tsk_1" in ran.err
    assert run(*ELEVATE, "--json").json == ELEVATION


def test_elevate_waits_for_its_approval(fake: FakeBroker, run: Run) -> None:
    fake.on(ELEVATIONS, 202, ACCEPTED, Retry_After="5")
    fake.on(ELEVATIONS, 202, ACCEPTED)
    assert run(*ELEVATE).code == 5
    fake.on(ELEVATIONS, 201, ELEVATION)
    fake.on("GET /v1/approvals/apr_1", 200, APPROVED)
    ran = run(*ELEVATE, "--wait", "5m")
    assert (ran.code, "elv_1" in ran.out) == (0, True)


def test_a_lost_answer_isnt_asked_for_again(fake: FakeBroker, run: Run) -> None:
    # It may have used the approval up: asked again, it would want another.
    fake.on(ELEVATIONS, HANG_UP)
    assert run(*ELEVATE).code == 3
    assert len(fake.seen) == 1


def test_list_and_end(fake: FakeBroker, run: Run) -> None:
    ended = {**ELEVATION, "state": "ended", "reason": "window", "elevation_id": "elv_2"}
    fake.on("GET /v1/tasks/tsk_1/elevations", 200, page(ELEVATION, ended))
    fake.on("DELETE /v1/tasks/tsk_1/elevations/elv_1", 200, {**ELEVATION, "state": "ended"})

    rows = run("elevate", "list", "tsk_1").out.splitlines()

    assert rows[1].split()[:3] == ["elv_1", "active", "deploy"]
    assert "window" in rows[2]
    assert len(run("elevate", "list", "tsk_1", "--json").json["items"]) == 2
    assert "ended" in run("elevate", "end", "tsk_1", "elv_1").out


def test_break_glass_where_nobody_can_be_asked_needs_a_yes(fake: FakeBroker, run: Run) -> None:
    ran = run(*GLASSES)
    assert (ran.code, fake.seen) == (2, [])
    assert "--yes" in ran.err

    fake.on(BREAK, 201, GLASS)
    ran = run(*GLASSES, "--ttl", "5m", "--yes")
    assert fake.last.json == {"capability": "deploy", "intent": "the shop is down", "ttl": "5m"}
    assert "somebody has to look at it afterwards" in ran.out
    assert "broker elevate end tsk_1 elv_1" in ran.err
    assert run(*GLASSES, "--yes", "--json").json == GLASS


@pytest.mark.parametrize(("typed", "code"), [("yes", 1), ("", 1), ("deploy", 0)])
def test_at_a_terminal_the_capability_is_typed(fake: FakeBroker, typed: str, code: int) -> None:
    fake.on(BREAK, 201, GLASS)
    terminal = Terminal(*GLASSES)
    terminal.until("Type deploy to go on:")
    assert fake.seen == []
    terminal.type(typed)
    assert terminal.ended() == code
    assert len(fake.seen) == (code == 0)


def test_a_glass_that_isnt_to_be_broken(fake: FakeBroker, run: Run) -> None:
    fake.answers[BREAK].append(
        problem(403, "binding_required", "A bound token is needed.", decision_id="dec_1")
    )
    ran = run(*GLASSES, "--yes")
    assert (ran.code, ran.out) == (4, "")
    assert "bound token" in ran.err
    assert "broker policy explain dec_1" in ran.err


def test_reviews(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/reviews", 200, page(GLASS))
    fake.on("POST /v1/reviews/elv_1/close", 200, {**GLASS, "review": "closed", "findings": "none"})

    shown = run("review", "list")

    assert fake.last.query["state"] == "open"
    for words in ("elv_1", "report-writer", "deploy", "ship it", "1 failed"):
        assert words in shown.out
    assert run("review", "list", "--json").json["items"] == [GLASS]
    run("review", "list", "--closed")
    assert fake.last.query["state"] == "closed"

    ran = run("review", "close", "elv_1", "--findings", "none")
    assert fake.last.json == {"findings": "none"}
    assert "closed" in ran.out


def test_nothing_to_review_says_so(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/reviews", 200, page())
    assert run("review", "list").err == "No review is open.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("elevate", "tsk_1", "deploy"),
        ("elevate", "tsk_1", "--intent", "x"),
        (*ELEVATE, "--ttl", "soon"),
        (*ELEVATE, "--wait", "0s"),
        ("elevate", "end", "tsk_1"),
        ("break-glass", "tsk_1", "deploy", "--yes"),
        ("review", "close", "elv_1"),
        ("review", "close", "elv_1", "--findings", " "),
    ],
    ids=" ".join,
)
def test_wrong_usage_sends_nothing(fake: FakeBroker, run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).code == 2
    assert fake.seen == []


@pytest.mark.parametrize(
    "words",
    [
        ("elevate",),
        ("elevate", "list"),
        ("elevate", "end"),
        ("break-glass",),
        ("review", "list"),
        ("review", "close"),
    ],
    ids=" ".join,
)
def test_every_command_has_help_with_an_example(run: Run, words: tuple[str, ...]) -> None:
    assert f"broker {' '.join(words)} " in run(*words, "--help").out
