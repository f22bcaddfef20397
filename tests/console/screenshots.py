"""Pictures of every page, light and dark, wide and narrow: ``make screenshots``.

They are of a ``broker dev`` started for that, with something to see in it.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from playwright.sync_api import sync_playwright

from broker.console.contents import CHAPTERS
from tests.console.chromium import Looking, dev_call, launch, mail_waits
from tests.dev.broker_process import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZES: Final = {"wide": (1280, 800), "narrow": (390, 844)}
HEIGHT: Final = {1280: 1300, 390: 1500}
"""How much of a long page is taken, by the width."""
QUALITY: Final = 45
"""Of WebP: text is still sharp, at a fifth of what a PNG takes."""
TASKS: Final[list[dict[str, Any]]] = [
    {
        "agent": "report-writer",
        "purpose": "the weekly report of open orders",
        "capabilities": ["orders-read", "orders-api"],
    },
    {
        "agent": "order-clerk",
        "purpose": "correct the address of order 1042",
        "capabilities": ["orders-read", "orders-write"],
    },
]


MAIL: Final = {
    "to": ["jo@customer.example"],
    "subject": "Your order 1042",
    "body": "We have put the address right.",
}


def fill(dev: Server) -> dict[str, str]:
    """Have something live, something that died, something that waits, and something frozen.

    Returns the pages that need an id, by a name for each.
    """
    opened: list[dict[str, Any]] = []
    for ask in [*TASKS, *TASKS]:
        task = dev_call(dev, "orchestrator", "POST", "/v1/tasks", ask)
        opened.append(task)
        for capability in ask["capabilities"]:
            path = f"/v1/tasks/{task['task_id']}/grants"
            dev_call(dev, "orchestrator", "POST", path, {"capability": capability})
    path = f"/v1/tasks/{opened[0]['task_id']}/complete"
    dev_call(dev, "orchestrator", "POST", path, {"outcome": "completed"})
    ask = {"selector": {"capability": "send-email"}, "reason": "ticket 7: a wave of odd mails"}
    dev_call(dev, "operator", "POST", "/v1/freezes", ask)
    return chain(dev)


def chain(dev: Server) -> dict[str, str]:
    """Have a chain of tasks, of which one waits for a human; returns its pages."""
    tools = ["customer-lookup", "fetch-page", "send-email", "orders-read"]
    top = mail_waits(dev, MAIL, purpose="answer the customer of order 1042", capabilities=tools)

    def below(task: dict[str, Any], agent: str, purpose: str) -> dict[str, Any]:
        ask = {"agent": agent, "purpose": purpose, "capabilities": ["orders-read"]}
        opened = dev_call(
            dev, "orchestrator", "POST", "/v1/tasks", {**ask, "parent_task_id": task["task_id"]}
        )
        path = f"/v1/tasks/{opened['task_id']}/grants"
        asked = {"capability": "orders-read", "intent": "look up what was ordered"}
        return {**opened, "grant": dev_call(dev, "orchestrator", "POST", path, asked)}

    first = below(top, "order-clerk", "find out what was ordered, and when it was sent")
    last = below(top, "order-clerk", "compare the two addresses")
    path = f"/v1/tasks/{last['task_id']}/complete"
    done = {"outcome": "completed", "summary": "they differ in the number of the house"}
    dev_call(dev, "orchestrator", "POST", path, done)
    old = mail_waits(dev, MAIL, purpose="tell a customer about the delay")
    said = {"reason": "not before the carrier has answered"}
    dev_call(dev, "operator", "POST", f"/v1/approvals/{old['approval_id']}/deny", said)
    return {
        "task": f"/tasks/{top['task_id']}",
        "task-ended": f"/tasks/{last['task_id']}",
        "grant": f"/grants/{first['grant']['grant_id']}",
        "grant-dead": f"/grants/{last['grant']['grant_id']}",
        "approval": f"/approvals/{top['approval_id']}",
        "preview": f"/revoke/preview?kind=task_id&value={top['task_id']}",
        "revoke-all": "/revoke/all",
        "revoking": "/revoke/progress?kind=capability&value=orders-write",
    }


def pages_of(dev: Server) -> dict[str, str]:
    """Return by name the pages of agents, audit, policy and reviews, those with an id included."""
    events = dev_call(dev, "operator", "GET", "/v1/audit/events?type=decision&limit=1")["items"]
    owner = dev_call(dev, "operator", "GET", "/v1/owners")["items"][0]["owner"]
    return {
        "agents": "/agents?role=any",
        "agent": "/agents/report-writer",
        "owners": "/owners",
        "owner": f"/owners/one?owner={quote(owner)}",
        "audit": "/audit",
        "audit-event": f"/audit/events/{events[0]['id']}",
        "audit-log": "/audit/log",
        "policy": "/policy",
        "policy-who-can": "/policy/who-can?capability=orders-read",
        "policy-decision": f"/policy/decisions?id={events[0]['decision']}",
        "policy-dry-run": "/policy/dry-run",
        "reviews": "/reviews",
    }


def take(look: Looking, dev: Server, folder: Path, more: dict[str, str]) -> None:
    """Take the pictures of all pages; ``more`` are those with an id in their address."""
    for scheme in ("light", "dark"):
        for size, pixels in SIZES.items():
            out = look.page(scheme=scheme, size=pixels)
            out.goto(f"{dev.url}/console/sign-in")
            shoot(out, folder, f"sign-in-{scheme}-{size}")
            page = look.signed_in(scheme=scheme, size=pixels)
            page.goto(f"{dev.url}/console/audit/log")
            page.get_by_role("button", name="Verify now").click()
            for chapter in CHAPTERS:
                if chapter.label:
                    page.goto(f"{dev.url}/console{chapter.path}")
                    shoot(page, folder, f"{chapter.label.lower()}-{scheme}-{size}")
            for name, path in {**more, **pages_of(dev)}.items():
                page.goto(f"{dev.url}/console{path}")
                shoot(page, folder, f"{name}-{scheme}-{size}")


def shoot(page: Page, folder: Path, name: str) -> None:
    """Take one picture of a whole page, in the smallest form that browsers know."""
    page.wait_for_timeout(300)  # the first event of a live page
    browser: Any = page.context.new_cdp_session(page)
    size = browser.send("Page.getLayoutMetrics")["cssContentSize"]
    size["height"] = min(size["height"], HEIGHT[size["width"]])
    taken = browser.send(
        "Page.captureScreenshot",
        {
            "format": "webp",
            "quality": QUALITY,
            "captureBeyondViewport": True,
            "clip": {**size, "scale": 1},
        },
    )
    (folder / f"{name}.webp").write_bytes(base64.b64decode(taken["data"]))


def main() -> None:
    """Write them below a folder, ``docs/images/console`` unless another is named."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/console")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        data = Path(home)
        with Server(data / "log", "dev", "--port", 0, "--data", data / "data") as dev:
            more = fill(dev.wait_ready())
            browser = launch(playwright)
            assert browser is not None, "there is no chromium here: apt-get install chromium"
            with Looking(browser, dev) as look:
                take(look, dev, folder, more)
            browser.close()


if __name__ == "__main__":
    main()
