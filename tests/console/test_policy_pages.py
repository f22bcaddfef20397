"""Policies at the console: read, asked why, and asked what if."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.console.people import EVIL, assert_text

if TYPE_CHECKING:
    from tests.console.people import ConsoleWorld

DRY = "/policy/dry-run"


async def test_the_policies_in_force_are_shown(console: ConsoleWorld) -> None:
    browser = await console.signed_in("vera", "staff")
    page = (await browser.get("/policy")).text
    asked = (await console.call("operator", "GET", "/v1/policy")).json()
    assert asked["digest"] in page
    assert "generation 1 " in page
    assert all(policy["policy"] in page for policy in asked["policies"])
    assert "permit (principal" in page
    assert "Explain a decision" not in page  # that is of the log
    page = (await browser.get("/policy/who-can?capability=orders-write")).text
    assert "order-clerk" in page
    assert (await browser.get("/policy/who-can?capability=%00")).status_code == 404


async def test_a_decision_is_explained(console: ConsoleWorld) -> None:
    task = await console.open()
    refused = await console.call(
        "report-writer",
        "POST",
        f"/v1/tasks/{task['task_id']}/grants",
        {"capability": "orders-api", "intent": "x"},
        task_id=task["task_id"],
    )
    assert refused.status_code == 403
    await console.grant(task, intent=EVIL)
    events = await console.events(task["task_id"])
    browser = await console.signed_in("audrey", "audit")
    decisions = [e for e in events if e["type"] == "decision"]
    assert decisions
    for event in decisions:
        page = await browser.get(f"/policy/decisions?id={event['decision']}")
        assert page.status_code == 200, page.text
        assert task["task_id"] in page.text
        assert "<img src=x" not in page.text
    assert_text((await browser.get("/policy/decisions?id=%3Cimg%20src%3Dx%20onerror%3D")).text, 0)
    for wrong in ("dec_x", "%00", "tsk_0", "%ff"):
        assert (await browser.get(f"/policy/decisions?id={wrong}")).status_code == 404, wrong


async def test_a_request_is_tried_and_nothing_happens(console: ConsoleWorld) -> None:
    task = await console.open()
    before = len(await console.events(task["task_id"]))
    browser = await console.signed_in("vera", "staff")
    assert (await browser.get(f"{DRY}?agent=report-writer")).status_code == 200

    page = await browser.submit(DRY, {"capability": "orders-read", "task_id": task["task_id"]})
    assert page.status_code == 200, page.text
    assert ">allow<" in page.text
    page = await browser.submit(DRY, {"capability": "orders-write", "agent": "report-writer"})
    assert ">deny<" in page.text
    form = {
        "capability": "send-email",
        "task_id": task["task_id"],
        "arguments": '{"to": ["a@example.com"], "subject": "s"}',
        "destination": "https://mail.example.com",
        "effects": "egress:internet, egress:mail",
        "intent": EVIL,
    }
    page = await browser.submit(DRY, form)
    assert page.status_code == 200, page.text
    assert_text(page.text)
    assert "egress:internet, egress:mail" in page.text  # what was asked is still there
    assert len(await console.events(task["task_id"])) == before
    assert await console.logged("grant") == []


@pytest.mark.parametrize(
    ("form", "status", "said"),
    [
        ({}, 400, "a task or an agent"),
        ({"capability": "orders-read"}, 400, "a task or an agent"),
        ({"capability": "orders-read", "agent": "a", "task_id": "t"}, 400, "not both"),
        ({"capability": "orders-read", "agent": "report-writer", "ttl": "5m"}, 400, "ttl"),
        ({"capability": EVIL, "agent": "report-writer"}, 400, "capability"),
        ({"capability": "nothing", "agent": "report-writer"}, 404, "no such capability"),
        ({"capability": "orders-read", "agent": "nobody"}, 404, "no such agent"),
        ({"capability": "orders-read", "agent": EVIL}, 400, "agent"),
        ({"capability": "orders-read", "task_id": "tsk_x"}, 404, "no such task"),
        ({"capability": "orders-read", "task_id": "t", "ttl": "soon"}, 400, "ttl"),
        ({"capability": "orders-read", "task_id": "t", "parameters": "{"}, 400, "JSON object"),
        (
            {"capability": "orders-read", "task_id": "t", "parameters": "[" * 4000},
            400,
            "parameters",
        ),
        ({"capability": "orders-read", "task_id": "t", "parameters": "[1]"}, 400, "parameters"),
        (
            {"capability": "orders-read", "task_id": "t", "arguments": '{"a": NaN}'},
            400,
            "arguments",
        ),
        ({"capability": "orders-read", "task_id": "t", "effects": "<b>"}, 400, "effects"),
        ({"capability": "orders-read", "task_id": "t", "intent": "\x00"}, 400, "intent"),
        ({"capability": "orders-read", "task_id": "t", "ttl": "x" * 5000}, 400, "ttl"),
    ],
)
async def test_what_makes_no_request_is_said(
    console: ConsoleWorld, form: dict[str, str], status: int, said: str
) -> None:
    browser = await console.signed_in("vera", "staff")
    answer = await browser.submit(DRY, form)
    assert answer.status_code == status, answer.text
    assert said in answer.text
    assert "<img src=x" not in answer.text
