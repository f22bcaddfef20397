"""``broker agent`` and ``broker owner``, against a real HTTP server that answers as the broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli_runner import Run
    from tests.unit.fake_broker import FakeBroker

PRINCIPAL: dict[str, Any] = {
    "name": "report-writer",
    "role": "agent",
    "state": "active",
    "state_reason": None,
    "owner": "data@example.com",
    "owner_left": False,
    "purpose": "the weekly report",
    "identity": {"issuer": "ci", "subject": "agent/report-writer"},
    "capabilities": ["orders-read", "orders-api"],
    "registered": True,
    "since": "2026-01-02T03:04:05.678Z",
    "last_used_at": "2026-01-02T03:04:05.678Z",
    "due": ["unused"],
    "overdue_at": "2026-02-02T03:04:05.678Z",
    "live_grants": 3,
    "new_in_a_later_version": 7,
}
MOVED = {**PRINCIPAL, "state": "suspended", "grants": {"revoked": 2, "revoking": 1}}
OWNER: dict[str, Any] = {
    "owner": "data@example.com",
    "state": "left",
    "handed_over_to": None,
    "principals": ["report-writer"],
    "live_grants": 3,
    "grants": {"revoked": 2, "revoking": 1},
}
ADD = ("agent", "add", "report-writer", "--owner", "data@example.com", "--purpose", "reports")
PATH = "/v1/principals/report-writer"


def test_add_an_agent(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/principals", 201, PRINCIPAL)
    rules = ("--issuer", "ci", "--subject", "x", "--claim", "id=7=8", "--match", "ref=v.*")
    more = (
        "--capability",
        "a",
        "--capability",
        "b",
        "--max-ttl",
        "5m",
        "--delegates-to",
        "helper",
        "--delegates-to",
        "editor",
        "--review-by",
        "2027-06-30",
    )

    ran = run(*ADD, *rules, *more)

    assert ran.code == 0
    assert fake.last.json == {
        "name": "report-writer",
        "role": "agent",
        "owner": "data@example.com",
        "purpose": "reports",
        "identity": {
            "issuer": "ci",
            "subject": "x",
            "claims": {"id": "7=8", "ref": {"match": "v.*"}},
        },
        "capabilities": ["a", "b"],
        "max_ttl": "5m",
        "delegates_to": ["helper", "editor"],
        "review_by": "2027-06-30",
    }
    assert "report-writer" in ran.out
    assert '{"issuer": "ci", "subject": "agent/report-writer"}' in ran.out


def test_add_a_service_by_its_keys(fake: FakeBroker, run: Run, tmp_path: Path) -> None:
    fake.on("POST /v1/principals", 201, PRINCIPAL)
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": [{"kty": "EC"}]}')

    ran = run(
        *ADD, "--jwks", str(keys), "--role", "resource_server", "--resource", "https://x", "--json"
    )

    assert ran.json["name"] == "report-writer"
    assert ran.json["new_in_a_later_version"] == 7
    assert fake.last.json["identity"] == {"jwks": {"keys": [{"kty": "EC"}]}}
    assert fake.last.json["resource"] == "https://x"
    assert "capabilities" not in fake.last.json


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--issuer", "ci"),
        ("--subject", "x"),
        ("--claim", "a=b"),
        ("--issuer", "ci", "--claim", "a"),
        ("--issuer", "ci", "--claim", "a=b", "--claim", "a=c"),
        ("--issuer", "ci", "--claim", "a=b", "--match", "a=c"),
        ("--issuer", "ci", "--subject", "x", "--jwks", "f"),
        ("--jwks", "no-such-file"),
        ("--issuer", "ci", "--subject", "x", "--role", "operator"),
        ("--issuer", "ci", "--subject", "x", "--max-ttl", "soon"),
    ],
)
def test_wrong_usage_sends_nothing(fake: FakeBroker, run: Run, options: tuple[str, ...]) -> None:
    assert run(*ADD, *options).code == 2
    assert fake.seen == []


def test_keys_that_are_no_json_are_not_shown(fake: FakeBroker, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("-----BEGIN PRIVATE KEY-----")
    ran = run(*ADD, "--jwks", str(file))
    assert ran.code == 2
    assert "is not JSON" in ran.err
    assert "PRIVATE" not in ran.err


def test_list(fake: FakeBroker, run: Run) -> None:
    gone: dict[str, Any] = {
        **PRINCIPAL,
        "name": "other",
        "owner_left": True,
        "due": [],
        "last_used_at": None,
    }
    fake.on("GET /v1/principals", 200, {"items": [PRINCIPAL, gone], "next": None})

    ran = run("agent", "list", "--due", "--role", "agent", "--owner", "o", "--state", "active")

    query = {"due": "true", "role": "agent", "owner": "o", "state": "active", "limit": "50"}
    assert fake.last.query == query
    rows = ran.out.splitlines()
    assert "unused: " in rows[1]
    assert "owner left" in rows[2]
    listed = run("agent", "list", "--json").json
    assert [row["name"] for row in listed["items"]] == ["report-writer", "other"]
    assert fake.last.query == {"limit": "50"}


def test_an_empty_list_says_so(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/principals", 200, {"items": [], "next": None})
    assert run("agent", "list") == (0, "", "No principals.\n")
    assert run("agent", "list", "--due") == (0, "", "None is due.\n")


def test_show(fake: FakeBroker, run: Run) -> None:
    fake.on(f"GET {PATH}", 200, PRINCIPAL)
    ran = run("agent", "show", "report-writer")
    assert "orders-read, orders-api" in ran.out
    assert run("agent", "show", "report-writer", "--json").json["live_grants"] == 3


@pytest.mark.parametrize("how", ["suspend", "resume", "retire"])
def test_moves(fake: FakeBroker, run: Run, how: str) -> None:
    fake.on(f"POST {PATH}/{how}", 200, MOVED)
    yes = ("--yes",) if how == "retire" else ()

    ran = run("agent", how, "report-writer", "--reason", "drill", *yes)

    assert ran.out == "report-writer: suspended, 2 grants revoked\n"
    assert "1 grant not yet confirmed dead" in ran.err
    assert fake.last.json == {"reason": "drill"}
    shown = run("agent", how, "report-writer", "--reason", "drill", "--json", *yes).json
    assert shown["grants"] == {"revoked": 2, "revoking": 1, "abandoned": 0}


def test_of_who_is_back_nothing_is_said_to_be_revoked(fake: FakeBroker, run: Run) -> None:
    back = {**MOVED, "state": "active", "grants": {"revoked": 0, "revoking": 0}}
    fake.on(f"POST {PATH}/resume", 200, back)

    assert (
        run("agent", "resume", "report-writer", "--reason", "over").out == "report-writer: active\n"
    )


@pytest.mark.parametrize(
    "command", [("agent", "retire", "report-writer"), ("owner", "retire", "data@example.com")]
)
def test_what_cant_be_undone_is_asked_for(
    fake: FakeBroker, run: Run, command: tuple[str, ...]
) -> None:
    ran = run(*command, "--reason", "drill")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert fake.seen == []


@pytest.mark.parametrize("how", ["suspend", "resume", "retire"])
def test_a_reason_is_needed(fake: FakeBroker, run: Run, how: str) -> None:
    assert run("agent", how, "report-writer").code == 2
    assert fake.seen == []


def test_review(fake: FakeBroker, run: Run) -> None:
    fake.on(f"POST {PATH}/review", 200, PRINCIPAL)
    ran = run("agent", "review", "report-writer", "--next", "2027-06-30", "--note", "still needed")
    assert ran.code == 0
    assert fake.last.json == {"next": "2027-06-30", "note": "still needed"}
    assert run("agent", "review", "report-writer").code == 2


def test_owners(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/owners", 200, {"items": [OWNER], "next": None})
    ran = run("owner", "list")
    assert ran.out.splitlines()[1].split() == ["data@example.com", "left", "report-writer", "3"]
    assert run("owner", "list", "--json").json["items"][0]["owner"] == "data@example.com"


def test_an_owner_leaves(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/owners/retire", 200, OWNER)
    words = ("owner", "retire", "data@example.com", "--reason", "left")

    ran = run(*words, "--yes")
    assert ran.out == "data@example.com: left, 1 principal stopped, 2 grants revoked\n"
    assert "not yet confirmed dead" in ran.err
    assert fake.last.json == {"owner": "data@example.com", "reason": "left"}

    ran = run(*words, "--hand-over-to", "bob@example.com")  # revokes nothing, so nobody is asked
    assert ran.out == "data@example.com: left, theirs is bob@example.com's now\n"
    assert fake.last.json["hand_over_to"] == "bob@example.com"
    assert run(*words, "--yes", "--json").json["grants"]["revoked"] == 2


def test_an_owner_comes_back(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/owners/reinstate", 200, {**OWNER, "state": "active"})
    ran = run("owner", "reinstate", "data@example.com", "--reason", "back")
    assert ran.out == "data@example.com: active, 1 principal\n"
    assert fake.last.json == {"owner": "data@example.com", "reason": "back"}


def test_what_the_broker_refuses_is_said(fake: FakeBroker, run: Run) -> None:
    answer = {"code": "conflict", "title": "Conflict", "detail": "It is retired.", "status": 409}
    fake.on(f"POST {PATH}/resume", 409, answer, content_type="application/problem+json")
    ran = run("agent", "resume", "report-writer", "--reason", "x")
    assert ran.code == 1
    assert "It is retired." in ran.err


@pytest.mark.parametrize("noun", ["agent", "owner"])
def test_every_command_has_help_with_an_example(run: Run, noun: str) -> None:
    listing = run(noun, "--help").out
    verbs = {
        "agent": ("add", "list", "show", "suspend", "resume", "retire", "review"),
        "owner": ("list", "retire", "reinstate"),
    }
    for verb in verbs[noun]:
        assert verb in listing
        assert f"broker {noun} {verb}" in run(noun, verb, "--help").out, verb


def test_an_answer_of_another_shape_is_told_apart(fake: FakeBroker, run: Run) -> None:
    fake.on(f"GET {PATH}", 200, {**PRINCIPAL, "owner_left": "yes"})
    ran = run("agent", "show", "report-writer", "--json")
    assert ran.code != 0
    assert json.loads(ran.err)["error"]["detail"]
