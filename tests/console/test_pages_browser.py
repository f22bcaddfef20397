"""Agents, audit, policy and reviews as people see them: Chromium against a ``broker dev``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.console.chromium import Looking, dev_call
from tests.console.screenshots import fill, pages_of
from tests.console.test_browser import axe
from tests.dev.broker_process import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

WIDE = (1400, 900)
NARROW = (390, 844)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("pages")
    with Server(home / "log", "dev", "--port", 0, "--data", home / "data") as server:
        fill(server.wait_ready())
        yield server


@pytest.fixture
def look(chromium: Browser, dev: Server) -> Iterator[Looking]:
    with Looking(chromium, dev) as made:
        yield made


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", NARROW)], ids=str)
def test_axe_finds_nothing(look: Looking, dev: Server, scheme: Any, size: tuple[int, int]) -> None:
    page = look.signed_in(scheme=scheme, size=size)
    for name, path in pages_of(dev).items():
        answer = page.goto(f"{dev.url}/console{path}")
        assert answer is not None
        assert answer.status == 200, path
        page.evaluate("for (const d of document.querySelectorAll('main details')) d.open = true")
        assert axe(page) == [], name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_suspending_and_resuming(look: Looking, dev: Server) -> None:
    page = look.signed_in()
    page.get_by_role("link", name="Agents").click()
    page.get_by_role("link", name="order-clerk").click()
    page.get_by_text("Suspend…").click()
    page.get_by_role("button", name="Suspend").click()  # the reason is required
    expect(page.get_by_role("heading", name="order-clerk")).to_be_visible()
    page.get_by_label("Reason, for the log").first.fill("odd calls at night")
    page.get_by_role("button", name="Suspend").click()
    expect(page.get_by_text("It is suspended by operator")).to_be_visible()
    page.get_by_label("Reason, for the log").first.fill("looked at")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("It may work again.").first).to_be_visible()
    assert dev_call(dev, "operator", "GET", "/v1/principals/order-clerk")["state"] == "active"


def test_verifying_and_taking_the_log_along(look: Looking, dev: Server) -> None:
    page = look.signed_in()
    page.goto(f"{dev.url}/console/audit/log")
    page.get_by_role("button", name="Verify now").click()
    expect(page.get_by_text("nothing was changed")).to_be_visible()
    with page.expect_download() as loading:
        page.get_by_role("button", name="Download").click()
    assert loading.value.suggested_filename == "audit-cloudevents.jsonl"
    assert "task.opened" in loading.value.path().read_text()


def test_a_dry_run(look: Looking, dev: Server) -> None:
    page = look.signed_in(script=False)
    page.goto(f"{dev.url}/console/policy")
    page.get_by_role("link", name="Dry-run a request").click()
    page.get_by_label("Capability or tool").select_option("orders-write")
    page.get_by_label("As this agent").select_option("order-clerk")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("status")).to_contain_text("order-clerk for orders-write")
