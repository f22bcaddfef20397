"""The token endpoint while a human has to say yes: what clients that ask for it are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.http.parties import ORDERS, assert_oauth_error, exchange_form

if TYPE_CHECKING:
    import httpx2

    from tests.http.consenting import ConsentWorld


async def redeem(
    consent: ConsentWorld, task: dict[str, Any], name: str = "report-writer", **fields: str
) -> httpx2.Response:
    """Ask for a token for the orders service, which takes an approval here."""
    form = {**exchange_form(consent, name, task["task_id"]), "resource": ORDERS, **fields}
    return await consent.http.post("/oauth/token", data=form)


async def pending(consent: ConsentWorld, task: dict[str, Any]) -> str:
    """Ask with deferral; returns the code."""
    answer = await redeem(consent, task, deferral="true")
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert (body["error"], body["interval"]) == ("authorization_pending", 5)
    return body["deferral_code"]


async def later(consent: ConsentWorld) -> None:
    """As if the interval were over."""
    for key in await consent.app.connection.command("KEYS", "*replay:deferral*"):
        await consent.app.connection.command("DEL", key)


async def test_it_is_pending_until_it_is_approved_and_then_a_token(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    task = await consent.open(capabilities=["deploy"])
    code = await pending(consent, task)
    assert_deferred(await redeem(consent_twin, task, deferral_code=code), "slow_down")
    await later(consent)
    assert_deferred(await redeem(consent, task, deferral_code=code), "authorization_pending")
    await consent.say(code)
    await later(consent)
    answer = await redeem(consent_twin, task, deferral_code=code)
    assert answer.status_code == 200, answer.text
    assert answer.json()["access_token"]
    await later(consent)
    assert_deferred(await redeem(consent, task, deferral_code=code), "expired_token")


async def test_a_no_and_the_end_of_its_time_are_told(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["deploy"], ttl="3h")
    code = await pending(consent, task)
    await consent.say(code, yes=False)
    await later(consent)
    assert_deferred(await redeem(consent, task, deferral_code=code), "access_denied")

    other = await consent.open(capabilities=["deploy"], ttl="3h")
    code = await pending(consent, other)
    await consent.sweep(ahead_ms=61 * 60_000)
    await later(consent)
    assert_deferred(await redeem(consent, other, deferral_code=code), "expired_token")


async def test_who_does_not_ask_for_it_is_answered_as_ever(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["deploy"])
    assert_oauth_error(await redeem(consent, task), "invalid_target")
    assert_oauth_error(await redeem(consent, task, deferral="perhaps"), "invalid_request")


async def test_a_code_is_good_for_whose_it_is(consent: ConsentWorld) -> None:
    mine = await consent.open(capabilities=["deploy"])
    code = await pending(consent, mine)
    theirs = await consent.open(agent="order-clerk", capabilities=["deploy"])
    other = await consent.open(capabilities=["deploy"])
    for name, task in (("order-clerk", theirs), ("report-writer", other)):
        answer = await redeem(consent, task, name, deferral_code=code)
        assert_deferred(answer, "invalid_grant")
    assert_deferred(await redeem(consent, mine, deferral_code="nonsense"), "invalid_grant")


def assert_deferred(answer: httpx2.Response, error: str) -> None:
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == error, answer.text
    assert answer.headers["cache-control"] == "no-store"
