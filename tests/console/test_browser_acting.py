"""What operators do, in Debian's Chromium against a whole ``broker dev``: approve, revoke, read."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.console.chromium import axe, dev_call, mail_waits

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.console.chromium import Looking
    from tests.dev.broker_process import Server

EVIL: Final = (
    "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
)
BREAKS: Final = (
    "\"'></textarea></title></svg></code><svg onload=\"document.title='pwned'\">{{7*1111111}}"
)
WIDE: Final = (1400, 900)
NARROW: Final = (390, 844)


def opened(dev: Server, **more: Any) -> dict[str, Any]:
    ask = {"agent": "report-writer", "purpose": "the report", "capabilities": ["orders-read"]}
    return dev_call(dev, "orchestrator", "POST", "/v1/tasks", {**ask, **more})


def granted(dev: Server, task: dict[str, Any], **more: Any) -> dict[str, Any]:
    ask = {"capability": "orders-read", **more}
    return dev_call(dev, "orchestrator", "POST", f"/v1/tasks/{task['task_id']}/grants", ask)


def chain(dev: Server, words: str = "read it for them") -> dict[str, Any]:
    """A task that waits for a human, with one below it that holds a credential."""
    capabilities = ["customer-lookup", "fetch-page", "send-email", "orders-read"]
    above = mail_waits(dev, capabilities=capabilities)
    more = {"parent_task_id": above["task_id"], "agent": "order-clerk", "purpose": words}
    below = opened(dev, **more)
    granted(dev, above)
    return {**above, "below": below, "grant": granted(dev, below, intent=words)}


def test_from_waiting_for_a_human_to_confirmed_dead(look: Looking, dev: Server) -> None:
    """Sign in, see it wait, approve it, preview, revoke, see it dead, read its story, verify."""
    task = mail_waits(
        dev, capabilities=["customer-lookup", "fetch-page", "send-email", "orders-read"]
    )
    page = look.signed_in()
    grant = granted(dev, task)["grant_id"]
    row = page.locator("tr", has_text=grant)
    expect(row.locator("time")).to_have_text(re.compile(r"in \d+m \d+s"))

    page.get_by_role("link", name=re.compile("waiting for a human")).click()
    page.locator(f'a[href$="{task["approval_id"]}"]').click()
    expect(page.locator(".exact")).to_contain_text("c@example.com")
    page.get_by_label("Why").fill("ticket 7")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status")).to_have_text("Your yes is on record.")

    page.get_by_role("link", name=task["task_id"]).click()
    page.get_by_role("link", name="End this task…").click()
    expect(page.locator("main")).to_contain_text(grant)
    page.get_by_label("Why").fill("enough")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("heading", name="Confirmed dead")).to_be_visible()
    expect(page.locator("#live-state")).to_have_text("Live")
    expect(page.get_by_text("matched 1 credential.")).to_be_visible()

    page.goto(f"{dev.url}/console/tasks?text=customer")
    page.locator(f'td a[href$="{task["task_id"]}"]').click()
    story = page.locator(".story")
    for told in ("answer a customer", "send-email", "ticket 7", "enough", "confirmed dead"):
        expect(story).to_contain_text(told)

    page.get_by_role("link", name="Audit", exact=True).click()
    page.get_by_label("Task").fill(task["task_id"])
    page.get_by_label("Type").fill("grant.revoked")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("row", name=re.compile(grant))).to_have_count(1)
    in_log = 1 + page.get_by_role("row").count()
    page.get_by_role("link", name=re.compile("the signed log")).click()
    assert verified(page) >= in_log
    assert_in_the_log(page, grant)


def verified(page: Page) -> int:
    """Verify the log; returns how many records of it are signed and as they were written."""
    page.get_by_role("button", name="Verify now").click()
    expect(page.get_by_role("status")).to_have_text("Verified just now.")
    expect(page.get_by_text("nothing was changed")).to_be_visible()
    expect(page.get_by_role("heading", name="Findings")).to_have_count(0)
    return int(page.locator("dt:text-is('Here') + dd").inner_text())


def assert_in_the_log(page: Page, grant: str) -> None:
    """Fail unless what was verified tells of a grant's end: the signed file does, not a page."""
    with page.expect_download() as loading:
        page.get_by_role("button", name="Download").click()
    events = [json.loads(line) for line in loading.value.path().read_text().splitlines()]
    kinds = {event["type"] for event in events if grant in json.dumps(event)}
    assert any(kind.endswith("grant.revoked") for kind in kinds), kinds


def test_a_revocation_is_followed_until_it_is_dead(look: Looking, dev: Server) -> None:
    """The page of what is dead tells of what is issued meanwhile, without being loaded again."""
    page = look.signed_in()
    page.goto(f"{dev.url}/console/revoke/progress?kind=agent&value=order-clerk")
    expect(page.locator("#live-state")).to_have_text("Live")
    task = opened(dev, agent="order-clerk")
    granted(dev, task)
    expect(page.get_by_text("lives on")).to_be_visible()
    path = f"/v1/tasks/{task['task_id']}/complete"
    dev_call(dev, "orchestrator", "POST", path, {"outcome": "completed"})
    expect(page.get_by_text("lives on")).to_have_count(0)


def newcomer(owner: str) -> dict[str, Any]:
    """An agent whose purpose and owner are what somebody would like them to be."""
    return {
        "name": "newcomer",
        "role": "agent",
        "owner": owner,
        "purpose": EVIL + BREAKS,
        "identity": {"issuer": "dev", "subject": "agent/newcomer"},
        "capabilities": ["orders-read"],
    }


def test_what_agents_write_is_text(look: Looking, dev: Server) -> None:
    """Purpose, arguments, intent, context, summary, reasons: no script, no markup."""
    mail = {"to": [EVIL, BREAKS], "subject": BREAKS, "body": EVIL}
    task = mail_waits(
        dev,
        mail,
        purpose=EVIL,
        context={"note": EVIL, BREAKS: BREAKS},
        capabilities=["customer-lookup", "fetch-page", "send-email", "orders-read"],
    )
    more = {"parent_task_id": task["task_id"], "agent": "order-clerk", "purpose": BREAKS}
    below = opened(dev, **more)
    grant = granted(dev, below, intent=EVIL)
    path = f"/v1/tasks/{below['task_id']}/complete"
    dev_call(dev, "orchestrator", "POST", path, {"outcome": "failed", "summary": EVIL + BREAKS})
    call = {"capability": "orders-read", "parameters": {BREAKS: EVIL}, "intent": BREAKS}
    dev_call(dev, "operator", "POST", "/v1/policy/dry-run", {**call, "agent": "order-clerk"})
    owner = f"ann {EVIL}"
    dev_call(dev, "operator", "POST", "/v1/principals", newcomer(owner))
    query = f"type=decision&task_id={task['task_id']}"
    decision = dev_call(dev, "operator", "GET", f"/v1/audit/events?{query}")["items"][-1]
    selector = {"owner": "nobody@example.com"}
    ask = {"selector": selector, "reason": EVIL}
    dev_call(dev, "operator", "POST", "/v1/freezes", ask)
    page = look.signed_in()
    for path, said in (
        ("/", None),
        ("/tasks", EVIL),
        (f"/tasks/{task['task_id']}", EVIL),
        (f"/tasks/{below['task_id']}", BREAKS),
        (f"/grants/{grant['grant_id']}", EVIL),
        ("/approvals", EVIL),
        (f"/approvals/{task['approval_id']}", BREAKS[:4]),
        ("/revoke", EVIL),
        (f"/revoke/preview?kind=task_id&value={task['task_id']}", None),
        (f"/tasks?text={quote(EVIL)}&agent={quote(BREAKS)}", None),
        ("/agents?role=any", EVIL),
        (f"/agents?owner={quote(EVIL)}", None),
        ("/agents/newcomer", EVIL),
        ("/owners", EVIL),
        (f"/owners/one?owner={quote(owner)}", EVIL),
        (f"/audit?task={task['task_id']}", EVIL[:20]),
        (f"/audit?text={quote(BREAKS)}", None),
        (f"/audit/events/{decision['id']}", None),
        (f"/policy/decisions?id={decision['decision']}", None),
        (f"/policy/decisions?id={quote(EVIL[:64])}", None),
        (f"/policy/dry-run?capability={quote(EVIL)}&agent={quote(BREAKS)}", None),
    ):
        page.goto(f"{dev.url}/console{path}")
        if said:
            expect(page.locator("main")).to_contain_text(said)
        assert page.title().endswith(" · broker"), path
        inside = page.locator("main img, main script, main [onload], main [onerror]")
        assert inside.count() == 0, path
        expect(page.locator("main")).not_to_contain_text("7777777")
    look.forgive("the server responded with a status of 40")  # some of it is refused
    again = {"selector": selector, "reason": "x"}
    dev_call(dev, "operator", "DELETE", "/v1/freezes", again)


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", NARROW)], ids=str)
def test_axe_finds_nothing_on_them(
    look: Looking, dev: Server, scheme: Any, size: tuple[int, int]
) -> None:
    """Both colours and both widths; the four together differ in nothing that axe looks at."""
    made = chain(dev)
    page = look.signed_in(scheme=scheme, size=size)
    for path in (
        "/tasks?state=active",
        f"/tasks/{made['task_id']}",
        f"/grants/{made['grant']['grant_id']}",
        "/approvals",
        f"/approvals/{made['approval_id']}",
        "/revoke",
        "/revoke/all",
        f"/revoke/progress?kind=task_id&value={made['task_id']}",
    ):
        page.goto(f"{dev.url}/console{path}")
        for details in page.locator("main details").all():
            details.locator("summary").click()
        assert axe(page) == [], path
        assert fits(page), path


def fits(page: Page) -> bool:
    """Whether nothing of a page sticks out at its right."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_all_of_it_works_without_script(look: Looking, dev: Server) -> None:
    task = opened(dev)
    granted(dev, task)
    page = look.signed_in(script=False)
    page.goto(f"{dev.url}/console/tasks/{task['task_id']}")
    page.get_by_role("link", name="End this task…").click()
    page.get_by_label("Why").fill("by hand")
    page.get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_role("heading", name="Confirmed dead")).to_be_visible()
    page.get_by_role("link", name="Reload").click()
    expect(page.get_by_text("matched 1 credential.")).to_be_visible()
