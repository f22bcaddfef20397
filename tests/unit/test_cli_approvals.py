"""``broker approval``, against a real HTTP server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.consent_documents import APPROVAL, APPROVED, DENIED, page
from tests.unit.fake_broker import HANG_UP, FakeBroker, problem
from tests.unit.terminal import Terminal

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run

ONE = "GET /v1/approvals/apr_1"
ALL = "GET /v1/approvals"


# List and show.


def test_list(fake: FakeBroker, run: Run) -> None:
    fake.on(ALL, 200, page(APPROVAL, following="c"))

    ran = run("approval", "list", "--state", "pending", "--task", "tsk_1", "--limit", "1")

    assert fake.last.query == {"state": "pending", "task_id": "tsk_1", "limit": "1"}
    for words in ("apr_1", "pending", "report-writer, asked by ci", "call deploy (privileged)"):
        assert words in ran.out
    assert "1/2 security" in ran.out
    assert "--cursor c" in ran.err
    (shown,) = run("approval", "list", "--limit", "1", "--json").json["items"]
    assert shown == APPROVAL


def test_an_empty_list_says_so(fake: FakeBroker, run: Run) -> None:
    fake.on(ALL, 200, page())
    assert run("approval", "list").err == "No approvals.\n"
    assert run("approval", "list", "--state", "pending").err == "Nothing waits for a human.\n"


def test_show_leaves_nothing_of_the_request_out(fake: FakeBroker, run: Run) -> None:
    fake.on(ONE, 200, APPROVAL)

    ran = run("approval", "show", "apr_1")

    rows = {
        row.split()[0]: row.split(maxsplit=1)[1] for row in ran.out.splitlines() if row[0] == " "
    }
    assert rows == {
        "arguments.service": '"shop"',
        "arguments.version": '"1.2"',
        "arguments.force": "false",
        "arguments.after": "null",
        "destination": '""',
        "effects": "[]",
        "ttl_ms": "600000 (10m)",
    }
    for words in (
        "2 of group security (1 so far); group leads may stand in",
        "ticket 7",
        "privileged-by-approval",
        "broker policy explain dec_1",
        "ship it",
        "release 1.2",
    ):
        assert words in ran.out
    assert run("approval", "show", "apr_1", "--json").json == APPROVAL


def test_no_argument_passes_for_another(fake: FakeBroker, run: Run) -> None:
    tricks: dict[str, Any] = {
        "state": "approved",
        "a.b": 1,
        "a": {"b": 2},
        "count": "5",
        "where": "p\u0430ypal.example",
        "over": "x\u202ey\x1b[2J\n  force  true",
    }
    fake.on(ONE, 200, {**APPROVAL, "request": {"arguments": tricks}})

    lines = run("approval", "show", "apr_1").out.splitlines()

    asked = [" ".join(line.split()) for line in lines[lines.index("exactly this is asked for:") :]]
    assert 'arguments.state "approved"' in asked
    assert 'arguments."a.b" 1' in asked
    assert "arguments.a.b 2" in asked
    assert 'arguments.count "5"' in asked
    assert "not plain letters: cyrillic small letter a" in asked
    assert "not plain letters: right-to-left override" in asked
    assert r'arguments.over "x\u202ey\u001b[2J\n force true"' in asked
    assert len(asked) == 9
    assert any(line.split() == ["state", "pending"] for line in lines)


def test_who_asked_is_shown_its_approval_without_voters(fake: FakeBroker, run: Run) -> None:
    fake.on(ONE, 200, {**DENIED, "votes": []})
    ran = run("approval", "show", "apr_1", "--as-task", "tsk_1")
    assert re.search(r"reason +not today", ran.out)
    assert "exactly" not in ran.out


# Votes.


@pytest.mark.parametrize(("word", "document"), [("approve", APPROVED), ("deny", DENIED)])
def test_a_vote(fake: FakeBroker, run: Run, word: str, document: dict[str, Any]) -> None:
    fake.on(f"POST /v1/approvals/apr_1/{word}", 200, document)

    ran = run("approval", word, "apr_1", "--reason", "ticket 7")

    assert [r.json for r in fake.seen] == [{"reason": "ticket 7"}], "nobody is there to be asked"
    assert ran.code == 0
    assert ran.out.startswith(f"apr_1: {document['state']}")
    assert run("approval", word, "apr_1", "--reason", "x", "--yes", "--json").json == document


def test_a_yes_that_isnt_enough_says_whose_is_needed(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/approvals/apr_1/approve", 200, APPROVAL)
    ran = run("approval", "approve", "apr_1", "--reason", "ticket 7")
    assert ran.out == "apr_1: pending, 1/2 security said yes\n"
    assert "still needs 2 of group security (1 so far)" in ran.err


def test_a_vote_that_comes_too_late(fake: FakeBroker, run: Run) -> None:
    late = problem(409, "conflict", "It is denied.", state="denied", approval_id="apr_1")
    fake.answers["POST /v1/approvals/apr_1/approve"].append(late)
    ran = run("approval", "approve", "apr_1", "--reason", "x")
    assert (ran.code, ran.out) == (1, "")
    assert "It is denied." in ran.err
    assert "broker approval show" in ran.err


def test_a_lost_answer_to_a_vote_says_where_to_look(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/approvals/apr_1/approve", HANG_UP)
    ran = run("approval", "approve", "apr_1", "--reason", "x")
    assert ran.code == 3
    assert "broker approval show" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("approve", "apr_1"),
        ("deny", "apr_1"),
        ("approve", "apr_1", "--yes"),
        ("approve", "apr_1", "--reason", ""),
        ("approve", "apr_1", "--reason", "  "),
        ("approve", "apr_1", "apr_2", "--reason", "both"),
        ("approve", "--reason", "x"),
        ("list", "--state", "open"),
    ],
    ids=" ".join,
)
def test_wrong_usage_sends_nothing(fake: FakeBroker, run: Run, words: tuple[str, ...]) -> None:
    assert run("approval", *words).code == 2
    assert fake.seen == []


def test_withdraw(fake: FakeBroker, run: Run) -> None:
    fake.on("DELETE /v1/approvals/apr_1", 200, {**APPROVAL, "state": "cancelled", "reason": "gone"})
    assert run("approval", "withdraw", "apr_1").out == "apr_1: cancelled (gone)\n"


def test_at_a_terminal_it_is_shown_and_asked(fake: FakeBroker) -> None:
    fake.on(ONE, 200, APPROVAL)
    fake.on("POST /v1/approvals/apr_1/approve", 200, APPROVED)
    terminal = Terminal("approval", "approve", "apr_1")

    shown = terminal.until("Why approve it?")
    assert '"shop"' in shown
    assert "600000 (10m)" in shown
    terminal.type("ticket 7")
    terminal.until("Type yes to go on:")
    assert [r.method for r in fake.seen] == ["GET"], "nothing is approved yet"
    terminal.type("yes")

    assert terminal.ended() == 0
    assert fake.last.json == {"reason": "ticket 7"}
    assert "apr_1: approved" in terminal.shown


@pytest.mark.parametrize("typed", ["no", "", "y"])
def test_anything_but_yes_is_no_vote(fake: FakeBroker, typed: str) -> None:
    fake.on(ONE, 200, APPROVAL)
    terminal = Terminal("approval", "deny", "apr_1", "--reason", "x")
    terminal.until("Type yes to go on:")
    terminal.type(typed)
    assert terminal.ended() == 1
    assert "nothing was done" in terminal.shown
    assert [r.method for r in fake.seen] == ["GET"]


def test_what_is_over_isnt_asked_about(fake: FakeBroker) -> None:
    fake.on(ONE, 200, DENIED)
    terminal = Terminal("approval", "approve", "apr_1")
    assert terminal.ended() == 1
    assert "nothing to approve any more: it is denied" in terminal.shown


@pytest.mark.parametrize("word", ["list", "show", "approve", "deny", "withdraw", "watch"])
def test_every_command_has_help_with_an_example(run: Run, word: str) -> None:
    assert word in run("approval", "--help").out
    assert f"broker approval {word}" in run("approval", word, "--help").out
