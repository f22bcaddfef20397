"""Asking a person before something is done: on standard error, out of a script's way."""

from __future__ import annotations

import sys

from broker.cli import output
from broker.cli.refusals import CommandFailed, UsageError


def person_is_there() -> bool:
    """Whether somebody at a terminal sees a question, and can answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def must_type(expected: str, question: str) -> None:
    """Go on only if the person types exactly this.

    Raises:
        CommandFailed: they typed anything else.
    """
    output.note(f"{question} Type {expected} to go on:")
    if sys.stdin.readline().strip() != expected:
        raise CommandFailed("Not confirmed: nothing was done", code="not_confirmed")


def said(given: str | None, option: str, question: str, *, ask: bool) -> str:
    """Return what was given with an option, or else what a person types.

    Raises:
        UsageError: nothing was given and nobody is to be asked, or it is empty.
        CommandFailed: the person typed nothing.
    """
    if given is None and ask:
        output.note(question)
        given = sys.stdin.readline().strip()
        if not given:
            raise CommandFailed("Nothing was typed: nothing was done", code="not_confirmed")
    if given is None or not given.strip():
        raise UsageError(f"Give {option}, and not empty")
    return given
