"""The ways that apprise knows, by its json:// to a real server."""

from __future__ import annotations

import builtins
import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.audit.sinks import SinkError
from broker.errors import ConfigError
from broker.notify.news import News, trial
from broker.notify.opening import open_channel
from broker.notify.others import Others
from broker.secret import Secret
from tests.audit_bench import BEGIN_MS, SOURCE
from tests.notify_world import APPROVAL, GLASS, REQUESTED, Newsroom, got, idle
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.receiver import Receiver


def url(receiver: Receiver) -> str:
    return receiver.url.replace("http://", "json://")


def news() -> News:
    return trial(SOURCE, BEGIN_MS)


async def test_title_and_text_go_by_apprise(room: Newsroom, receiver: Receiver) -> None:
    async with room.told(room.entry(url(receiver), "apprise")) as feed:
        room.happens("approval.requested", {**REQUESTED, "purpose": "<@everyone> **x**\n@here"})
        [message] = await got(receiver, 1)
        await idle(feed)
    assert message["title"] == "Approval wanted: deployer → deploy-prod (privileged)"
    assert f"{SOURCE}/console/approvals/{APPROVAL}" in message["message"]
    assert "@" not in message["message"]
    assert "<" not in message["message"]
    assert message["type"] == "warning"


async def test_failures_are_tried_again(room: Newsroom, receiver: Receiver) -> None:
    receiver.script.extend(["500", "reset"])
    async with room.told(room.entry(url(receiver), "apprise")) as feed:
        room.happens("glass.broken", GLASS)
        await got(receiver, 1)
        await idle(feed)
    assert room.became == ["told"]
    assert len(receiver.deliveries) == 3


async def test_redirects_arent_followed(receiver: Receiver) -> None:
    receiver.script.append("302")
    way = Others(lambda: Secret(url(receiver)), timeout_s=5)
    with pytest.raises(SinkError, match="didn't take it"):
        await way.send(news())
    assert len(receiver.deliveries) == 1


async def test_one_that_hangs_is_given_up_in_time_and_not_asked_again_meanwhile(
    receiver: Receiver,
) -> None:
    receiver.script.append("hang")
    way = Others(lambda: Secret(url(receiver) + "?rto=3"), timeout_s=0.3)
    with pytest.raises(SinkError, match="no answer within"):
        await way.send(news())
    with pytest.raises(SinkError, match="hasn't come to an end"):
        await way.send(news())

    async def again() -> bool:
        try:
            await way.send(news())
        except SinkError as error:
            assert "hasn't come to an end" in error.problem  # noqa: PT017
            return False
        return True

    await wait_until(again, "it can be used again")
    assert len(receiver.accepted) == 1


@pytest.mark.parametrize(
    "text", ["nonsense://hunter2", "hunter2", "json://localhost json://localhost", "json://a\nx"]
)
def test_what_apprise_doesnt_know_keeps_the_broker_from_starting(room: Newsroom, text: str) -> None:
    entry = room.entry(text, "apprise")
    with pytest.raises(ConfigError, match="doesn't hold one URL that apprise knows") as caught:
        open_channel(entry, room.clock, issuer=SOURCE)
    assert "hunter2" not in caught.value.detail


def test_without_the_library_it_says_what_to_install(
    room: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "apprise":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    entry = room.entry("json://localhost", "apprise")
    with pytest.raises(ConfigError, match=r"pip install 'broker\[notify\]'"):
        open_channel(entry, room.clock, issuer=SOURCE)


async def test_its_own_log_lines_are_dropped(
    receiver: Receiver, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.script.append("500")
    secret = url(receiver).replace("://", "://user:hunter2canary@")
    way = Others(lambda: Secret(secret), timeout_s=5)
    with pytest.raises(SinkError) as caught:
        await way.send(news())
    await way.send(news())
    out, err = capfd.readouterr()
    assert caplog.text == ""
    assert "hunter2canary" not in out + err + repr(caught.value) + repr(vars(way))
    assert json.loads(receiver.accepted[0].body)["type"] == "info"
