"""Channels fed from a real log, posting to a real server that misbehaves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from broker.config import write_secret_file
from broker.errors import ConfigError
from broker.notify.opening import open_channel
from tests.audit_bench import BEGIN_MS, SOURCE
from tests.notify_world import (
    APPROVAL,
    ELEVATION,
    GLASS,
    REQUESTED,
    WEBHOOK_KEY,
    Newsroom,
    got,
    idle,
)
from tests.receiver import Receiver
from tests.waiting import wait_until

HOUR = 3600.0


def types(receiver: Receiver) -> list[str]:
    return [json.loads(delivery.body)["type"] for delivery in receiver.accepted]


async def test_each_piece_of_news_is_a_post_signed_by_standard_webhooks(
    room: Newsroom, receiver: Receiver
) -> None:
    async with room.told(room.entry(receiver)) as feed:
        room.happens("approval.requested", REQUESTED)
        room.happens("task.opened", {})
        room.happens("glass.broken", GLASS)
        first, second = await got(receiver, 2)
        await idle(feed)

    assert (first["type"], second["type"]) == ("approval.requested", "glass.broken")
    assert first["link"] == f"{SOURCE}/console/approvals/{APPROVAL}"
    assert second["severity"] == "critical"
    key = base64.b64decode(WEBHOOK_KEY.removeprefix("whsec_"))
    for delivery in receiver.accepted:
        assert delivery.headers["content-type"] == "application/json"
        names = ("webhook-id", "webhook-timestamp")
        signed = ".".join(delivery.headers[name] for name in names).encode() + b"." + delivery.body
        made = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert delivery.headers["webhook-signature"] == f"v1,{made}"
    assert room.became == ["told", "told"]


async def test_a_new_channel_is_told_what_happens_from_now_on(
    room: Newsroom, receiver: Receiver
) -> None:
    for _ in range(3):
        room.happens("glass.broken", GLASS)
    async with room.told(room.entry(receiver)) as feed:
        await idle(feed)
        room.happens("review.opened", {"elevation": ELEVATION})
        await got(receiver, 1)
    assert types(receiver) == ["review.opened"]


async def test_after_a_restart_it_goes_on_where_it_was_though_nothing_was_told_yet(
    room: Newsroom, receiver: Receiver
) -> None:
    entry = room.entry(receiver)
    async with room.told(entry) as feed:
        await idle(feed)
    room.happens("glass.broken", GLASS)
    async with room.told(entry):
        await got(receiver, 1)
        room.happens("review.opened", {"elevation": ELEVATION})
        await got(receiver, 2)
    assert types(receiver) == ["glass.broken", "review.opened"]


async def test_of_two_replicas_on_one_folder_one_tells(room: Newsroom, receiver: Receiver) -> None:
    entry = room.entry(receiver)
    async with room.told(entry) as one, room.told(entry) as other:
        room.happens("glass.broken", GLASS)

        async def told() -> bool:
            return "told" in room.became

        await wait_until(told, "it is told")
        room.happens("review.opened", {"elevation": ELEVATION})
        await got(receiver, 2)
        await asyncio.wait({asyncio.ensure_future(f.caught_up()) for f in (one, other)},
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
    assert types(receiver) == ["glass.broken", "review.opened"]


# ── who is told ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "kind", "data", "told"),
    [
        ({}, "approval.requested", REQUESTED, True),
        ({"groups": ["security"]}, "approval.requested", REQUESTED, True),
        ({"groups": ["platform"]}, "approval.requested", REQUESTED, False),
        ({"groups": ["platform"]}, "approval.requested", {**REQUESTED, "groups": {}}, True),
        ({"groups": ["platform"]}, "approval.requested", {**REQUESTED, "groups": [""]}, True),
        ({"groups": ["platform"]}, "approval.requested",
         {**REQUESTED, "channels": ["security"]}, True),
        ({"groups": ["leads"]}, "approval.escalated", {**REQUESTED, "groups": ["leads"]}, True),
        ({"events": ["review"]}, "approval.requested", REQUESTED, False),
        ({"events": ["review"]}, "approval.requested",
         {**REQUESTED, "channels": ["security"]}, True),
        ({"events": ["review"]}, "review.closed", {"elevation": ELEVATION}, True),
        ({"events": []}, "glass.broken", GLASS, False),
        ({}, "grant.stuck", {"attempts": 6, "error": "x"}, True),
        ({}, "rotation.failed", {"elevation": ELEVATION, "path": "p"}, True),
        ({}, "decision", {"effect": "allow"}, False),
        ({}, "decision", {"effect": "allow", "obligations": {"notify": ["watch"]}}, False),
        ({}, "decision", {"effect": "allow", "obligations": {"notify": ["security"]}}, True),
        ({"events": []}, "decision",
         {"effect": "allow", "obligations": {"notify": ["security"]}}, True),
    ],
)  # fmt: skip
async def test_who_is_told(
    room: Newsroom,
    receiver: Receiver,
    options: dict[str, Any],
    kind: str,
    data: dict[str, Any],
    told: bool,
) -> None:
    async with room.told(room.entry(receiver, **options)) as feed:
        room.happens(kind, data)
        await idle(feed)
    assert types(receiver) == ([kind] if told else [])


async def test_without_details_what_callers_wrote_stays_here(
    room: Newsroom, receiver: Receiver
) -> None:
    async with room.told(room.entry(receiver, details=False)):
        room.happens("approval.requested", REQUESTED)
        [message] = await got(receiver, 1)
    assert "release 7" not in json.dumps(message)
    assert message["data"]["capability"] == "deploy-prod"


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_channel_that_fails_is_tried_again_and_nothing_is_told_twice(
    room: Newsroom, receiver: Receiver
) -> None:
    failures: list[str] = []
    receiver.script.extend(["200", "500", "reset", "200", "503"])
    room.write("task.opened", {})
    async with room.told(room.entry(receiver), failures.append) as feed:
        await idle(feed)
        for number in range(3):
            room.write("glass.broken", {**GLASS, "by": f"bot-{number}"})
        room.commit()
        found = await got(receiver, 3)
        await idle(feed)
        assert feed.problem == ""
    assert [message["data"]["by"] for message in found] == ["bot-0", "bot-1", "bot-2"]
    assert len(failures) == 3
    ids = [d.headers["webhook-id"] for d in receiver.deliveries]
    assert ids[1] == ids[2] == ids[3] != ids[4] == ids[5]


async def test_what_a_caller_wrote_cant_silence_a_channel(
    room: Newsroom, receiver: Receiver
) -> None:
    receiver.script.extend(["400", "200", "200"])
    async with room.told(room.entry(receiver)) as feed:
        room.happens("approval.requested", {**REQUESTED, "purpose": "poison"})
        room.happens("glass.broken", GLASS)
        first, second = await got(receiver, 2)
        await idle(feed)
    assert "purpose" not in first["data"]
    assert first["data"]["approval"] == APPROVAL
    assert second["data"]["intent"] == GLASS["intent"]
    assert room.became == ["told", "told"]


async def test_what_is_refused_with_and_without_it_holds_nothing_up(
    room: Newsroom, receiver: Receiver
) -> None:
    receiver.script.extend(["413", "422"])
    async with room.told(room.entry(receiver)) as feed:
        room.happens("approval.requested", REQUESTED)
        room.happens("glass.broken", GLASS)
        await got(receiver, 1)
        await idle(feed)
    assert types(receiver) == ["glass.broken"]
    assert room.became == ["refused", "told"]


async def test_a_server_that_only_fails_at_what_was_written_is_told_the_rest(
    room: Newsroom, receiver: Receiver
) -> None:
    receiver.script.extend(["500", "500", "500", "200"])
    async with room.told(room.entry(receiver)) as feed:
        room.happens("approval.requested", REQUESTED)
        [message] = await got(receiver, 1)
        await idle(feed)
    assert "purpose" not in message["data"]


async def test_a_wrong_address_is_waited_for_not_passed_over(
    room: Newsroom, receiver: Receiver
) -> None:
    receiver.script.extend(["404", "410", "403", "401", "404", "302"])
    async with room.told(room.entry(receiver)) as feed:
        room.happens("approval.requested", REQUESTED)
        await got(receiver, 1)
        await idle(feed)
    assert room.became == ["told"]


# ── late ─────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_too_old_is_passed_over_but_for_what_is_critical(
    room: Newsroom, receiver: Receiver
) -> None:
    entry = room.entry(receiver)
    async with room.told(entry) as feed:
        await idle(feed)
    room.happens("review.opened", {"elevation": ELEVATION})
    room.happens("glass.broken", GLASS)
    room.clock.advance(2 * HOUR)
    async with room.told(entry) as feed:
        [message] = await got(receiver, 1)
        await idle(feed)
        room.happens("review.opened", {"elevation": ELEVATION})
        await got(receiver, 2)
    assert (message["type"], message["late"]) == ("glass.broken", True)
    assert "(late: 2h ago)" in message["title"]
    assert sorted(room.became) == ["told", "told", "too_late"]


async def test_critical_news_end_after_a_week(room: Newsroom, receiver: Receiver) -> None:
    entry = room.entry(receiver)
    async with room.told(entry) as feed:
        await idle(feed)
    room.happens("glass.broken", GLASS)
    room.clock.advance(8 * 24 * HOUR)
    async with room.told(entry) as feed:
        await idle(feed)
    assert receiver.deliveries == []
    assert room.became == ["too_late"]


async def test_a_request_that_nobody_can_answer_any_more_isnt_told(
    room: Newsroom, receiver: Receiver
) -> None:
    entry = room.entry(receiver)
    async with room.told(entry) as feed:
        await idle(feed)
    room.happens("approval.requested", {**REQUESTED, "expires_at": BEGIN_MS + 60_000})
    room.happens("approval.requested", REQUESTED)
    room.clock.advance(120)
    async with room.told(entry) as feed:
        [message] = await got(receiver, 1)
        await idle(feed)
    assert message["data"]["expires_at"] == "2027-01-15T09:00:00.000Z"


async def test_what_gets_too_old_while_it_is_tried_again_is_given_up(
    room: Newsroom, receiver: Receiver
) -> None:
    async with room.told(room.entry(receiver)) as feed:
        receiver.script.extend(["500"] * 100_000)
        room.happens("approval.requested", REQUESTED)

        async def tried() -> bool:
            return len(receiver.deliveries) > 3

        await wait_until(tried, "it is tried again")
        room.clock.advance(1.5 * HOUR)
        await idle(feed)
        receiver.script.clear()
        room.happens("review.opened", {"elevation": ELEVATION})
        await got(receiver, 1)
    assert types(receiver) == ["review.opened"]


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_url_that_is_a_secret_is_in_no_error_and_no_log_line(
    room: Newsroom, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = f"{receiver.url}/T000/hunter2canary"
    receiver.script.extend(["500", "reset", "302", "hang"])
    async with room.told(room.entry(secret, "slack", timeout="1s")) as feed:
        room.happens("glass.broken", GLASS)
        await got(receiver, 1)
        await idle(feed)
        text = repr(vars(feed)) + repr(feed)
    out, err = capfd.readouterr()
    assert "a delivery fails" in err
    assert "hunter2canary" not in out + err + text + repr(room.became)


@pytest.mark.parametrize(
    "content",
    ["hunter2", "http://hooks.example/hunter2", "https://u:hunter2@hooks.example", "", "ftp://x"],
)
def test_a_file_that_holds_no_url_keeps_the_broker_from_starting(
    room: Newsroom, content: str
) -> None:
    entry = room.entry(content, "slack")
    with pytest.raises(ConfigError, match="channel security: ") as caught:
        open_channel(entry, room.clock, issuer=SOURCE)
    assert "hunter2" not in caught.value.detail


async def test_a_url_is_read_again_each_time(room: Newsroom, receiver: Receiver) -> None:
    async with Receiver() as other, room.told(room.entry(receiver, "slack")) as feed:
        room.happens("glass.broken", GLASS)
        await got(receiver, 1)
        write_secret_file(room.folder / "url", other.url)
        room.happens("glass.broken", GLASS)
        await got(other, 1)
        await idle(feed)
    assert len(receiver.accepted) == 1
