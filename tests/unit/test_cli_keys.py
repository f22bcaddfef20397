"""``broker keys``: what is sent, what is shown, and what is asked before tokens are killed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.cli_runner import prepare, runner
from tests.unit.fake_broker import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.cli_runner import Run
    from tests.unit.fake_broker import FakeBroker

KEY: dict[str, Any] = {
    "kid": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
    "algorithm": "ES256",
    "state": "signing",
    "created_at": "2026-01-02T03:04:05.000Z",
    "signs_from": "2026-01-02T03:14:05.000Z",
    "retires_at": None,
}
MADE = {**KEY, "removed": ["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"], "reason": "leak"}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeBroker]:
    with running() as broker:
        yield broker


@pytest.fixture
def broker(server: FakeBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeBroker:
    server.answers.clear()
    server.seen.clear()
    prepare(server.url, monkeypatch, tmp_path)
    return server


@pytest.fixture
def run(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def test_the_list(run: Run, broker: FakeBroker) -> None:
    broker.on("GET /v1/keys", 200, {"items": [KEY], "next": None})
    shown = run("keys", "list")
    assert shown.code == 0
    assert KEY["kid"] in shown.out
    assert "2026-01-02 03:14:05Z" in shown.out
    assert run("keys", "list", "--json").json == {"items": [KEY], "next": None}


def test_a_rotation(run: Run, broker: FakeBroker) -> None:
    broker.on("POST /v1/keys/rotate", 200, {**MADE, "state": "next", "removed": []})
    shown = run("keys", "rotate")
    assert shown.out.startswith(f"{KEY['kid']}: next, signs from 2026-01-02 03:14:05Z")
    assert broker.last.json == {}
    run("keys", "rotate", "--reason", "drill")
    assert broker.last.json == {"reason": "drill"}


def test_at_once_a_script_says_yes(run: Run, broker: FakeBroker) -> None:
    broker.on("POST /v1/keys/rotate", 200, MADE)
    shown = run("keys", "rotate", "--now", "--reason", "leak", "--yes")
    assert "1 key removed; every earlier token is dead" in shown.out
    assert broker.last.json == {"reason": "leak", "now": True}
    assert run("keys", "rotate", "--now", "--reason", "x", "--yes", "--json").json == MADE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--now"], "--now needs --reason"),
        (["--now", "--reason", ""], "--now needs --reason"),
        (["--now", "--reason", "leak"], "--now needs --yes"),
    ],
)
def test_at_once_is_not_done_by_mistake(
    options: list[str], said: str, run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    refused = run("keys", "rotate", *options)
    assert refused.code == 2
    assert said in refused.err
    assert broker.seen == []


@pytest.mark.parametrize(("typed", "code"), [("yes\n", 0), ("y\n", 1), ("", 1)])
def test_a_person_is_asked(
    typed: str, code: int, run: Run, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(typed))
    broker.on("POST /v1/keys/rotate", 200, MADE)
    assert run("keys", "rotate", "--now", "--reason", "leak").code == code
    assert len(broker.seen) == (1 - code)
