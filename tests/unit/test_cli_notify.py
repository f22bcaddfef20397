"""``broker notify test``: it sends, and says what came of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.issuers import Answer
from tests.loopback import Asked, Loopback
from tests.notify_world import WEBHOOK_KEY
from tests.unit.cli_runner import prepare, runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.cli_runner import Run


class Hooks:
    """A receiver: whatever is posted to /gone is refused."""

    def __init__(self) -> None:
        self.server = Loopback(self._answer)

    def _answer(self, asked: Asked) -> Answer:
        return Answer(status=404 if "gone" in asked.path else 200)


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    made = Hooks()
    with made.server:
        yield made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    prepare("http://127.0.0.1:1", monkeypatch, tmp_path)
    return runner(capsys)


@pytest.fixture
def config(tmp_path: Path, hooks: Hooks) -> Path:
    (tmp_path / "key").write_text(WEBHOOK_KEY)
    (tmp_path / "gone").write_text(f"{hooks.server.url}/gone/hunter2")
    (tmp_path / "json").write_text(hooks.server.url.replace("http", "json") + "/json")
    file = tmp_path / "config.toml"
    file.write_text(
        'broker.issuer = "https://broker.example.com"\n'
        'redis.url = "unix:///run/valkey/valkey.sock"\n'
        f'[[channels]]\nname = "hook"\nkind = "webhook"\nurl = "{hooks.server.url}/hook"\n'
        'secret_file = "key"\n'
        '[[channels]]\nname = "mail"\nkind = "apprise"\nurl_file = "json"\n'
        '[[channels]]\nname = "chat"\nkind = "slack"\nurl_file = "gone"\n'
        '[[channels]]\nname = "odd"\nkind = "slack"\nurl_file = "key"\n'
    )
    return file


def test_it_says_of_each_what_came_of_it(run: Run, config: Path, hooks: Hooks) -> None:
    ran = run("notify", "test", "--config", str(config))

    assert ran.code == 1
    assert ran.out.splitlines()[:3] == ["hook: arrived", "mail: arrived", "chat: it answered 404"]
    assert ran.out.splitlines()[3].startswith("odd: channel odd: ")
    assert "hunter2" not in ran.out + ran.err
    assert [asked.path.partition("?")[0] for asked in hooks.server.asked] == [
        "/hook", "/json", "/gone/hunter2",
    ]  # fmt: skip
    sent = json.loads(hooks.server.asked[0].body)
    assert (sent["type"], sent["channel"]) == ("test", "hook")
    assert sent["title"] == "Test from https://broker.example.com: this channel works"


def test_one_alone_and_as_json(run: Run, config: Path) -> None:
    ran = run("notify", "test", "hook", "--config", str(config), "--json")
    assert ran.code == 0
    assert ran.json == {"items": [{"channel": "hook", "arrived": True, "problem": None}]}
    failed = run("notify", "test", "chat", "--config", str(config), "--json")
    assert failed.code == 1
    assert failed.json["items"][0]["problem"] == "it answered 404"


def test_a_name_that_isnt_there(run: Run, config: Path) -> None:
    ran = run("notify", "test", "pager", "--config", str(config))
    assert ran.code == 2
    assert "there are: hook, mail, chat, odd" in ran.err


def test_nobody_to_tell(run: Run, config: Path) -> None:
    config.write_text(config.read_text().partition("[[channels]]")[0])
    ran = run("notify", "test", "--config", str(config))
    assert ran.code == 1
    assert "nobody is told of anything" in ran.err
