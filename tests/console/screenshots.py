"""Pictures of every page, light and dark, wide and narrow: ``make screenshots``.

They are of a ``broker dev`` started for that, with something to see in it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from playwright.sync_api import sync_playwright

from broker.console.contents import CHAPTERS
from tests.console.chromium import Looking, dev_call, launch
from tests.dev.broker_process import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZES: Final = {"wide": (1280, 860), "narrow": (390, 844)}
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


def fill(dev: Server) -> None:
    """Have something live, something that died, and something frozen."""
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


def take(look: Looking, dev: Server, folder: Path) -> None:
    """Take the pictures of all pages that need no id."""
    for scheme in ("light", "dark"):
        for size, pixels in SIZES.items():
            out = look.page(scheme=scheme, size=pixels)
            out.goto(f"{dev.url}/console/sign-in")
            shoot(out, folder, f"sign-in-{scheme}-{size}")
            page = look.signed_in(scheme=scheme, size=pixels)
            for chapter in CHAPTERS:
                if chapter.label:
                    page.goto(f"{dev.url}/console{chapter.path}")
                    shoot(page, folder, f"{chapter.label.lower()}-{scheme}-{size}")
            for name, path in pages_of(dev).items():
                page.goto(f"{dev.url}/console{path}")
                shoot(page, folder, f"{name}-{scheme}-{size}")


def shoot(page: Page, folder: Path, name: str) -> None:
    """Take one picture of a whole page."""
    page.wait_for_timeout(300)  # the first event of a live page
    page.screenshot(path=folder / f"{name}.png", full_page=True)


def main() -> None:
    """Write them below a folder, ``docs/images/console`` unless another is named."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/console")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        data = Path(home)
        with Server(data / "log", "dev", "--port", 0, "--data", data / "data") as dev:
            fill(dev.wait_ready())
            browser = launch(playwright)
            assert browser is not None, "there is no chromium here: apt-get install chromium"
            with Looking(browser, dev) as look:
                take(look, dev, folder)
            browser.close()


if __name__ == "__main__":
    main()
