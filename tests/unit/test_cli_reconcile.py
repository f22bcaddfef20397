"""``broker reconcile``: what is shown, what is asked before anything is ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.unit.terminal import Terminal

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run
    from tests.unit.fake_broker import FakeBroker

PATH: Final = "/v1/reconciliations"
FOUND: Final[dict[str, Any]] = {
    "kind": "orphan_token",
    "place": "vault",
    "subject": "h1",
    "evidence": "the ledger has no task tsk_1",
    "action": "revoke_token",
    "outcome": "shown",
    "task_id": None,
    "grant_id": None,
}
REPORT: Final[dict[str, Any]] = {
    "at": "2026-01-02T03:04:05.000Z",
    "applied": False,
    "backend": None,
    "agreement": False,
    "findings": [FOUND, {**FOUND, "kind": "unclaimed_lease", "subject": "l1", "action": "none"}],
    "found": {"orphan_token": 1, "unclaimed_lease": 1},
    "outcomes": {"shown": 2},
    "omitted": 7,
    "problems": ["target orders: it doesn't answer"],
    "quarantine": {"since": "2026-01-02T03:04:05.000Z", "why": "the ledger was lost"},
}
AGREED: Final[dict[str, Any]] = {
    **REPORT,
    "agreement": True,
    "findings": [],
    "omitted": 0,
    "problems": [],
}


def test_it_shows_what_was_found_and_what_to_do(fake: FakeBroker, run: Run) -> None:
    fake.on(f"POST {PATH}", 200, REPORT)
    ran = run("reconcile", "--backend", "vault")
    assert fake.last.json == {"backend": "vault"}
    assert "h1" in ran.out
    assert "the ledger has no task tsk_1" in ran.out
    for said in (
        "not looked at: target orders: it doesn't answer",
        "7 more are left for the next run",
        "broker reconcile --apply",
        "nothing is issued: the ledger was lost",
    ):
        assert said in ran.err
    assert run("reconcile", "--json").json == REPORT

    fake.on(f"GET {PATH}", 200, {**AGREED, "quarantine": None})
    assert run("reconcile", "--last").err == "Ledger, backends and targets agree.\n"


def test_what_is_ended_was_shown_first(fake: FakeBroker, run: Run) -> None:
    fake.on(f"POST {PATH}", 200, REPORT)
    fake.on(f"POST {PATH}", 200, {**REPORT, "applied": True})
    assert run("reconcile", "--apply", "--yes", "--json").json["applied"]
    assert [seen.json for seen in fake.seen] == [{}, {"apply": True, "shown": REPORT["at"]}]


def test_a_release_says_why(fake: FakeBroker, run: Run) -> None:
    fake.on(f"POST {PATH}", 200, {**AGREED, "quarantine": None})
    assert run("reconcile", "--release", "--reason", "known").code == 0
    assert fake.last.json == {"release": True, "reason": "known"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--apply", "--json"), "--yes"),
        (("--apply",), "--yes"),
        (("--release",), "--reason"),
        (("--last", "--apply"), "--last"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    fake: FakeBroker, run: Run, options: tuple[str, ...], why: str
) -> None:
    ran = run("reconcile", *options)
    assert ran.code == 2
    assert why in (json.loads(ran.err)["error"]["detail"] if "--json" in options else ran.err)
    assert not fake.seen


@pytest.mark.parametrize(("typed", "code", "asked"), [("yes", 0, 2), ("y", 1, 1)])
def test_a_person_is_asked_before_anything_is_ended(
    fake: FakeBroker, typed: str, code: int, asked: int
) -> None:
    fake.on(f"POST {PATH}", 200, REPORT)
    terminal = Terminal("reconcile", "--apply")
    terminal.until("This ends 1 of them. Type yes to go on:")
    terminal.type(typed)
    assert terminal.ended() == code
    assert len(fake.seen) == asked
