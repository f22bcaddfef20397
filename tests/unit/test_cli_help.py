"""Every command: an example that parses, --json where it prints, --watch where it shows."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING

import pytest

from broker.cli.main import build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cyclopts import App

# What they print is a format of its own.
NO_JSON = {
    "audit checkpoint": "a signed note",
    "audit export": "JSON, a document a line",
    "audit grown": "a proof, which is JSON",
    "audit prove": "a proof, which is JSON",
    "completion": "a script",
    "policy schema": "Cedar",
}
IN_A_FILE = {"credential aws", "credential git"}
"""Another program's configuration names them, and so do their examples."""
WATCHABLE = re.compile(r"(list|show|power|unused|freezes|whoami|tree)$")


def commands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    for name in app:
        if name.startswith("-"):
            continue
        found = app[name]
        inner = [each for each in found if not each.startswith("-")]
        if inner:
            yield from commands(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


APP = build()
ALL = dict(commands(APP))
"""Walked once: it imports every command."""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@cache
def shown(command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        APP([*command.split(), "--help"], exit_on_error=False, print_error=False)
    return out.getvalue()


def examples(text: str) -> list[str]:
    _, found, after = text.partition("Example")
    if not found:
        return []
    lines = after.replace("\\\n", " ").splitlines()
    return [
        line.removeprefix(":").removeprefix("s:").strip()
        for line in lines
        if re.match(r"(s?:)?\s*broker ", line)
    ]


def test_all_commands_were_found() -> None:
    assert len(ALL) > 70
    assert {"top", "login", "task list", "policy dry-run", "audit event"} <= set(ALL)


@pytest.mark.parametrize("command", sorted(ALL))
def test_its_help_has_an_example_of_itself_that_parses(command: str) -> None:
    text = shown(command)
    if command in IN_A_FILE:
        assert re.search(rf"[= '!]broker {command} ", text)
        return
    found = [line for line in examples(text) if line.startswith(f"broker {command}")]
    assert found, text
    for line in found:
        words = shlex.split(re.split(r" [<|>] ", line)[0])[1:]
        APP.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", sorted(ALL))
def test_it_has_json_where_it_prints(command: str) -> None:
    assert ("--json" in shown(command)) is (command not in NO_JSON)


@pytest.mark.parametrize("command", sorted(c for c in ALL if WATCHABLE.search(c)))
def test_what_only_shows_can_be_watched(command: str) -> None:
    assert "--watch" in shown(command)
