"""Reviews at the console: what was done with the glass broken, and who is due."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.console.people import EVIL, ConsoleWorld, assert_text, console_config
from tests.http.consenting import ConsentWorld, consent_document, give_rights

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.console.provider import Provider


WHO_MAY_BREAK_IT = 'context.asker == "bob"'


class GlassWorld(ConsoleWorld, ConsentWorld):
    """A console where glass can be broken."""


@pytest.fixture
async def world(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path
) -> AsyncGenerator[GlassWorld]:
    document = consent_document(engines[0], tmp_path / "policies")
    document["principals"] = [p for p in document["principals"] if p["name"] != "alice"]
    policy = tmp_path / "policies" / "consent.cedar"
    policy.write_text(policy.read_text().replace('context.asker == "alice"', WHO_MAY_BREAK_IT))
    config = console_config(engines[0], provider, tmp_path, document=document)
    await give_rights(engines[0], config)
    made = GlassWorld(engines[0], config, provider)
    await made.empty()
    yield made
    await made.close()


async def broken(world: GlassWorld, **fields: Any) -> dict[str, Any]:
    """A break-glass, and its task."""
    task = await world.open(capabilities=["orders-read"])
    answer = await world.break_glass(task, **fields)
    assert answer.status_code == 201, answer.text
    return {**answer.json(), "task": task}


async def test_a_review_is_read_and_closed_with_findings(world: GlassWorld) -> None:
    made = await broken(world, intent=EVIL)
    path = f"/reviews/{made['elevation_id']}"
    auditor = await world.signed_in("audrey", "audit")
    listed = (await auditor.get("/reviews")).text
    assert path in listed
    assert_text(listed)
    page = (await auditor.get(path)).text
    assert_text(page)
    assert "glass.broken" in page
    assert "database/rotate-root/orders" in page
    assert "Close with findings" not in page
    assert (await auditor.get(f"{path}/close")).status_code == 403

    browser = await world.signed_in()
    assert "still broken" in (await browser.get(path)).text
    assert (await browser.submit(f"{path}/close", {"findings": "x"})).status_code == 409
    await world.complete(made["task"])
    await world.sweep()
    assert "Close with findings" in (await browser.get(path)).text
    assert_text((await browser.get(f"{path}/close")).text)
    for wrong in ("", " ", "a\x00", "x" * 4001):
        assert (await browser.submit(f"{path}/close", {"findings": wrong})).status_code == 400
    answer = await browser.submit(f"{path}/close", {"findings": EVIL})
    assert answer.status_code == 303, answer.text

    page = (await browser.get(f"{path}?done=closed")).text
    assert "The review is closed." in page
    assert_text(page, 2)
    assert_text((await auditor.get("/reviews")).text.partition('id="h-closed"')[2])
    assert [e["by"] for e in await world.logged("review.closed")] == ["alice"]
    assert (await browser.submit(f"{path}/close", {"findings": "x"})).status_code == 409


async def test_closing_needs_a_fresh_sign_in(world: GlassWorld) -> None:
    made = await broken(world)
    await world.complete(made["task"])
    await world.sweep()
    path = f"/reviews/{made['elevation_id']}/close"
    browser = await world.signed_in()
    token = await browser.csrf()
    [key] = [k for k in await world.app.connection.command("KEYS", "*") if b":session:" in k]
    row = json.loads(await world.app.connection.command("GET", key))
    row["auth_at"] -= 600_000
    await world.app.connection.command("SET", key, json.dumps(row), "PX", 600_000)

    answer = await browser.get(path)
    assert answer.status_code == 303
    way = f"/console/sign-in?return_to=/console{path}&fresh=yes"
    assert answer.headers["location"] == way
    answer = await browser.post(path, {"csrf": token, "findings": "x"})
    assert answer.status_code == 401
    assert await world.logged("review.closed") == []
    back = f"?fresh=yes&return_to=/console{path}"
    assert (await browser.sign_in(query=back)).headers["location"] == f"/console{path}"
    assert (await browser.submit(path, {"findings": "nothing odd"})).status_code == 303


async def test_who_broke_the_glass_does_not_review_it(world: GlassWorld) -> None:
    task = await world.open(agent="order-clerk", capabilities=["orders-read"])
    ask = {"capability": "orders-admin", "intent": "the agent is stuck"}
    path = f"/v1/tasks/{task['task_id']}/break-glass"
    made = await world.bound(task, "POST", path, ask, name="bob")
    assert made.status_code == 201, made.text
    await world.complete(task)
    await world.sweep()
    bob = world.browser()
    audience = f"{world.config.broker.issuer}/console"
    token = world.issuer.token("operator/bob", ttl_s=60, audience=audience).reveal()
    assert (await bob.post("/sign-in/link", {"token": token})).status_code == 303

    review = f"/reviews/{made.json()['elevation_id']}"
    page = (await bob.get(review)).text
    assert "Somebody else has to review this" in page
    assert "Close with findings" not in page
    page = (await bob.get(f"{review}/close")).text
    assert "Somebody else has to review this" in page
    assert "<textarea" not in page
    answer = await bob.submit(f"{review}/close", {"findings": "all well"})
    assert answer.status_code == 403
    assert await world.logged("review.closed") == []

    alice = await world.signed_in()
    assert "Close with findings" in (await alice.get(review)).text
    assert (await alice.submit(f"{review}/close", {"findings": "seen"})).status_code == 303
    assert [e["by"] for e in await world.logged("review.closed")] == ["alice"]


async def test_who_is_due_is_listed(world: GlassWorld, provider: Provider, tmp_path: Path) -> None:
    document = consent_document(world.stack, tmp_path / "policies", review={"unused_after": "1ms"})
    document["principals"] = [p for p in document["principals"] if p["name"] != "alice"]
    config = console_config(world.stack, provider, tmp_path, document=document)
    strict = GlassWorld(world.stack, config, provider)
    await strict.app.principals.sweep()
    browser = await strict.signed_in("audrey", "audit")
    page = (
        (await browser.get("/reviews")).text.partition('id="h-due"')[2].partition("</section>")[0]
    )
    assert "report-writer" in page
    assert "unused" in page
    assert ">operator<" not in page  # operators never are
    assert "report-writer" in (await browser.get("/agents?due=yes")).text
    await strict.close()


@pytest.mark.parametrize(
    "path",
    [
        "/reviews?cursor=x",
        "/reviews?cursor=%00",
        "/reviews/x",
        "/reviews/%00",
        "/reviews/elv_0",
        "/reviews/..%2f..%2fagents",
        f"/reviews/{'e' * 3000}",
        "/reviews/elv_%ff/close",
    ],
)
async def test_hostile_addresses_are_refused(console: ConsoleWorld, path: str) -> None:
    browser = await console.signed_in()
    assert (await browser.get(path)).status_code in (400, 404), path
