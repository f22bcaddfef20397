"""The log at the console: searched, shown, verified, exported; by those alone who may."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.access import Caller
from broker.audit_desk import AuditDesk
from broker.catalog import Principal
from broker.errors import AccessDenied, Conflict
from broker.identity.models import Role
from tests.console.people import EVIL, Browser, assert_text

if TYPE_CHECKING:
    from tests.console.people import ConsoleWorld


async def rows(browser: Browser, query: str = "") -> str:
    answer = await browser.get(f"/audit{query}")
    assert answer.status_code == 200, answer.text
    return answer.text.partition("<tbody>")[2].partition("</tbody>")[0]


async def drained(world: ConsoleWorld) -> AuditDesk:
    """The log, with all events in it that there are."""
    assert world.app.audit is not None
    await world.app.audit.start()
    while (await world.app.audit.drain()).drained:
        pass
    found: AuditDesk = world.app.http().state.audit_desk
    return found


async def test_events_are_found(console: ConsoleWorld) -> None:
    task = await console.open(purpose=EVIL)
    other = await console.open(agent="order-clerk", capabilities=["orders-read"])
    granted = await console.grant(task)
    browser = await console.signed_in("audrey", "audit")

    everything = await rows(browser)
    assert_text(everything)
    assert other["task_id"] in everything
    mine = await rows(browser, f"?task={task['task_id']}")
    assert granted["grant_id"] in mine
    assert other["task_id"] not in mine
    assert "task.opened" not in await rows(browser, "?type=grant")
    assert granted["grant_id"] in await rows(browser, "?type=grant.activated")
    assert "grant." not in await rows(browser, "?principal=orchestrator&type=task")
    assert other["task_id"] in await rows(browser, f"?text={other['task_id'].upper()}")
    assert await rows(browser, "?from=2099-01-01T00:00") == ""
    assert await rows(browser, "?until=2001-01-01T00:00&from=") == ""
    assert "task.opened" in await rows(browser, "?from=2001-01-01T00:00&until=2099-01-01T00:00")
    assert_text((await browser.get("/audit?text=%3Cimg%20src%3Dx%20onerror%3D")).text)


async def test_pages_follow_each_other(console: ConsoleWorld) -> None:
    task = await console.open()
    for _ in range(35):
        await console.call(
            "operator", "POST", "/v1/freezes", {"selector": {"agent": "x"}, "reason": "r"}
        )
        await console.call(
            "operator", "DELETE", "/v1/freezes", {"selector": {"agent": "x"}, "reason": "r"}
        )
    browser = await console.signed_in("audrey", "audit")
    page = (await browser.get("/audit?type=freeze&from=")).text
    assert page.count("<tr>") == 51
    link = page.partition('class="paging"')[2].partition('href="')[2].partition('"')[0]
    after = (await browser.get(link.replace("&amp;", "&").removeprefix("/console"))).text
    assert after.count("<tr>") == 21
    assert task["task_id"] not in after


async def test_an_event_says_all_it_says(console: ConsoleWorld) -> None:
    task = await console.open(purpose=EVIL)
    found = (await console.events(task["task_id"]))[0]
    browser = await console.signed_in("audrey", "audit")
    page = (await browser.get(f"/audit/events/{found['id']}")).text
    assert_text(page, 2)
    assert task["task_id"] in page
    assert (await browser.get("/audit/events/1800000000000-00-0")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/audit?type=%3Cscript%3E",
        "/audit?type=a.b.c",
        "/audit?from=yesterday",
        "/audit?from=9999-99-99T99:99",
        "/audit?from=0001-01-01T00:00",
        "/audit?until=%00",
        "/audit?after=1-2-3-4",
        "/audit?after=x",
        f"/audit?text={'x' * 321}",
        "/audit?text=a&text=b",
        "/audit/events/x",
        "/audit/events/1-zz-1",
        "/audit/export?form=xml",
        "/audit/export?from=never",
        "/audit/export?until=0000-00-00",
    ],
)
async def test_hostile_addresses_are_refused(console: ConsoleWorld, path: str) -> None:
    browser = await console.signed_in("audrey", "audit")
    assert (await browser.get(path)).status_code in (400, 404), path


@pytest.mark.parametrize(
    "path",
    [
        "/audit?task=%00",
        "/audit?task=tsk_x&principal=%ff%fe&text=%ed%a0%80",
        "/audit?after=999999999999999-ff-999999999999999",
        "/audit?from=9999-12-31T23:59",
        "/audit?from=1969-12-31T23:59%2b00:00",
    ],
)
async def test_odd_ones_find_nothing(console: ConsoleWorld, path: str) -> None:
    browser = await console.signed_in("audrey", "audit")
    answer = await browser.get(path)
    assert answer.status_code in (200, 400), answer.text
    assert "<tbody>" not in answer.text


async def test_the_log_is_verified_and_what_was_changed_is_found(console: ConsoleWorld) -> None:
    await console.open()
    desk = await drained(console)
    browser = await console.signed_in("audrey", "audit")
    page = (await browser.get("/audit/log")).text
    assert "hasn't verified it" in page.replace("&#39;", "'")
    answer = await browser.submit("/audit/verify")
    assert answer.status_code == 303, answer.text
    page = (await browser.get("/audit/log?done=verified")).text
    assert "nothing was changed" in page
    assert "for audrey" in page
    assert "All of them are signed for." in page or "after the newest checkpoint" in page

    assert console.app.audit is not None
    [segment, *_] = sorted(console.app.audit.folder.glob("*.jsonl"))
    text = segment.read_text()
    segment.write_text(text.replace("the weekly report", "the weekly resort"))
    assert (await browser.submit("/audit/verify")).status_code == 303
    page = (await browser.get("/audit/log")).text
    assert "not what was written" in page
    assert "changed" in page.partition("Findings")[2]
    assert desk  # another replica's: what it has verified is its own


async def test_too_large_a_log_is_not_verified_here(console: ConsoleWorld) -> None:
    await console.open()
    await drained(console)
    assert console.app.audit is not None
    small = AuditDesk(console.app.audit, max_bytes=10)
    auditor = Caller(principal=Principal(name="a", role=Role.AUDITOR, owner="a"))
    assert (await small.standing(auditor))["can_verify"] is False
    with pytest.raises(Conflict, match="broker audit verify"):
        await small.verify(auditor)
    agent = Caller(principal=Principal(name="a", role=Role.AGENT, owner="a"))
    for asked in (small.standing(agent), small.verify(agent)):
        with pytest.raises(AccessDenied):
            await asked


@pytest.mark.parametrize("form", ["cloudevents", "ocsf"])
async def test_the_log_is_taken_along(console: ConsoleWorld, form: str) -> None:
    task = await console.open(purpose=EVIL)
    await drained(console)
    browser = await console.signed_in("audrey", "audit")
    answer = await browser.get(f"/audit/export?form={form}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jsonl"
    assert answer.headers["content-disposition"] == f'attachment; filename="audit-{form}.jsonl"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    events: list[Any] = [json.loads(line) for line in answer.text.splitlines()]
    assert any(task["task_id"] in json.dumps(event) for event in events)
    assert all(("class_uid" in event) == (form == "ocsf") for event in events)
    nothing = await browser.get(f"/audit/export?form={form}&from=2099-01-01T00:00")
    assert (nothing.status_code, nothing.text) == (200, "")


async def test_without_a_log_there_is_nothing_to_take(console: ConsoleWorld) -> None:
    browser = await console.signed_in("audrey", "audit")
    assert (await browser.get("/audit/export")).status_code == 404
    assert (await browser.get("/audit/log")).status_code == 200
