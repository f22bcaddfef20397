"""*Revoke*: a preview that changes nothing, an end that is confirmed, a kill switch, freezes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.routing import Mount

from broker.console.sessions import COOKIE
from tests.http.test_grant_ends import stuck
from tests.world import logs_in

if TYPE_CHECKING:
    from broker.console.app import Console
    from tests.console.people import Browser, ConsoleWorld


def console_of(world: ConsoleWorld) -> Console:
    """The replica's console, with its sessions and feeds."""
    transport: Any = vars(world.http)["_transport"]
    routes: list[Any] = transport.app.routes
    (mount,) = [r for r in routes if isinstance(r, Mount) and r.name == "console"]
    made: Any = mount.app
    return made.state.console


async def grown_old(world: ConsoleWorld, browser: Browser, seconds: int = 600) -> None:
    """Have a browser's person have signed in that much earlier."""
    sessions = console_of(world).sessions
    table = sessions._table  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    digest = hashlib.sha256(browser.cookies[COOKIE].encode()).hexdigest()
    row = await table.read(digest)
    assert row is not None
    older = replace(row, auth_at=row.auth_at - seconds * 1000)
    await table.write(digest, older, ttl_ms=60_000)


async def test_what_is_shown_is_what_dies(console: ConsoleWorld) -> None:
    task, other = await console.open(), await console.open(agent="order-clerk")
    grants = [await console.grant(task), await console.grant(task), await console.grant(other)]
    browser = await console.signed_in()
    preview = await browser.get("/revoke/preview?kind=agent&value=report-writer")
    assert "<b>2</b> credentials" in preview.text
    assert "<b>1</b> task that ends" in preview.text
    assert grants[0]["grant_id"] in preview.text
    assert grants[2]["grant_id"] not in preview.text
    assert await logs_in(grants[0]["credential"]), "looking revokes nothing"

    form = {"kind": "agent", "value": "report-writer", "reason": "ticket 7"}
    answer = await browser.submit("/revoke", form)
    assert answer.status_code == 303, answer.text
    await console.app.pipeline.work.drain(20)
    where = answer.headers["location"].removeprefix("/console")
    page = (await browser.get(where)).text
    assert "Confirmed dead" in page
    assert "matched <strong>2</strong>" in page
    assert [await logs_in(grant["credential"]) for grant in grants] == [False, False, True]
    assert (await console.show_task(task["task_id"]))["state"] == "revoked"

    forged = re.sub(r"of=\d+", "of=99", where)
    assert "matched" not in (await browser.get(forged)).text
    another = await console.signed_in("olga")
    assert "matched" not in (await another.get(where)).text


async def test_what_is_not_dead_is_not_said_to_be(console: ConsoleWorld) -> None:
    task = await console.open()
    grant = await stuck(console, task)
    later = await console.grant(task)
    browser = await console.signed_in()
    page = (await browser.get("/revoke/progress?kind=agent&value=report-writer")).text
    assert "Not dead yet" in page
    assert "Confirmed dead" not in page
    assert re.search(r'class="bad"><b>1</b> stuck', page)
    assert "the database is down" in page
    assert grant in page
    assert later["grant_id"] in page
    assert "<strong>1</strong>" in page.partition("lives on")[0]

    path, said = f"/v1/grants/{grant}/abandon", {"reason": "its database is scrap"}
    assert (await console.call("operator", "POST", path, said)).status_code == 200
    page = (await browser.get(f"/revoke/progress?kind=grant_id&value={grant}")).text
    assert "Given up, not confirmed dead" in page
    assert "Confirmed dead" not in page
    assert "its database is scrap" in (await browser.get(f"/grants/{grant}")).text


async def test_one_grant_is_ended_from_its_page(console: ConsoleWorld) -> None:
    task = await console.open()
    grant, kept = await console.grant(task), await console.grant(task)
    browser = await console.signed_in()
    page = (await browser.get(f"/grants/{grant['grant_id']}")).text
    (path,) = re.findall(r'href="/console(/revoke/preview[^"]+)"', page)
    preview = (await browser.get(path.replace("&amp;", "&"))).text
    assert 'name="freeze"' not in preview
    form = {"kind": "grant_id", "value": grant["grant_id"], "reason": "not needed"}
    assert (await browser.submit("/revoke", form)).status_code == 303
    assert not await logs_in(grant["credential"])
    assert await logs_in(kept["credential"])


async def test_everything_wants_a_fresh_sign_in(console: ConsoleWorld) -> None:
    grants = [
        await console.grant(await console.open()),
        await console.grant(await console.open(agent="order-clerk")),
    ]
    browser = await console.signed_in()
    form = {"reason": "a breach", "freeze": "yes"}
    answer = await browser.get("/revoke/preview?kind=all")
    assert answer.headers["location"] == "/console/revoke/all"
    # There is no way around the page of its own.
    answer = await browser.submit("/revoke", {**form, "kind": "all", "value": ""})
    assert answer.status_code == 400
    await grown_old(console, browser)
    answer = await browser.get("/revoke/all")
    where = "/console/sign-in?return_to=/console/revoke/all&fresh=yes"
    assert (answer.status_code, answer.headers["location"]) == (303, where)
    answer = await browser.submit("/revoke/all", form)
    assert answer.status_code == 401
    assert where.replace("&", "&amp;") in answer.text
    assert all([await logs_in(grant["credential"]) for grant in grants])

    answer = await browser.sign_in(query="?return_to=/console/revoke/all&fresh=yes")
    assert answer.headers["location"] == "/console/revoke/all"
    page = (await browser.get("/revoke/all")).text
    assert "<b>2</b> credentials" in page
    assert re.search(r'name="freeze" value="yes" checked', page)
    answer = await browser.submit("/revoke/all", form)
    assert answer.status_code == 303, answer.text
    await console.app.pipeline.work.drain(20)
    assert not any([await logs_in(grant["credential"]) for grant in grants])
    refused = await console.call(
        "orchestrator",
        "POST",
        "/v1/tasks",
        {"agent": "report-writer", "purpose": "more", "capabilities": ["orders-read"]},
    )
    assert refused.status_code == 403, refused.text

    page = (await browser.get("/revoke")).text
    assert "<code>all</code>" in page
    assert "a breach" in page
    form = {"kind": "all", "value": "", "reason": "over"}
    answer = await browser.submit("/thaw", form)
    assert answer.headers["location"] == "/console/revoke?done=thawed"
    await console.open()


async def test_freezing_alone_ends_nothing(console: ConsoleWorld) -> None:
    task = await console.open()
    grant = await console.grant(task)
    browser = await console.signed_in()
    form = {"kind": "task_id", "value": task["task_id"], "reason": "a look first"}
    answer = await browser.submit("/freeze", form)
    assert answer.headers["location"] == "/console/revoke?done=frozen"
    assert await logs_in(grant["credential"])
    page = (await browser.get("/revoke")).text
    hidden = dict(re.findall(r'type="hidden" name="(kind|value)" value="([^"]*)"', page))
    assert hidden == {"kind": "task_id", "value": task["task_id"]}
    assert (await browser.submit("/thaw", {**hidden, "reason": "fine"})).status_code == 303
    assert (await browser.submit("/thaw", {**hidden, "reason": "again"})).status_code == 404


async def test_what_nobody_can_mean_is_refused(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    for query in ("", "?kind=agent", "?kind=agent&value=%00", "?kind=colour&value=red"):
        assert (await browser.get(f"/revoke/preview{query}")).status_code == 400, query
    wrong = {"kind": "agent", "value": "report-writer"}
    for form in (wrong, {**wrong, "reason": " "}, {**wrong, "reason": "a\x00b"}, {"reason": "x"}):
        assert (await browser.submit("/revoke", form)).status_code == 400, form
    missing = {"kind": "grant_id", "value": "grt_x", "reason": "x"}
    assert (await browser.submit("/revoke", missing)).status_code == 404
