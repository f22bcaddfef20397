"""``broker task tree``, against a real HTTP server: what is drawn, for whom, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.client import AsyncClient, Client, Secret, UnexpectedAnswer
from tests.unit.cli_runner import PROGRAM
from tests.unit.fake_broker import GRANT, JWT, FakeBroker

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run

AT: Final = "2026-01-02T03:04:00.000Z"
ROOT, CHILD, LEAF = (f"tsk_00{letter * 24}" for letter in "abc")
HOSTILE: Final = "report\x1b[2J\nnightly \u202e[red]end[/red] " + "x" * 100
SECONDS: Final = 252


def soon(seconds: int) -> str:
    return f"2026-01-02T03:{4 + seconds // 60:02d}:{seconds % 60:02d}.000Z"


def node(task_id: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "parent_task_id": parent,
        "state": "active",
        "agent": "report-writer",
        "owner": "data@example.com",
        "purpose": "the nightly report",
        "capabilities": ["orders-read"],
        "created_by": "orchestrator",
        "on_behalf_of": "orchestrator",
        "created_at": AT,
        "expires_at": soon(600),
        "heartbeat_due_at": None,
        "ended_at": None,
        "closed_at": None,
        "reason": None,
        "budget": None,
        "depth": 0,
        "power": {"level": "operate", "why": ["mail is operate"]},
        "effects": ["reads:orders"],
        "data_classes": ["internal"],
        "grants": [],
        "elevations": [],
        "approvals": [],
        **more,
    }


def grant(letter: str, state: str = "active", **more: Any) -> dict[str, Any]:
    row = {**GRANT, "grant_id": f"grt_00{letter * 24}", "state": state, "expires_at": soon(SECONDS)}
    return {**row, "error": None, "attempts": 0, "next_attempt_at": None, **more}


ELEVATION: Final[dict[str, Any]] = {
    "state": "active",
    "elevation_id": "elv_00" + "d" * 24,
    "capability": "orders-admin",
    "power": "privileged",
    "break_glass": False,
    "by": "report-writer",
    "intent": "mend it",
    "approval_id": None,
    "started_at": AT,
    "expires_at": soon(60),
    "heartbeat_due_at": soon(10),
}
APPROVAL: Final[dict[str, Any]] = {
    "approval_id": "apr_00" + "e" * 24,
    "state": "pending",
    "action": "issue_grant",
    "capability": "deploy",
    "power": "privileged",
    "requester": "report-writer",
    "needs": [{"group": "security", "count": 2, "have": 1}],
    "escalated_to": [],
    "created_at": AT,
    "expires_at": soon(120),
}
BUDGET: Final[dict[str, Any]] = {
    "grants": {"given": 5, "spent": 2, "reserved": 1, "left": 2},
    "calls": None,
    "amount": {"given": "9.0000", "spent": "0.0000", "reserved": "0.0000", "left": "9.0000"},
}
DONE: Final[dict[str, Any]] = {
    "power": {"level": "privileged", "why": ["private data and a way out, together"]},
    "effects": ["reads:orders"],
    "data_classes": ["internal"],
    "grants": 3,
    "calls": 1,
    "amount": "0.0000",
    "tasks": 3,
}
REVOKING: Final = grant("2", "revoking", revoke_requested_at="2026-01-02T03:03:57.000Z")
STUCK: Final = grant(
    "3",
    "stuck",
    revoke_requested_at="2026-01-02T03:02:00.000Z",
    attempts=4,
    next_attempt_at=soon(20),
)
TREE: Final[dict[str, Any]] = {
    "root_task_id": ROOT,
    "task_id": ROOT,
    "at": AT,
    "chain": DONE,
    "nodes": [
        node(
            ROOT, budget=BUDGET, grants=[grant("1")], elevations=[ELEVATION], approvals=[APPROVAL]
        ),
        node(CHILD, ROOT, purpose=HOSTILE, grants=[REVOKING, STUCK]),
        node(
            LEAF,
            CHILD,
            state="failed",
            agent="order-clerk",
            ended_at=AT,
            reason="failed",
            power={"level": None, "why": ["nothing is live"]},
        ),
    ],
    "edges": [{"from": ROOT, "to": CHILD}, {"from": CHILD, "to": LEAF}],
    "truncated": False,
}
ENDED: Final = {
    **TREE,
    "nodes": [node(ROOT, state="completed", ended_at=AT), node(CHILD, ROOT, state="cancelled")],
    "edges": [{"from": ROOT, "to": CHILD}],
}
PATH: Final = f"GET /v1/tasks/{ROOT}/tree"


def test_a_tree_with_what_each_task_can_do_and_holds(fake: FakeBroker, run: Run) -> None:
    fake.on(PATH, 200, TREE)

    ran = run("task", "tree", ROOT)

    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"chain {ROOT}: 3 tasks, 3 grants, 1 call"
    assert lines[1] == "for decisions: privileged (private data and a way out, together)"
    assert lines[2] == "it has done: reads:orders, internal data"
    words = [" ".join(re.sub(r"[│├└─]", " ", row).split()) for row in lines[4:]]
    assert words[:3] == [
        f"{ROOT} report-writer active ends in 10m",
        "the nightly report",
        "operate reads:orders amount 9.0000 of 9.0000 left, grants 2 of 5 left",
    ]
    assert words[3] == f"orders-read active dies in 4m 12s grt_00{'1' * 24}"
    assert words[4].startswith("elevated orders-admin ends in 1m heartbeat due in 10s elv_")
    assert words[5].startswith("waits for approval deploy 1 of 2 of security expires in 2m apr_")
    assert f"orders-read revoking for 3s grt_00{'2' * 24}" in words
    assert f"orders-read stuck for 2m 4 attempts, next in 20s grt_00{'3' * 24}" in words
    assert words[-3] == f"{LEAF} order-clerk failed failed"
    # Deeper is further to the right.
    at = [next(row.index(task) for row in lines[4:] if task in row) for task in (ROOT, CHILD, LEAF)]
    assert at[0] < at[1] < at[2]


def test_what_agents_wrote_moves_no_cursor_and_is_no_markup(fake: FakeBroker, run: Run) -> None:
    evil: dict[str, Any] = {"capability": "a\x1b]0;t\x07", "error": "\x1b[31m"}
    top = node(
        ROOT, agent="a\u202eb", purpose=HOSTILE, effects=["x:\x1b[1m"], grants=[grant("1", **evil)]
    )
    top["approvals"] = [{**APPROVAL, "needs": [{"group": "s\x1b[5m", "count": 1}]}]
    fake.on(PATH, 200, {**TREE, "nodes": [top], "edges": []})

    out = run("task", "tree", ROOT).out

    assert not set(out) & set("\x1b\x07\u202e\r")
    assert "report\\x1b[2J nightly \\u202e[red]end[/red]" in out
    assert "x" * 100 not in out, "a purpose is cut"
    assert "…" in out


@pytest.mark.parametrize("columns", ["60", "120"])
@pytest.mark.parametrize("coloured", [False, True])
def test_it_fits_and_no_id_is_lost(
    fake: FakeBroker, run: Run, monkeypatch: pytest.MonkeyPatch, columns: str, coloured: bool
) -> None:
    fake.on(PATH, 200, TREE)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    if not coloured:
        monkeypatch.setenv("NO_COLOR", "1")

    out = run("task", "tree", ROOT).out

    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    drawn = plain.splitlines()[4:]
    assert max(map(len, drawn)) <= int(columns)
    for name in (ROOT, CHILD, LEAF, f"grt_00{'1' * 24}", f"grt_00{'3' * 24}"):
        assert name in plain
    assert ("\x1b[33moperate" in out, "\x1b[1;31mstuck" in out) == (coloured, coloured)
    assert (f"\x1b[1m{ROOT}" in out, f"\x1b[2m{LEAF}" in out) == (True, True), "what ended is dim"


def test_programs_get_the_graph(fake: FakeBroker, run: Run) -> None:
    fake.on(PATH, 200, TREE)

    shown = run("task", "tree", ROOT, "--whole", "--json").json

    assert fake.last.query == {"whole": "true"}
    assert shown["edges"] == TREE["edges"]
    assert shown["nodes"][1]["grants"][1]["next_attempt_at"] == soon(20)
    assert {**shown, "nodes": []} == {**TREE, "nodes": []}
    run("task", "tree", ROOT, "--json")
    assert fake.last.query == {}


def test_an_agent_is_told_of_no_chain_and_a_cut_is_said(fake: FakeBroker, run: Run) -> None:
    fake.on(PATH, 200, {**TREE, "chain": None, "truncated": True})

    ran = run("task", "tree", ROOT)

    assert ran.out.startswith(ROOT)
    assert "There is more: only the first 3 tasks" in ran.err
    assert "powers are of what is shown" in ran.err


@pytest.mark.parametrize(("asked", "marked"), [(ROOT, []), (CHILD, [CHILD]), (LEAF, [LEAF])])
def test_which_of_a_whole_chain_was_asked_for(
    fake: FakeBroker, run: Run, asked: str, marked: list[str]
) -> None:
    fake.on(f"GET /v1/tasks/{asked}/tree", 200, {**TREE, "task_id": asked})

    rows = run("task", "tree", asked, "--whole").out.splitlines()

    found = [row for row in rows if "<- this one" in row]
    assert [re.findall(r"tsk_\w+", row) for row in found] == [[task] for task in marked]


def test_the_one_at_the_top_needs_no_mark(fake: FakeBroker, run: Run) -> None:
    below = {**TREE, "task_id": CHILD, "nodes": TREE["nodes"][1:], "edges": TREE["edges"][1:]}
    fake.on(f"GET /v1/tasks/{CHILD}/tree", 200, below)

    assert "<-" not in run("task", "tree", CHILD).out


def test_what_has_lost_its_parent_stands_alone(fake: FakeBroker, run: Run) -> None:
    fake.on(
        PATH, 200, {**TREE, "chain": None, "nodes": TREE["nodes"][1:], "edges": [{"from": "?"}]}
    )

    out = run("task", "tree", ROOT).out

    assert [row.split()[0] for row in out.splitlines() if row.startswith("tsk_")] == [CHILD, LEAF]


def test_watching_ends_when_all_is_dead(fake: FakeBroker, run: Run) -> None:
    dying = {**ENDED, "nodes": [node(ROOT, state="completed", grants=[REVOKING])], "edges": []}
    fake.on(PATH, 200, dying)
    fake.on(PATH, 200, ENDED)

    ran = run("task", "tree", ROOT, "--watch")

    assert ran.code == 0
    assert len(fake.seen) == 2
    assert ran.out.count(f"chain {ROOT}") == 2
    assert "\x1b" not in ran.out, "no screen to clear"


def test_watching_is_interrupted_with_130(fake: FakeBroker) -> None:
    fake.on(PATH, 200, TREE)
    words = (sys.executable, "-c", PROGRAM, "task", "tree", ROOT, "--watch")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


def test_wrong_usage_sends_nothing(fake: FakeBroker, run: Run) -> None:
    assert run("task", "tree", ROOT, "--watch", "--json").code == 2
    assert run("task", "tree").code == 2
    assert fake.seen == []


def test_help_has_examples(run: Run) -> None:
    assert "tree" in run("task", "--help").out
    assert "broker task tree tsk_… --whole --watch" in run("task", "tree", "--help").out


# The client.


def test_both_clients_read_it(fake: FakeBroker) -> None:
    fake.on(PATH, 200, {**TREE, "later": 1})
    with Client(fake.url, lambda: Secret(JWT)) as client:
        found = client.task_tree(ROOT, whole=True)

    async def read() -> object:
        async with AsyncClient(fake.url, lambda: Secret(JWT)) as client:
            return await client.task_tree(ROOT, limit=3)

    assert fake.last.query == {"whole": "true"}
    assert asyncio.run(read()) == found
    assert fake.last.query == {"limit": "3"}
    assert found.chain is not None
    assert (found.chain.power.level, found.chain.tasks, found.extra) == (
        "privileged",
        3,
        {"later": 1},
    )
    assert found.nodes[0].grants[0].capability == "orders-read"
    assert found.nodes[0].elevations[0].heartbeat_due_at is not None
    assert found.nodes[0].approvals[0].needs[0].group == "security"
    assert found.edges[1] == {"from": CHILD, "to": LEAF}


@pytest.mark.parametrize("edges", [{}, ["x"], "x"])
def test_a_graph_of_another_kind_is_no_answer(fake: FakeBroker, edges: Any) -> None:
    fake.on(PATH, 200, {**TREE, "edges": edges})
    with Client(fake.url, lambda: Secret(JWT)) as client, pytest.raises(UnexpectedAnswer):
        client.task_tree(ROOT)
