"""What a revocation will end, before it; and after it, what of that isn't dead yet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from broker.cli import output
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.selector import describe
from broker.cli.text import plural, span
from broker.durations import parse_duration

if TYPE_CHECKING:
    from broker.client import Client, RevocationPreview

_ON_THE_WAY: Final = ("stuck", "revoking", "pending")
_PAUSE_S: Final = 0.5
_NAMES: Final = 8


def show(found: RevocationPreview, *, json: bool, aside: bool = False) -> None:
    """Print what would be revoked; ``aside`` to standard error, before a question."""
    if json:
        output.model(found)
        return
    states = ", ".join(f"{count} {state}" for state, count in found.states.items() if count)
    agents = ", ".join(found.agents[:_NAMES])
    more = found.agents_in_all - len(found.agents[:_NAMES])
    never = sum(int(row["count"]) for row in found.by if row.get("revocability") != "instant")
    output.record(
        {
            "would end": f"{plural(found.tasks, 'task')}, {plural(found.matched, 'credential')}"
            + (f" ({states})" if states else ""),
            "of": agents + (f" and {more} more" if more > 0 else ""),
            "careful": f"{never} can't be ended at once: they live until their time is up"
            if never
            else "",
        },
        aside=aside,
    )
    output.rows(
        ("capability", "backend", "power", "can end", "count"),
        (
            (
                str(row.get("capability", "")),
                str(row.get("backend", "")),
                str(row.get("power", "")),
                str(row.get("revocability") or "-"),
                str(row.get("count", "")),
            )
            for row in found.by
        ),
        empty="Nothing live matches.",
        aside=aside,
    )


def confirm(broker: Client, chosen: dict[str, str | bool], *, freeze: bool, yes: bool) -> None:
    """Say what will be revoked and ask whoever is there; a script has to say yes to ``--all``.

    Raises:
        UsageError: nobody can be asked, and it is about everything.
        CommandFailed: they didn't say yes.
    """
    from broker.client import BrokerClientError, Denied, Unauthenticated

    if yes:
        return
    if not sys.stdin.isatty():
        if "all" in chosen:
            raise UsageError("--all needs --yes where nobody can be asked")
        return
    try:
        show(broker.preview_revocation(chosen), json=False, aside=True)
    except (Denied, Unauthenticated):
        raise
    except BrokerClientError as error:
        output.note(f"What will be revoked can't be counted: {error.detail}")
    also = " and freezes it" if freeze else ""
    output.note(f"This revokes {describe(chosen)}{also}. Type yes to go on:")
    if sys.stdin.readline().strip().lower() != "yes":
        raise CommandFailed("Not confirmed: nothing was done", code="not_confirmed")


def waiting(wait: bool | str) -> float | None:  # noqa: FBT001  the option's value
    """Return how many seconds are waited, or None for not at all.

    Raises:
        UsageError: what was given is no time.
    """
    if isinstance(wait, bool):
        return float("inf") if wait else None
    try:
        return parse_duration(wait) / 1000
    except ValueError:
        raise UsageError("--wait takes a time, such as 5m, or nothing: give it last") from None


def follow(broker: Client, chosen: dict[str, str | bool], seconds: float, *, quiet: bool) -> None:
    """Wait until nothing that was revoked is left, and say what is whenever that has changed.

    Raises:
        CommandFailed: some of it isn't confirmed dead in this time.
    """
    from broker.cli.approval_watch import PASSING

    until, said = time.monotonic() + seconds, ""  # noqa: TID251  a limit for a person who waits
    while True:
        try:
            states = broker.preview_revocation(chosen).states
        except PASSING as error:
            left, words = 1, f"{error.detail.rstrip('.')}. Trying again"
        else:
            counts = {state: int(states.get(state) or 0) for state in _ON_THE_WAY}
            left = sum(counts.values())
            parts = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
            words = f"{plural(left, 'credential')} not dead yet: {parts}"
        if not left:
            return
        if words != said and not quiet:
            output.note(words)
        said = words
        if time.monotonic() >= until:  # noqa: TID251  as above
            raise CommandFailed(
                f"Not all of it is confirmed dead after {span(round(seconds))}: {words}",
                code="not_dead_yet",
                hint="it goes on being revoked: `broker top`, `broker grant list --state stuck`",
            )
        time.sleep(_PAUSE_S)
