"""``[[channels]]``: defaults, what goes with which kind, and what can't be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.config import parse_config
from broker.config.channels import ChannelEntry, ChannelEvent, ChannelKind
from broker.errors import ConfigError
from broker.notify.news import Kind

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """\
broker.issuer = "https://broker.example.com"
redis.url = "redis://127.0.0.1:6379/0"
"""
HOOK = (
    '[[channels]]\nname = "hook"\nkind = "webhook"\nurl = "https://hooks.example.com/x"\n'
    'secret_file = "key"\n'
)
SLACK = '[[channels]]\nname = "security"\nkind = "slack"\nurl_file = "key"\n'
MAIL = SLACK.replace("slack", "apprise").replace("security", "mail")


def channels(tmp_path: Path, text: str) -> tuple[ChannelEntry, ...]:
    (tmp_path / "key").write_text("hunter2")
    return parse_config(f"{SMALLEST}\n{text}", tmp_path / "config.toml").channels


def test_each_kind_has_what_it_needs_and_the_rest_is_the_default(tmp_path: Path) -> None:
    assert channels(tmp_path, "") == ()
    hook, slack, mail = channels(tmp_path, HOOK + SLACK + MAIL)

    assert [entry.kind for entry in (hook, slack, mail)] == list(ChannelKind)
    assert slack.events == tuple(ChannelEvent)
    assert (slack.groups, slack.max_age, slack.timeout, slack.details) == (
        (),
        3_600_000,
        10_000,
        True,
    )
    assert hook.secret_files == slack.secret_files == [tmp_path / "key"]


def test_what_is_written_is_taken(tmp_path: Path) -> None:
    text = 'events = ["approval", "stuck"]\nmax_age = "5m"\ntimeout = "3s"\ndetails = false\n'
    [entry] = channels(tmp_path, SLACK + text)

    assert entry.events == (ChannelEvent.APPROVAL, ChannelEvent.STUCK)
    assert (entry.max_age, entry.timeout, entry.details) == (300_000, 3000, False)


def test_every_kind_of_news_can_be_asked_for_but_those_that_are_named() -> None:
    assert set(map(str, Kind)) - set(map(str, ChannelEvent)) == {"decision"}
    assert set(map(str, ChannelEvent)) <= set(map(str, Kind))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (HOOK.replace("secret_file", "#"), "add secret_file = "),
        (HOOK.replace("url =", "# url ="), "is needed, or url"),
        (HOOK + 'url_file = "key"', "is written beside url"),
        (HOOK.replace("https:", "http:"), "use https"),
        (HOOK.replace("hooks.", "me:hunter2@hooks."), "user name or password"),
        (SLACK.replace("url_file", "#"), "add url_file = "),
        (SLACK.replace('"key"', '"nowhere"'), "there is no file"),
        (SLACK + 'url = "https://hooks.slack.com/hunter2"', 'goes with kind = "webhook"'),
        (SLACK + 'secret_file = "key"', 'goes with kind = "webhook"'),
        (MAIL + 'ca_file = "key"', 'no use with kind = "apprise"'),
        (SLACK.replace("slack", "slak"), 'did you mean "slack"'),
        (SLACK + 'events = ["aproval"]', 'did you mean "approval"'),
        (SLACK + 'events = ["decision"]', "is not known here"),
        (SLACK + 'groups = ["nobody"]', "there is no group of approvers 'nobody'"),
        (SLACK + 'max_age = "30s"', 'write "1m" or more'),
        (SLACK + 'max_age = "8d"', 'write "7d" or less'),
        (SLACK + 'timeout = "2m"', 'write "1m" or less'),
        (SLACK + SLACK, "has the same name"),
        ("[audit]\nenabled = false\n" + SLACK, "are fed from the audit log, which is off"),
    ],
)
def test_what_cant_be_used_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        channels(tmp_path, text)

    assert why in caught.value.detail
    assert "channels" in caught.value.detail
    assert "hunter2" not in caught.value.detail
