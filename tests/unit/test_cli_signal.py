"""``broker signal``, ``task power`` and ``agent unused``, against a real HTTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.client import Client, InvalidRequest, Secret
from tests.unit.fake_broker import JWT, FakeBroker

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run

SIGNAL: Final[dict[str, Any]] = {
    "selector": "agent:report-writer",
    "risk": 90,
    "verdict": "compromised",
    "by": "anomaly-detector",
    "reason": "odd hours\x1b[2J",
    "at": "2026-01-02T03:04:05.678Z",
    "expires_at": None,
    "new_in_a_later_version": 7,
}
REPORTED: Final = {**SIGNAL, "reviewed": {"revoked": 2, "revoking": 1}}
TRAIL: Final[dict[str, Any]] = {
    "power": "operate",
    "because": ["operate power was used"],
    "effects": ["reads:orders"],
    "data_classes": ["confidential"],
    "grants": 2,
    "calls": 3,
}
POWER: Final[dict[str, Any]] = {
    "task_id": "tsk_1",
    "power": "privileged",
    "because": ["this and that, together"],
    "exposure": {"private": True, "untrusted": False, "egress": True},
    "usable": ["mail", "orders-read"],
    "own": TRAIL,
    "chain": {**TRAIL, "root_task_id": "tsk_0", "tasks": 4},
}
AGENT: Final[dict[str, Any]] = {
    "agent": "report-writer",
    "owner": "data@example.com",
    "state": "active",
    "allowed": [
        {"capability": "a", "power": "read", "watched_since": "2026-01-02T03:04:05.678Z"},
        {"capability": "b", "power": "operate", "watched_since": None},
    ],
    "used": [{"capability": "a", "power": "read", "last_used_at": "2026-01-02T03:04:05.678Z"}],
    "unused": [
        {"capability": "b", "power": "operate", "last_used_at": None, "too_new": True},
        {"capability": "c", "power": "read", "last_used_at": None, "too_new": False},
    ],
    "least": ["a"],
    "power": {"allowed": "operate", "used": "read"},
}
REPORT: Final[dict[str, Any]] = {
    "since": "2026-01-01T00:00:00.000Z",
    "recorded_since": "2026-01-02T03:04:05.678Z",
    "items": [AGENT],
    "next": None,
}
SET: Final = ("signal", "set", "--agent", "report-writer", "--reason", "drill")
UNUSED: Final = "GET /v1/reports/unused-power"


# Signals.


def test_set(fake: FakeBroker, run: Run) -> None:
    fake.on("POST /v1/signals", 200, REPORTED)

    ran = run(*SET, "--risk", "90", "--verdict", "compromised", "--ttl", "1h")

    assert fake.last.json == {
        "selector": {"agent": "report-writer"},
        "risk": 90,
        "verdict": "compromised",
        "reason": "drill",
        "ttl": "1h",
    }
    assert ran.code == 0
    assert ran.out == (
        "agent=report-writer: risk 90, compromised, until cleared; 2 grants revoked\n"
    )
    assert "1 grant not yet confirmed dead" in ran.err
    shown = run(*SET, "--risk", "0", "--json").json
    assert shown["reviewed"] == {"revoked": 2, "revoking": 1, "abandoned": 0}
    assert shown["new_in_a_later_version"] == 7
    assert fake.last.json["risk"] == 0, "zero is something said"


def test_set_with_an_end(fake: FakeBroker, run: Run) -> None:
    ends = {**REPORTED, "expires_at": "2026-01-02T03:04:05.678Z"}
    fake.on("POST /v1/signals", 200, ends)

    assert "until 2026-01-02 03:04:05Z" in run(*SET, "--risk", "90").out


@pytest.mark.parametrize(
    "words",
    [
        SET,
        (*SET, "--risk", "101"),
        (*SET, "--risk", "-1"),
        (*SET, "--risk", "high"),
        (*SET, "--verdict", "guilty"),
        (*SET, "--risk", "1", "--ttl", "soon"),
        (*SET, "--risk", "1", "--owner", "o"),
        ("signal", "set", "--reason", "drill", "--risk", "1"),
        ("signal", "set", "--agent", "", "--reason", "drill", "--risk", "1"),
        ("signal", "set", "--all", "--reason", "drill", "--risk", "1"),
        ("signal", "set", "--agent", "a", "--risk", "1"),
        ("signal", "clear", "--reason", "drill"),
        ("signal", "clear", "--agent", "a"),
    ],
    ids=" ".join,
)
def test_wrong_usage_sends_nothing(fake: FakeBroker, run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).code == 2
    assert fake.seen == []


def test_list(fake: FakeBroker, run: Run) -> None:
    ends = {**SIGNAL, "selector": "task:tsk_1", "expires_at": "2099-01-02T03:04:05.678Z"}
    fake.on("GET /v1/signals", 200, {"items": [SIGNAL, ends], "next": None})

    rows = run("signal", "list").out.splitlines()

    assert rows[1].split()[:3] == ["agent=report-writer", "90", "compromised"]
    assert "\\x1b[2J" in rows[1], "what was written in a reason moves no cursor"
    assert rows[1].endswith("cleared")
    assert " in " in rows[2]
    listed = run("signal", "list", "--json", "--limit", "5").json
    assert listed["items"][1]["selector"] == {"task": "tsk_1"}
    assert fake.last.query == {"limit": "5"}


def test_an_empty_list_says_so(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/signals", 200, {"items": [], "next": None})
    assert run("signal", "list") == (0, "", "Nothing is reported.\n")


@pytest.mark.parametrize(
    ("words", "selector"),
    [
        (("--task", "tsk_1"), {"task_id": "tsk_1"}),
        (("--agent", "a"), {"agent": "a"}),
        (("--owner", "o@example.com"), {"owner": "o@example.com"}),
    ],
    ids=["task", "agent", "owner"],
)
def test_clear(
    fake: FakeBroker, run: Run, words: tuple[str, ...], selector: dict[str, str]
) -> None:
    fake.on("DELETE /v1/signals", 200, {"selector": "agent:a", "cleared": True})

    ran = run("signal", "clear", *words, "--reason", "drill")

    assert fake.last.json == {"selector": selector, "reason": "drill"}
    assert ran.out.endswith(": nothing is reported any more\n")
    assert run("signal", "clear", *words, "--reason", "x", "--json").json["cleared"] is True


# Power.


def test_task_power(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/tasks/tsk_1/power", 200, POWER)

    ran = run("task", "power", "tsk_1")

    for words in (
        "privileged",
        "this and that, together",
        "private data, way out",
        "mail, orders-read",
        "2 grants, 3 calls: reads:orders, confidential data",
        "tsk_0",
    ):
        assert words in ran.out, words
    assert run("task", "power", "tsk_1", "--json").json == POWER


def test_an_agent_isnt_told_of_its_chain(fake: FakeBroker, run: Run) -> None:
    alone: dict[str, Any] = {**POWER, "power": None, "exposure": {}, "usable": [], "chain": None}
    fake.on("GET /v1/tasks/tsk_1/power", 200, alone)

    ran = run("task", "power", "tsk_1")

    assert "none" in ran.out
    assert "its chain" not in ran.out
    assert run("task", "power", "tsk_1", "--json").json["chain"] is None


def test_show_an_agents_power_and_use(fake: FakeBroker, run: Run) -> None:
    principal: dict[str, Any] = {
        "name": "report-writer",
        "role": "agent",
        "state": "active",
        "effective_power": {"power": "operate", "because": ["b is operate"]},
        "granted": [{"capability": "b", "power": "operate"}, {"capability": "a", "power": "read"}],
        "used": [{"capability": "b", "last_used_at": "2026-01-02T03:04:05.678Z"}],
    }
    fake.on("GET /v1/principals/report-writer", 200, principal)
    person: dict[str, Any] = {
        **principal,
        "role": "operator",
        "effective_power": None,
        "granted": [],
        "used": [],
    }
    fake.on("GET /v1/principals/operator", 200, person)

    ran = run("agent", "show", "report-writer")

    rows = {row[:15].strip(): row[15:].strip() for row in ran.out.splitlines()}
    assert rows["effective power"] == "operate"
    assert rows["because"] == "b is operate"
    assert rows["used"].startswith("b (")
    assert rows["not used"] == "a"
    (used,) = run("agent", "show", "report-writer", "--json").json["used"]
    assert {k: v for k, v in used.items() if v is not None} == principal["used"][0]
    assert "effective power" not in run("agent", "show", "operator").out


def test_unused(fake: FakeBroker, run: Run) -> None:
    fake.on(UNUSED, 200, {**REPORT, "next": "report-writer"})
    last: dict[str, Any] = {**AGENT, "agent": "z", "least": []}
    fake.on(UNUSED, 200, {**REPORT, "items": [last]})

    ran = run("agent", "unused", "--since", "90d", "--all")

    assert [request.query for request in fake.seen] == [
        {"since": "90d", "all": "true"},
        {"since": "90d", "all": "true", "cursor": "report-writer"},
    ]
    rows = ran.out.splitlines()
    assert rows[1].split() == [
        "report-writer",
        "data@example.com",
        "b?,",
        "c",
        "a",
        "operate",
        "read",
    ]
    assert "nothing" in rows[2]
    assert ran.err.startswith("Uses are recorded since: 2026-01-02")


def test_unused_for_programs(fake: FakeBroker, run: Run) -> None:
    fake.on(UNUSED, 200, REPORT)

    shown = run("agent", "unused", "--json").json

    assert fake.last.query == {"since": "30d"}
    assert shown["recorded_since"] == REPORT["recorded_since"]
    assert shown["items"][0]["least"] == ["a"]
    assert [row["too_new"] for row in shown["items"][0]["unused"]] == [True, False]
    assert shown["items"][0]["power"] == AGENT["power"]


def test_nothing_unused_says_so(fake: FakeBroker, run: Run) -> None:
    fake.on(UNUSED, 200, {**REPORT, "items": [], "recorded_since": None})
    ran = run("agent", "unused")
    assert ran.out == ""
    assert ran.err.splitlines() == [
        "Every agent has used all that it is allowed.",
        "Uses are recorded since: never",
    ]
    assert run("agent", "unused", "--since", "soon").code == 2


@pytest.mark.parametrize(
    "words", [("signal", "set"), ("signal", "list"), ("signal", "clear"), ("task", "power")]
)
def test_every_command_has_help_with_an_example(run: Run, words: tuple[str, ...]) -> None:
    assert words[1] in run(words[0], "--help").out
    assert f"broker {' '.join(words)}" in run(*words, "--help").out


def test_agent_unused_has_help_with_an_example(run: Run) -> None:
    assert "unused" in run("agent", "--help").out
    assert "broker agent unused" in run("agent", "unused", "--help").out


# The client.


def test_the_client_reads_power_and_signals(fake: FakeBroker) -> None:
    fake.on("GET /v1/tasks/tsk_1/power", 200, POWER)
    fake.on("GET /v1/signals", 200, {"items": [SIGNAL], "next": None})
    fake.on(UNUSED, 200, REPORT)
    with Client(fake.url, lambda: Secret(JWT)) as client:
        power = client.get_task_power("tsk_1")
        (signal,) = client.iter_signals()
        report = client.unused_power(since="7d")

        assert power.chain is not None
        assert (power.power, power.chain.tasks, power.own.calls) == ("privileged", 4, 3)
        assert (signal.selector, signal.risk) == ({"agent": "report-writer"}, 90)
        assert report.items[0].unused[0].too_new
        assert report.items[0].power.used == "read"
        with pytest.raises(InvalidRequest):
            client.report_signal({"agent": "a"}, "drill")
        with pytest.raises(InvalidRequest):
            client.report_signal({"agent": "a", "owner": "b"}, "drill", risk=1)
