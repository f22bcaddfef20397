"""Debian's Chromium, looking at a console; whatever it complains about fails the test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import httpx2
from axe_playwright_python.sync_playwright import Axe

from broker.clock import SystemClock
from broker.dev.config import subject_of
from broker.dev.issuer import DevIssuer
from broker.dev.link import console_link
from tests.console.mails import BEFORE, MAIL, TOOLS, approval_of, question
from tests.world import EXCHANGE, JWT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from playwright.sync_api import (
        Browser,
        BrowserContext,
        ConsoleMessage,
        Page,
        Playwright,
        Request,
    )

    from tests.dev.broker_process import Server


# Chromium doesn't sandbox for root, as which CI runs; it looks at pages of ours alone.
OPTIONS: Final = ("--no-sandbox",)


def program() -> str | None:
    """Where it is, if it is installed."""
    return shutil.which("chromium")


def launch(playwright: Playwright) -> Browser | None:
    """Start it without a window, if it is installed."""
    if program() is None:
        return None
    return playwright.chromium.launch(executable_path=program(), args=OPTIONS)


class Looking:
    """Browsers of their own for one broker: what is loaded from elsewhere is an error too."""

    def __init__(self, chromium: Browser, dev: Server) -> None:
        self._chromium = chromium
        self._dev = dev
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []

    def link(self, name: str = "operator") -> str:
        """A one-time link, as `broker dev console` prints it."""
        return console_link(name, Path(self._dev.place["data"]), SystemClock())

    def page(
        self, *, scheme: Any = "light", size: tuple[int, int] = (1280, 900), script: bool = True
    ) -> Page:
        """A page of a browser that nobody has used."""
        context = self._chromium.new_context(
            color_scheme=scheme,
            viewport={"width": size[0], "height": size[1]},
            java_script_enabled=script,
        )
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        return page

    def signed_in(self, name: str = "operator", **how: Any) -> Page:
        """A page of a person who is signed in, at *Now*."""
        page = self.page(**how)
        page.goto(self.link(name))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/console/")
        return page

    def forgive(self, word: str) -> None:
        """Drop complaints that a test is about."""
        self.complaints = [said for said in self.complaints if word not in said]

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self._dev.url).netloc:
            self.complaints.append(f"asked elsewhere: {request.url}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for context in self._contexts:
            context.close()
        if exc is None:
            assert self.complaints == [], self.complaints


def dev_call(
    dev: Server, name: str, method: str, path: str, body: Any = None, *, task_id: str = ""
) -> Any:
    """Call the API of ``broker dev`` as one of its principals; an agent names its task."""
    data = Path(dev.place["data"])
    identity = DevIssuer(data, SystemClock()).token(subject_of(name, data)).reveal()
    form = {
        "grant_type": EXCHANGE,
        "subject_token": identity,
        "subject_token_type": JWT,
        "resource": dev.url,
    }
    if task_id:
        detail = [{"type": "broker_task", "task_id": task_id}]
        form["authorization_details"] = json.dumps(detail)
    token = httpx2.post(f"{dev.url}/oauth/token", data=form).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx2.request(method, f"{dev.url}{path}", json=body, headers=headers)
    assert answer.status_code < 300, answer.text
    return answer.json()


def mail_waits(dev: Server, arguments: Mapping[str, Any] = MAIL, **task: Any) -> dict[str, Any]:
    """Open a task that has read what is private and what anybody wrote, and wants to send a mail.

    Returns the task, with the id of the approval that it waits for.
    """
    ask = {"agent": "report-writer", "purpose": "answer a customer", "capabilities": TOOLS, **task}
    opened = dev_call(dev, "orchestrator", "POST", "/v1/tasks", ask)

    def decide(tool: str, arguments: Mapping[str, Any]) -> Any:
        asked = question(opened, tool, arguments)
        path, agent = "/access/v1/evaluation", opened["agent"]
        return dev_call(dev, agent, "POST", path, asked, task_id=opened["task_id"])

    for tool, given in BEFORE:
        assert decide(tool, given)["decision"] is True
    return {**opened, "approval_id": approval_of(decide("send-email", arguments))}


def axe(page: Page) -> list[str]:
    """What axe finds, of the rules that WCAG 2.2 A and AA have."""
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    engine: Any = Axe()
    found = engine.run(page, options={"runOnly": {"type": "tag", "values": tags}})
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0].get('failureSummary', '')[:300]}"
        for v in found.response["violations"]
    ]
