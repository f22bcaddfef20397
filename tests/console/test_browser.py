"""The console as people see it: Debian's Chromium against a whole ``broker dev``."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
from playwright.sync_api import expect

from tests.console.chromium import Looking, axe, dev_call
from tests.dev.broker_process import Server, broker
from tests.issuers import Answer
from tests.loopback import Loopback

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

WIDE: Final = (1280, 900)
NARROW: Final = (375, 740)
EVIL: Final = '<img src=x onerror="document.title=1"><script>document.title=1</script>'


def task(dev: Server, **more: Any) -> dict[str, Any]:
    ask = {
        "agent": "report-writer",
        "purpose": "the weekly report",
        "capabilities": ["orders-read", "orders-api"],
        **more,
    }
    return dev_call(dev, "orchestrator", "POST", "/v1/tasks", ask)


def grant(dev: Server, opened: dict[str, Any], capability: str = "orders-read") -> dict[str, Any]:
    path = f"/v1/tasks/{opened['task_id']}/grants"
    return dev_call(dev, "orchestrator", "POST", path, {"capability": capability})


def test_signing_in_by_the_link_of_broker_dev(look: Looking, dev: Server) -> None:
    page = look.page()
    page.goto(f"{dev.url}/console")
    expect(page).to_have_url(re.compile(r"/console/sign-in\?return_to="))
    page.goto(look.link())
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{dev.url}/console/")
    expect(page.get_by_role("heading", name="Now")).to_be_visible()
    cookie: Any = next(
        c for c in page.context.cookies() if c.get("name") == "__Host-broker-session"
    )
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
    assert cookie["path"] == "/"


def test_a_grant_appears_counts_down_and_dies(look: Looking, dev: Server) -> None:
    page = look.signed_in()
    expect(page.locator("#live-state")).to_have_text("Live")
    made = grant(dev, opened := task(dev))
    row = page.locator("tr", has_text=made["grant_id"])
    time = row.locator("time")
    expect(time).to_have_text(re.compile(r"in \d+m \d+s"))
    before = time.inner_text()
    expect(time).not_to_have_text(before)
    path = f"/v1/tasks/{opened['task_id']}/complete"
    dev_call(dev, "orchestrator", "POST", path, {"outcome": "completed"})
    expect(row).to_have_count(0)
    expect(page.get_by_text("Of the last")).to_be_visible()


def test_what_is_frozen_is_shown_as_text(look: Looking, dev: Server) -> None:
    ask = {"selector": {"capability": "orders-write"}, "reason": EVIL}
    dev_call(dev, "operator", "POST", "/v1/freezes", ask)
    page = look.signed_in()
    expect(page.locator("#live-state")).to_have_text("Live")
    expect(page.get_by_text(EVIL)).to_be_visible()
    dev_call(dev, "operator", "POST", "/v1/freezes", {**ask, "selector": {"agent": "order-clerk"}})
    expect(page.locator("td", has_text="agent:order-clerk")).to_be_visible()
    assert page.title() == "Now · broker"
    assert page.locator("main img, main script").count() == 0
    for selector in ({"capability": "orders-write"}, {"agent": "order-clerk"}):
        dev_call(dev, "operator", "DELETE", "/v1/freezes", {"selector": selector, "reason": "x"})


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", NARROW)], ids=str)
def test_axe_finds_nothing(look: Looking, dev: Server, scheme: Any, size: tuple[int, int]) -> None:
    grant(dev, task(dev))
    page = look.signed_in(scheme=scheme, size=size)
    expect(page.locator("#live-state")).to_have_text("Live")
    assert axe(page) == []
    page.locator("details.who summary").click()
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.goto(f"{dev.url}/console/nothing")
    look.forgive("404")
    assert axe(page) == []
    out = look.page(scheme=scheme, size=size)
    for path in ("/sign-in", "/sign-in/link?token=x", "/signed-out"):
        out.goto(f"{dev.url}/console{path}")
        assert axe(out) == []


def test_it_works_without_script(look: Looking, dev: Server) -> None:
    made = grant(dev, task(dev))
    page = look.signed_in(script=False)
    expect(page.get_by_title(made["grant_id"])).to_be_visible()
    expect(page.get_by_role("link", name="Reload")).to_be_visible()
    page.locator("details.who summary").click()
    page.get_by_role("button", name="dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.locator("details.who summary").click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("heading", name="Signed out")).to_be_visible()
    page.goto(f"{dev.url}/console/")
    expect(page).to_have_url(re.compile("/sign-in"))


def test_the_keyboard_is_enough(look: Looking) -> None:
    page = look.signed_in()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    summary = page.locator("details.who summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign out", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Sign out", exact=True)).to_be_hidden()
    pause = page.get_by_role("button", name="Pause")
    pause.focus()
    page.keyboard.press("Space")
    expect(page.locator("#live-state")).to_have_text("Paused")


def test_another_site_can_neither_frame_nor_send(look: Looking, dev: Server) -> None:
    page = look.signed_in()
    form = (
        f'<form method=post action="{dev.url}/console/sign-out"></form>'
        "<script>document.forms[0].submit()</script>"
    )
    frame = f'<iframe src="{dev.url}/console/"></iframe>'

    def answer(asked: Any) -> Answer:
        body = {"/form": form, "/frame": frame}.get(asked.path, "")
        return Answer(body.encode(), headers={"content-type": "text/html"})

    with Loopback(answer) as evil:
        other = page.context.new_page()
        other.goto(f"{evil.url}/form")
        expect(other.get_by_text("This was not sent by a page of the console")).to_be_visible()
        other.goto(f"{evil.url}/frame")
        other.wait_for_load_state("networkidle")
        framed = other.frames[1]
        assert "Now" not in framed.content()
    page.reload()
    expect(page.get_by_role("heading", name="Now")).to_be_visible()


def test_a_stream_ends_when_the_broker_stops(chromium: Browser, tmp_path: Path) -> None:
    with Server(tmp_path / "log", "dev", "--port", 0, "--data", tmp_path / "data") as server:
        server.wait_ready()
        with Looking(chromium, server) as look:
            page = look.signed_in()
            expect(page.locator("#live-state")).to_have_text("Live")
            server.process.send_signal(signal.SIGTERM)
            expect(page.locator("#live-state")).to_have_text("Ended: reload the page.")
        assert server.ended() in (0, 143)


def test_no_link_is_in_what_is_kept(dev: Server) -> None:
    assert "token=" not in dev.log.read_text()
    assert "token=" not in str(dev.place)
    assert dev.place["console"] == f"{dev.url}/console"
    ran = broker("dev", "console", "--data", dev.place["data"], "--json")
    assert ran.json["link"].startswith(f"{dev.url}/console/sign-in/link?token=")
    assert ran.json["principal"] == "operator"
    assert httpx2.get(ran.json["link"]).status_code == 200
    ran = broker("dev", "console", "report-writer", "--data", dev.place["data"])
    assert ran.code == 0  # the console says that it is for nobody who may use it
