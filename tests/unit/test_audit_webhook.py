"""The webhook sink against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from cloudevents.core.formats.json import JSONFormat

from broker.audit.sinks import Feed, SinkError
from broker.audit.webhook import Webhook
from broker.clock import SystemClock
from broker.errors import ConfigError
from broker.secret import Secret
from tests.audit_bench import Log
from tests.loopback import private_tls
from tests.receiver import Receiver
from tests.unit.test_audit_sinks import fed
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

KEY = bytes(range(32))
SECRET = Secret("whsec_" + base64.b64encode(KEY).decode())
TOKEN = Secret("hunter2-token")
EVENT = {"specversion": "1.0", "id": "1-00-0", "source": "s", "type": "t", "data": {"purpose": "é"}}


@contextlib.asynccontextmanager
async def webhook(receiver: Receiver, **options: Any) -> AsyncGenerator[Webhook]:
    settings: dict[str, Any] = {"timeout_s": 1.0, **options}
    made = Webhook(receiver.url, SystemClock(), **settings)
    try:
        yield made
    finally:
        await made.close()


async def test_a_delivery_is_a_batch_of_cloudevents() -> None:
    async with Receiver() as receiver, webhook(receiver) as hook:
        await hook.deliver([EVENT, {**EVENT, "id": "1-00-1"}])

    [delivery] = receiver.accepted
    assert delivery.headers["content-type"].startswith("application/cloudevents-batch+json")
    assert "authorization" not in delivery.headers
    assert "webhook-signature" not in delivery.headers
    assert [event["id"] for event in delivery.events] == ["1-00-0", "1-00-1"]


async def test_deliveries_share_a_connection() -> None:
    async with Receiver() as receiver, webhook(receiver) as hook:
        for _ in range(3):
            await hook.deliver([EVENT])
        assert len(receiver.accepted) == 3
        assert receiver.connections == 1


async def test_a_delivery_is_signed_as_standard_webhooks_says() -> None:
    async with Receiver() as receiver, webhook(receiver, secret=lambda: SECRET) as hook:
        await hook.deliver([EVENT])
        await hook.deliver([EVENT])
        await hook.deliver([{**EVENT, "id": "2-00-0"}])

    first, again, other = receiver.accepted
    identifier, moment = first.headers["webhook-id"], first.headers["webhook-timestamp"]
    signed = f"{identifier}.{moment}.".encode() + first.body
    made = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert first.headers["webhook-signature"] == f"v1,{made}"
    assert abs(int(moment) - datetime.now(UTC).timestamp()) < 60
    assert again.headers["webhook-id"] == identifier
    assert other.headers["webhook-id"] != identifier


async def test_a_token_is_read_again_each_time() -> None:
    tokens = iter([TOKEN, Secret("one"), Secret("two")])
    async with Receiver() as receiver, webhook(receiver, token=lambda: next(tokens)) as hook:
        await hook.deliver([EVENT])
        await hook.deliver([EVENT])

    sent = [delivery.headers["authorization"] for delivery in receiver.accepted]
    assert sent == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("hang", "no answer within"),
        ("drip", "no answer within"),
        ("reset", "no answer: "),
        ("500", "answered 500"),
        ("404", "answered 404"),
        ("302", "redirects aren't followed"),
    ],
)
async def test_anything_but_a_2xx_is_a_failure(behaviour: str, problem: str) -> None:
    async with Receiver() as receiver, webhook(receiver, token=lambda: TOKEN) as hook:
        receiver.script.append(behaviour)
        with pytest.raises(SinkError, match=problem) as caught:
            await hook.deliver([EVENT])
        await hook.deliver([EVENT])

    assert len(receiver.accepted) == 1
    assert "hunter2" not in repr(caught.value)


async def test_nobody_there_is_a_failure() -> None:
    async with Receiver() as receiver:
        url = receiver.url
    hook = Webhook(url, SystemClock())
    with pytest.raises(SinkError, match="no answer: ConnectError"):
        await hook.deliver([EVENT])
    await hook.close()


@pytest.mark.parametrize(("value", "least", "most"), [("7", 7, 7), ("nonsense", 0, 0), ("", 0, 0)])
async def test_retry_after_is_passed_on(value: str, least: float, most: float) -> None:
    async with Receiver() as receiver, webhook(receiver) as hook:
        receiver.script.append(f"429:{value}")
        with pytest.raises(SinkError) as caught:
            await hook.deliver([EVENT])

    assert least <= caught.value.wait_s <= most
    assert not caught.value.too_large


async def test_retry_after_may_be_a_date() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    async with Receiver() as receiver, webhook(receiver) as hook:
        receiver.script.append(f"503:{when}")
        with pytest.raises(SinkError) as caught:
            await hook.deliver([EVENT])

    assert 60 < caught.value.wait_s <= 90


async def test_too_large_is_told_apart() -> None:
    async with Receiver() as receiver, webhook(receiver) as hook:
        receiver.script.append("413")
        with pytest.raises(SinkError) as caught:
            await hook.deliver([EVENT])

    assert caught.value.too_large


async def test_a_ca_of_its_own_is_believed_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    context, ca_file = private_tls(tmp_path)
    _, other = private_tls(tmp_path / "other")
    async with Receiver(tls=context) as receiver:
        async with webhook(receiver, ca_file=ca_file, timeout_s=5) as hook:
            await hook.deliver([EVENT])
            # The CA is replaced: what it believes from then on is the new one alone.
            ca_file.write_bytes(other.read_bytes())
            with pytest.raises(SinkError):
                await hook.deliver([EVENT])
        async with webhook(receiver, timeout_s=5) as hook:
            with pytest.raises(SinkError):
                await hook.deliver([EVENT])

    assert len(receiver.accepted) == 1


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "hunter2",
        base64.b64encode(KEY).decode(),
        "whsec_AAAA",
        "whsec_hunter2!hunter2!hunter2!hunter2!",
    ],
    ids=["empty", "no key", "no prefix", "no prefix but a key", "short", "not base64"],
)
def test_a_secret_that_is_none_is_refused_at_once_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match="whsec_ and 24 to 64 bytes") as caught:
        Webhook("http://127.0.0.1:1", SystemClock(), secret=lambda: Secret(secret))

    assert "hunter2" not in caught.value.detail


def test_files_that_cant_be_used_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no bearer token") as caught:
        Webhook("http://127.0.0.1:1", SystemClock(), token=lambda: Secret("hunter2\nx"))
    assert "hunter2" not in caught.value.detail
    (tmp_path / "ca").write_text("hunter2")
    with pytest.raises(ConfigError, match="PEM"):
        Webhook("https://127.0.0.1:1", SystemClock(), ca_file=tmp_path / "ca")


async def test_every_event_arrives_through_any_trouble_at_least_once_and_in_order(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path / "log", segment_bytes=8192)
    trouble = ["reset", "500", "hang", "429:0", "503", "413", "drip", "reset", "502", "401", "404"]
    async with (
        Receiver() as receiver,
        webhook(receiver, timeout_s=0.5, secret=lambda: SECRET) as hook,
    ):
        receiver.script.extend(trouble)
        feed = Feed("siem", hook, log.folder, SystemClock(), first_delay_s=0.001)
        async with fed(feed):
            for _ in range(6):
                feed.committed(log.add(70))
                await asyncio.sleep(0)

            async def arrived() -> bool:
                return len(receiver.ids) == 420 and not receiver.script

            await wait_until(arrived, "all of them arrive")
    assert receiver.ids == log.ids()
    for delivery in receiver.accepted:
        for event in delivery.events:
            JSONFormat().read(None, json.dumps(event))
    # What was tried again is known by its id.
    tried: dict[str, bytes] = {}
    for delivery in receiver.deliveries:
        identifier = delivery.headers["webhook-id"]
        assert tried.setdefault(identifier, delivery.body) == delivery.body


async def test_what_arrived_without_an_answer_is_sent_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    async with Receiver() as receiver, webhook(receiver, timeout_s=0.5) as hook:
        receiver.script.append("reset")
        feed = Feed("siem", hook, log.folder, SystemClock(), first_delay_s=0.001)
        async with fed(feed):
            feed.committed(log.add(3))

            async def arrived() -> bool:
                return bool(receiver.accepted)

            await wait_until(arrived, "it arrives")
    assert len(receiver.deliveries) == 2
    assert receiver.deliveries[0].body == receiver.deliveries[1].body
