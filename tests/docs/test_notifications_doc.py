"""``docs/notifications.md``: its channels load, its message is sent, its Python verifies it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.clock import SystemClock
from broker.config import parse_config
from broker.config.channels import ChannelEvent
from broker.notify.news import FORMS, news_of, trial
from broker.notify.opening import open_channel
from broker.notify.templates import for_programs
from tests.audit_bench import BEGIN_MS, SOURCE
from tests.docs.blocks import DOCS
from tests.notify_world import REQUESTED, WEBHOOK_KEY, Newsroom, event
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Verified = Callable[..., bool]

PAGE: Final = (DOCS / "notifications.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"(?ms)^```{language}\n(.*?)^```", PAGE)
    return found


@pytest.fixture
def verified() -> Verified:
    names: dict[str, Any] = {}
    exec(block("python"), names)  # noqa: S102  our own page
    return names["verified"]


def test_its_channels_can_be_used(tmp_path: Path) -> None:
    text = f'broker.issuer = "{SOURCE}"\nredis.url = "redis://127.0.0.1"\n{block("toml")}'
    config = parse_config(text, tmp_path / "config.toml", files_may_be_missing=True)
    assert [channel.name for channel in config.channels] == ["security", "incidents", "on-call"]


def test_the_message_is_what_is_sent() -> None:
    data = {**REQUESTED, "needs": {"security": 2}}
    news = news_of(event("approval.requested", data, number=5), issuer=SOURCE)
    assert news is not None
    assert json.loads(block("json")) == for_programs(news, "incidents")


def test_every_kind_has_a_row_with_its_types_and_no_other() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \| [a-z ]*\|$", PAGE, re.MULTILINE))
    assert {name for name in rows if name in set(ChannelEvent)} == set(map(str, ChannelEvent))
    for kind, form in FORMS.items():
        if kind != "decision":
            assert f"`{kind}`" in rows[form.kind], kind


async def test_its_python_verifies_what_is_sent_and_nothing_else(
    tmp_path: Path, verified: Verified
) -> None:
    room = Newsroom(tmp_path)
    async with Receiver() as receiver:
        channel = open_channel(room.entry(receiver), SystemClock(), issuer=SOURCE)
        await channel.send(trial(SOURCE, BEGIN_MS))
        await channel.close()
    (sent,) = receiver.accepted

    assert verified(WEBHOOK_KEY, sent.headers, sent.body)
    assert not verified(WEBHOOK_KEY, sent.headers, sent.body + b" ")
    assert not verified("whsec_" + "B" * 43 + "=", sent.headers, sent.body)
    moment = int(sent.headers["webhook-timestamp"])
    for other in (moment + 1, moment - 301, moment + 301):
        assert not verified(
            WEBHOOK_KEY, {**sent.headers, "webhook-timestamp": str(other)}, sent.body
        )
    assert not verified(WEBHOOK_KEY, {**sent.headers, "webhook-id": "msg_0"}, sent.body)
