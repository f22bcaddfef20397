"""Agents and owners at the console: what is shown, and what people do in their own name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.dev.config import OWNER
from tests.console.people import EVIL, assert_text
from tests.world import logs_in

if TYPE_CHECKING:
    from tests.console.people import ConsoleWorld

DAY_MS = 86_400_000


async def add(world: ConsoleWorld, name: str = "newcomer", **fields: Any) -> None:
    """Register an agent."""
    ask = {
        "name": name,
        "owner": "ann@example.com",
        "purpose": "a test",
        "identity": {"issuer": "dev", "subject": f"agent/{name}"},
        "capabilities": ["orders-api"],
        **fields,
    }
    answer = await world.call("operator", "POST", "/v1/principals", ask)
    assert answer.status_code == 201, answer.text


async def shown(world: ConsoleWorld, name: str) -> Any:
    return (await world.call("operator", "GET", f"/v1/principals/{name}")).json()


async def test_agents_and_what_they_can_do(console: ConsoleWorld) -> None:
    await console.grant(await console.open())
    browser = await console.signed_in("vera", "staff")

    page = (await browser.get("/agents")).text
    row = page.partition('href="/console/agents/report-writer"')[2].partition("</tr>")[0]
    assert OWNER in row
    assert "1 live" in row
    assert "power-operate" in row  # of what is granted: send-email
    assert "4 unused" in row
    assert 'agents/operator"' not in page
    page = (await browser.get("/agents?role=any&owner=alice%40example.com")).text
    assert 'agents/alice"' in page
    assert 'agents/report-writer"' not in page
    assert "Nobody is like that." in (await browser.get("/agents?state=retired")).text

    page = (await browser.get("/agents/report-writer")).text
    assert "1 live grant" in page
    assert "can use orders-read" in page or "orders-read" in page.partition("h-power")[2]
    assert "too new to say" in page
    assert "Suspend" not in page.partition("<main")[2]  # a viewer's page has no buttons


async def test_suspending_stops_and_resuming_lets(console: ConsoleWorld) -> None:
    granted = await console.grant(await console.open())
    browser = await console.signed_in()
    page = (await browser.get("/agents/report-writer")).text
    assert "1 live grant" in page.partition("Suspend…")[2].partition("</form>")[0]

    answer = await browser.submit("/agents/report-writer/suspend", {"reason": EVIL})
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/console/agents/report-writer?done=suspended",
    )
    assert not await logs_in(granted["credential"])
    found = await shown(console, "report-writer")
    assert (found["state"], found["state_changed_by"]) == ("suspended", "alice")
    page = (await browser.get("/agents/report-writer?done=suspended")).text
    assert_text(page)
    assert "Nothing more is issued to it" in page
    assert "Resume" in page

    answer = await browser.submit("/agents/report-writer/resume", {"reason": "a drill"})
    assert answer.status_code == 303
    assert (await shown(console, "report-writer"))["state"] == "active"
    assert [e["by"] for e in await console.logged("principal.suspended")] == ["alice"]
    assert [e["by"] for e in await console.logged("principal.resumed")] == ["alice"]


async def test_a_reason_is_needed_and_nobody_stops_themselves(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    for form in ({}, {"reason": "  "}, {"reason": "a\x00b"}, {"reason": "x" * 1001}):
        answer = await browser.submit("/agents/report-writer/suspend", form)
        assert answer.status_code == 400, form
        assert "reason" in answer.text
    assert (await shown(console, "report-writer"))["state"] == "active"
    answer = await browser.submit("/agents/alice/suspend", {"reason": "x"})
    assert answer.status_code == 409
    assert (await browser.submit("/agents/nobody/suspend", {"reason": "x"})).status_code == 404


async def test_retiring_is_confirmed_by_the_name(console: ConsoleWorld) -> None:
    await add(console)
    browser = await console.signed_in()
    for confirm in ("", "newcomers", "NEWCOMER"):
        form = {"reason": "over", "confirm": confirm}
        assert (await browser.submit("/agents/newcomer/retire", form)).status_code == 400
    form = {"reason": "over", "confirm": "newcomer"}
    assert (await browser.submit("/agents/newcomer/retire", form)).status_code == 303
    assert (await shown(console, "newcomer"))["state"] == "retired"
    page = (await browser.get("/agents/newcomer")).text
    assert "It is retired" in page
    assert "Resume" not in page


async def test_a_review_is_noted(console: ConsoleWorld) -> None:
    browser = await console.signed_in("olga")
    form = {"next": "2099-01-31", "note": EVIL}
    answer = await browser.submit("/agents/report-writer/review", form)
    assert answer.status_code == 303, answer.text
    found = await shown(console, "report-writer")
    assert (found["reviewed_by"], found["review_by"][:10]) == ("olga", "2099-01-31")
    assert_text((await browser.get("/agents/report-writer")).text)
    assert [e["by"] for e in await console.logged("principal.reviewed")] == ["olga"]
    for when in ("", "2001-01-01", "tomorrow", "2099-13-01", "٢٠٩٩-01-01"):
        answer = await browser.submit("/agents/report-writer/review", {"next": when})
        assert answer.status_code == 400, when


async def test_what_is_hers_is_handed_over_and_she_comes_back(console: ConsoleWorld) -> None:
    ann = f"ann {EVIL}"
    await add(console, owner=ann, purpose=EVIL)
    browser = await console.signed_in()
    assert_text((await browser.get("/owners")).text)
    assert_text((await browser.get("/agents")).text)
    assert_text((await browser.get("/agents/newcomer")).text, 2)

    form = {"owner": ann, "hand_over_to": f"bob {EVIL}", "reason": EVIL}
    answer = await browser.submit("/owners/hand-over", form)
    assert answer.status_code == 303, answer.text
    page = await browser.get(answer.headers["location"].removeprefix("/console"))
    assert "Handed over" in page.text
    assert_text(page.text, 3)
    assert (await shown(console, "newcomer"))["owner"] == f"bob {EVIL}"
    assert [(e["by"], e["handed_over_to"]) for e in await console.logged("owner.retired")] == [
        ("alice", f"bob {EVIL}")
    ]
    answer = await browser.submit("/owners/reinstate", {"owner": ann, "reason": "back"})
    assert answer.status_code == 303
    assert [e["by"] for e in await console.logged("owner.reinstated")] == ["alice"]


async def test_who_leaves_takes_theirs_along(console: ConsoleWorld) -> None:
    await add(console)
    browser = await console.signed_in()
    form = {"owner": "ann@example.com", "reason": "left"}
    assert (await browser.submit("/owners/retire", form)).status_code == 400
    answer = await browser.submit("/owners/retire", {**form, "confirm": "ann@example.com"})
    assert answer.status_code == 303, answer.text
    page = (await browser.get("/agents/newcomer")).text
    assert "Its owner has left" in page
    assert "They are back" in (await browser.get("/owners/one?owner=ann%40example.com")).text
    answer = await browser.submit("/owners/hand-over", {**form, "hand_over_to": "ann@example.com"})
    assert answer.status_code == 400
    assert (await browser.submit("/owners/hand-over", form)).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/agents?role=king",
        "/agents?state=%00",
        "/agents?cursor=..%2f",
        "/agents?due=maybe",
        f"/agents?owner={'x' * 321}",
        "/agents?role=agent&role=any",
        "/agents/%00",
        "/agents/..%2foperator",
        "/agents/%ff%fe",
        f"/agents/{'a' * 5000}",
        "/owners/one",
        "/owners/one?owner=%00",
        "/owners/one?owner=nobody",
    ],
)
async def test_hostile_addresses_are_refused(console: ConsoleWorld, path: str) -> None:
    browser = await console.signed_in()
    assert (await browser.get(path)).status_code in (400, 404), path
