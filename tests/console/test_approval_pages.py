"""*Approvals*: what is shown is what is approved, and by whom alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.console.mails import BEFORE, MAIL, TOOLS, approval_of, question
from tests.console.people import GROUPS
from tests.console.provider import KEY

if TYPE_CHECKING:
    from tests.console.people import ConsoleWorld

ODD = "\u202egpj.\u0430\u200b"
"""What reads backwards, a letter of another alphabet, and one that has no width."""


async def decide(console: ConsoleWorld, task: dict[str, Any], tool: str, arguments: Any) -> Any:
    answer = await console.call(
        task["agent"],
        "POST",
        "/access/v1/evaluation",
        question(task, tool, arguments),
        task_id=task["task_id"],
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def waiting(console: ConsoleWorld, **task: Any) -> tuple[dict[str, Any], str]:
    """A task, and the approval that its mail waits for."""
    opened = await console.open(capabilities=TOOLS, purpose="answer a customer", **task)
    for tool, arguments in BEFORE:
        assert (await decide(console, opened, tool, arguments))["decision"] is True
    mail = {**MAIL, "body": ODD}
    return opened, approval_of(await decide(console, opened, "send-email", mail))


async def test_a_yes_by_form_lets_exactly_that_request_through(console: ConsoleWorld) -> None:
    task, approval = await waiting(console)
    browser = await console.signed_in("alice", GROUPS["approver"])
    listed = (await browser.get("/approvals")).text
    assert listed.index(approval) < listed.index("Decided or over")
    page = (await browser.get(f"/approvals/{approval}")).text
    for said in ("arguments.to", "c@example.com", "Your order 1042", "lethal-combination"):
        assert said in page
    assert "\\u202egpj.\u0430\\u200b" in page
    assert "\u202e" not in page
    assert "cyrillic small letter a" in page
    shown = (await console.call("operator", "GET", f"/v1/approvals/{approval}")).json()
    assert shown["digest"] in page

    answer = await browser.submit(f"/approvals/{approval}/approve", {"reason": "ticket 7"})
    assert answer.headers["location"] == f"/console/approvals/{approval}?done=approved"
    after = (await browser.get(f"/approvals/{approval}?done=approved")).text
    assert "Your yes is on record." in after
    assert "ticket 7" in after
    assert (await decide(console, task, "send-email", MAIL))["decision"] is False
    assert (await decide(console, task, "send-email", {**MAIL, "body": ODD}))["decision"] is True
    again = await browser.submit(f"/approvals/{approval}/deny", {"reason": "too late"})
    assert again.status_code == 409


async def test_looking_and_links_approve_nothing(console: ConsoleWorld) -> None:
    _, approval = await waiting(console)
    browser = await console.signed_in("alice", GROUPS["approver"])
    for path in ("", "/approve", "/deny", "?done=approved", "?reason=yes"):
        answer = await browser.get(f"/approvals/{approval}{path}", origin=browser.origin)
        assert answer.status_code == (405 if path[:1] == "/" else 200)
    assert (await browser.submit(f"/approvals/{approval}/approve")).status_code == 400
    assert (
        await browser.post(f"/approvals/{approval}/approve", {"reason": "x"})
    ).status_code == 403
    shown = (await console.call("operator", "GET", f"/v1/approvals/{approval}")).json()
    assert (shown["state"], shown["votes"]) == ("pending", [])


async def test_who_may_not_approve_sees_why(console: ConsoleWorld) -> None:
    _, approval = await waiting(console)
    for name, role, why in (
        ("vera", "viewer", "for approvers and operators"),
        ("vera", "operator", "for approvers and operators"),  # nobody of the register
        ("audrey", "auditor", "for approvers and operators"),
    ):
        browser = await console.signed_in(name, GROUPS[role])
        page = (await browser.get(f"/approvals/{approval}")).text
        assert why in page
        assert "formaction" not in page


async def test_nobody_approves_what_is_done_for_them(console: ConsoleWorld) -> None:
    now = int(time.time())
    who = {"iss": console.provider.url, "sub": "u-alice", "aud": "broker"}
    token = KEY.sign({**who, "iat": now, "exp": now + 300, "jti": "of-alice"})
    task, approval = await waiting(console, on_behalf_of=token)
    browser = await console.signed_in("alice", GROUPS["approver"])
    before = await console.events(task["task_id"])
    page = (await browser.get(f"/approvals/{approval}")).text
    assert "Somebody else has to approve this: it was asked for by you." in page
    assert "formaction" not in page
    assert await console.events(task["task_id"]) == before, "looking is not asking"
    answer = await browser.submit(f"/approvals/{approval}/approve", {"reason": "mine"})
    assert answer.status_code == 403
    answer = await browser.submit(f"/approvals/{approval}/deny", {"reason": "not like this"})
    assert answer.status_code == 303
    other = await console.signed_in("olga", GROUPS["operator"])
    assert "not like this" in (await other.get(f"/approvals/{approval}")).text


async def test_an_elevation_is_approved_and_shown_at_its_task(console: ConsoleWorld) -> None:
    task = await console.open(agent="order-clerk", capabilities=["orders-read"])
    path = f"/v1/tasks/{task['task_id']}/elevations"
    ask = {"capability": "orders-write", "intent": "mend order 1042", "ttl": "3m"}

    async def elevate() -> Any:
        return await console.call("order-clerk", "POST", path, ask, task_id=task["task_id"])

    asked = await elevate()
    assert asked.status_code == 202, asked.text
    approval = asked.json()["approval_id"]
    browser = await console.signed_in("alice", GROUPS["approver"])
    page = (await browser.get(f"/approvals/{approval}")).text
    assert "order-clerk wants: elevate orders-write" in page
    assert "mend order 1042" in page
    assert "3m 0s" in page
    waits = (await browser.get(f"/tasks/{task['task_id']}")).text
    assert f'href="/console/approvals/{approval}"' in waits
    answer = await browser.submit(f"/approvals/{approval}/approve", {"reason": "ticket 8"})
    assert answer.status_code == 303, answer.text
    assert (await elevate()).status_code == 201
    page = (await browser.get(f"/tasks/{task['task_id']}")).text
    assert "Elevated to orders-write" in page
    assert "the approval is used up" in page
