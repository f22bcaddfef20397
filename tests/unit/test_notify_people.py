"""What people are told of many events at once, while programs are told all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.audit_bench import SOURCE
from tests.notify_world import GLASS, REQUESTED, Newsroom, got, idle

if TYPE_CHECKING:
    from tests.receiver import Receiver


def titles(receiver: Receiver) -> list[str]:
    """The first lines of what Slack got."""
    return [json.loads(d.body)["text"].partition("\n")[0] for d in receiver.accepted]


async def test_people_are_told_of_a_flood_that_it_is_one(
    room: Newsroom, receiver: Receiver
) -> None:
    async with room.told(room.entry(receiver, "slack")) as feed:
        await idle(feed)
        for number in range(40):
            approval = f"apr_03{number:024d}"
            room.write("approval.requested", {**REQUESTED, "approval": approval})
        room.write("glass.broken", GLASS)
        room.commit()
        await got(receiver, 6)
        await idle(feed)

    told = titles(receiver)
    assert len(told) == 6
    assert told[4].startswith("Glass broken")
    assert told[5].startswith("36 more like this, the first: Approval wanted")
    last = json.loads(receiver.accepted[5].body)["text"]
    assert last.endswith(f"{SOURCE}/console/approvals")


async def test_programs_are_told_all_of_it(room: Newsroom, receiver: Receiver) -> None:
    async with room.told(room.entry(receiver)) as feed:
        await idle(feed)
        for _ in range(150):
            room.write("approval.requested", REQUESTED)
        room.commit()
        await got(receiver, 150)


async def test_people_arent_asked_what_was_answered_meanwhile(
    room: Newsroom, receiver: Receiver
) -> None:
    async with room.told(room.entry(receiver, "slack")) as feed:
        await idle(feed)
        other = f"apr_03{'d' * 24}"
        room.write("approval.requested", REQUESTED)
        room.write("approval.requested", {**REQUESTED, "approval": other})
        room.write("approval.denied", {**REQUESTED, "reason": "no"})
        room.commit()
        await got(receiver, 2)
        await idle(feed)
    assert [title.partition(":")[0] for title in titles(receiver)] == ["Approval wanted", "Denied"]
    assert other in json.loads(receiver.accepted[0].body)["text"]


async def test_news_of_many_go_on_where_telling_them_broke_off(
    room: Newsroom, receiver: Receiver
) -> None:
    receiver.script.extend(["200", "200", "500", "200", "reset"])
    async with room.told(room.entry(receiver, "slack")) as feed:
        await idle(feed)
        for number in range(8):
            room.write("grant.stuck", {"attempts": number, "error": "backend_unavailable"})
        room.commit()
        await got(receiver, 5)
        await idle(feed)

    told = titles(receiver)
    assert len(told) == 5
    assert told[4].startswith("4 more like this")
    assert len({delivery.body for delivery in receiver.accepted}) == 5
