"""What an operator's command is about: one task, one agent, … or everything."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Group, Parameter

from broker.cli import output
from broker.cli.refusals import CommandFailed, UsageError


@Parameter(name="*", group=Group("Selector (exactly one)", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Exactly one of these."""

    task: Annotated[str | None, Parameter(help="A task and its children.", metavar="TASK")] = None
    agent: Annotated[str | None, Parameter(help="An agent, by name.", metavar="NAME")] = None
    owner: Annotated[str | None, Parameter(help="Whoever owns the agents.", metavar="WHO")] = None
    capability: Annotated[str | None, Parameter(help="A capability.", metavar="NAME")] = None
    backend: Annotated[str | None, Parameter(help="A backend.", metavar="NAME")] = None
    grant: Annotated[str | None, Parameter(help="A single grant.", metavar="GRANT")] = None
    everything: Annotated[
        bool, Parameter(name="--all", help="Everything.", negative="", show_default=False)
    ] = False

    def as_wire(self) -> dict[str, str | bool]:
        """Return the selector as the API takes it.

        Raises:
            UsageError: none is given, or several, or an empty one, as from an unset variable.
        """
        given: dict[str, str | bool | None] = {
            "task_id": self.task,
            "agent": self.agent,
            "owner": self.owner,
            "capability": self.capability,
            "backend": self.backend,
            "grant_id": self.grant,
            "all": self.everything or None,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        if len(chosen) != 1:
            raise UsageError(
                "Give exactly one of --task, --agent, --owner, --capability, --backend, --grant "
                "and --all"
            )
        if not all(chosen.values()):
            raise UsageError(f"The value of --{next(iter(chosen)).removesuffix('_id')} is empty")
        return chosen


NONE: Final = Selector()


def describe(selector: Mapping[str, object]) -> str:
    """Write a selector as ``agent=report-writer``, or ``all``."""
    return ", ".join(
        name if value is True else f"{name.removesuffix('_id')}={value}"
        for name, value in selector.items()
    )


def confirm(selector: dict[str, str | bool], question: str, *, yes: bool) -> None:
    """Ask before something is done to everything; a script has to say ``--yes``."""
    if "all" not in selector or yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("--all needs --yes where nobody can be asked")
    output.note(f"{question} Type yes to go on:")
    if sys.stdin.readline().strip().lower() != "yes":
        raise CommandFailed("Not confirmed: nothing was done", code="not_confirmed")
