"""*Tasks*, a task's story and chain, a grant; and what is wrong, in red, at *Now*."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from broker.ids import shard_of
from broker.ledger import keys
from tests.console.people import GROUPS
from tests.http.test_grant_ends import stuck

if TYPE_CHECKING:
    from tests.console.people import ConsoleWorld

MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def listed(page: str) -> list[str]:
    """The ids of a page's tasks, in their order."""
    return list(dict.fromkeys(re.findall(r'<td[^>]*><a href="/console/tasks/(tsk_\w+)"', page)))


async def test_tasks_are_found_by_what_they_are(console: ConsoleWorld) -> None:
    weekly = await console.open(purpose="the weekly report")
    await console.complete(weekly)
    address = await console.open(
        agent="order-clerk", purpose="correct an address", capabilities=["orders-write"]
    )
    browser = await console.signed_in("vera", GROUPS["viewer"])
    both = [address["task_id"], weekly["task_id"]]
    for query, expected in {
        "": both,
        "?text=&state=&agent=&owner=&capability=": both,
        "?text=WEEKLY": both[1:],
        "?state=completed": both[1:],
        "?state=active": both[:1],
        "?agent=order-clerk": both[:1],
        "?capability=orders-write": both[:1],
        f"?owner={address['owner']}": both if address["owner"] == weekly["owner"] else both[:1],
        "?agent=order-clerk&state=completed": [],
        f"?text={weekly['task_id']}": both[1:],
    }.items():
        answer = await browser.get(f"/tasks{query}")
        assert (answer.status_code, listed(answer.text)) == (200, expected), query
    for wrong in ("?state=dead", "?cursor=x", f"?text={'x' * 400}"):
        assert (await browser.get(f"/tasks{wrong}")).status_code == 400


async def test_tasks_come_page_by_page(console: ConsoleWorld) -> None:
    opened = [(await console.open(purpose=f"no. {n}"))["task_id"] for n in range(53)]
    browser = await console.signed_in()
    first = (await browser.get("/tasks?agent=report-writer")).text
    (more,) = re.findall(r'href="/console(/tasks\?[^"]+)" rel="next"', first)
    second = (await browser.get(more.replace("&amp;", "&"))).text
    assert listed(first) + listed(second) == opened[::-1]
    assert "Older ones" not in second
    assert "To the newest" in second


async def test_a_task_is_told_as_a_story(console: ConsoleWorld) -> None:
    task = await console.open(purpose="the weekly report")
    grant = await console.grant(task, intent="sum up the orders")
    browser = await console.signed_in()
    before = (await browser.get(f"/tasks/{task['task_id']}")).text
    assert "End this task" in before
    await console.complete(task)
    page = (await browser.get(f"/tasks/{task['task_id']}")).text
    assert "End this task" not in page
    stages = re.findall(r'<li class="stage-(\w+)"', page)
    where = [stages.index(one) for one in ("intent", "decision", "grant", "revocation", "dead")]
    assert where == sorted(where)
    assert "sum up the orders" in page
    assert f'href="/console/grants/{grant["grant_id"]}"' in page
    ended = (await browser.get(f"/grants/{grant['grant_id']}")).text
    assert "Confirmed dead by" in ended
    assert "Revoke this grant" not in ended


async def test_a_chain_is_drawn_and_written_out(console: ConsoleWorld) -> None:
    above = await console.open(capabilities=["orders-read"])
    ask = {
        "agent": "order-clerk",
        "purpose": MARKUP,
        "capabilities": ["orders-read"],
        "parent_task_id": above["task_id"],
    }
    below = (await console.call("orchestrator", "POST", "/v1/tasks", ask)).json()
    await console.grant(below)
    browser = await console.signed_in("vera", GROUPS["viewer"])
    page = (await browser.get(f"/tasks/{above['task_id']}")).text
    drawn = page.partition("<svg")[2].rpartition("</svg>")[0]
    for task in (above, below):
        assert f'<a href="/console/tasks/{task["task_id"]}"' in drawn
    assert drawn.count('<path class="g-line"') == 1
    assert "1 live" in drawn
    assert "live credentials 1" in drawn
    table = page.partition("The chain as a table")[2]
    assert "orders-read</a>" in table
    assert "End this task" not in page  # for who only looks
    assert "<script>alert" not in page
    assert "<img" not in page.partition("<main")[2]
    assert "style=" not in page


async def test_what_is_not_there(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    task = await console.open()
    other = re.sub(r".$", lambda end: "0" if end[0] != "0" else "1", task["task_id"])
    for path in (f"/tasks/{other}", "/tasks/x", "/grants/x", "/approvals/x", "/tasks/%3Cb%3E"):
        answer = await browser.get(path)
        assert answer.status_code == 404, path
        assert "<b>" not in answer.text


async def test_what_is_well_is_not_red(console: ConsoleWorld) -> None:
    await console.grant(await console.open())
    page = (await (await console.signed_in()).get("/")).text
    assert "<b>1</b> live" in page
    assert 'class="bad"' not in page


async def test_what_is_stuck_or_overdue_is_red(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    grant = await stuck(console, await console.open())
    await long_due(console, await console.open())
    page = (await browser.get("/")).text
    figures = page.partition('class="figures"')[2].partition("</ul>")[0]
    assert '<li class="bad"><b>1</b> stuck</li>' in figures
    assert '<li class="bad"><b>1</b> overdue</li>' in figures
    row = re.search(rf'<tr class="bad">(?:(?!</tr>).)*{grant}', page, re.DOTALL)
    assert row
    assert "the database is down" in row[0]
    shown = (await browser.get(f"/grants/{grant}")).text
    assert "Try again now" in shown
    answer = await browser.submit(f"/grants/{grant}/retry")
    assert answer.headers["location"] == f"/console/grants/{grant}?done=retried"
    await console.sweep()
    assert (await console.show_grant(grant))["state"] == "revoked"


async def long_due(console: ConsoleWorld, task: dict[str, Any]) -> None:
    """Have the ledger take a task for one that a sweep should have ended long ago."""
    shard = shard_of(task["task_id"], "tsk")
    assert shard is not None
    due = keys.table(shard, "due")
    members = await console.app.connection.command("ZRANGE", due, "0", "-1")
    (member,) = [m for m in members if task["task_id"].encode() in m]
    await console.app.connection.command("ZADD", due, "XX", "1", member)
