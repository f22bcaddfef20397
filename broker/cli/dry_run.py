"""``broker policy dry-run``: what would be decided of a request that nobody makes."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection, duration
from broker.cli.pairs import parse_pairs
from broker.cli.refusals import UsageError

Pairs = tuple[str, ...]


def dry_run(  # noqa: PLR0913  one option for each member of the request
    capability: Annotated[
        str, Parameter(help="A capability's or a tool's name.", metavar="CAPABILITY")
    ],
    /,
    *,
    task: Annotated[
        str | None, Parameter(help="As this task's agent would ask, now.", metavar="TASK")
    ] = None,
    agent: Annotated[
        str | None, Parameter(help="As this agent would, in a plain task.", metavar="NAME")
    ] = None,
    ttl: Annotated[
        str | None,
        Parameter(help="How long it should last.", validator=duration, metavar="TIME"),
    ] = None,
    parameter: Annotated[
        Pairs,
        Parameter(
            help="A parameter of a credential; repeat for more.",
            metavar="KEY=VALUE",
            negative="",
            show_default=False,
        ),
    ] = (),
    argument: Annotated[
        Pairs,
        Parameter(
            help="An argument of a tool, JSON or else text; repeat for more.",
            metavar="KEY=VALUE",
            negative="",
            show_default=False,
        ),
    ] = (),
    destination: Annotated[
        str | None, Parameter(help="Where a tool would reach to.", metavar="URL")
    ] = None,
    effect: Annotated[
        Pairs,
        Parameter(
            help="An effect that a tool would have; repeat for more.",
            metavar="LABEL",
            negative="",
            show_default=False,
        ),
    ] = (),
    intent: Annotated[str | None, Parameter(help="What it would be for.", metavar="TEXT")] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Say what policy would decide of a request; nothing is issued, asked for or logged."""
    from broker.cli.policy import duties, tell

    if (task is None) == (agent is None):
        raise UsageError("Give --task or --agent, and not both")
    if agent is not None and (ttl or parameter or argument or destination or effect or intent):
        raise UsageError("What is asked for in particular goes with --task")
    with connection.client() as broker:
        found = broker.dry_run(
            capability,
            task_id=task,
            agent=agent,
            ttl=ttl,
            parameters=parse_pairs(parameter, "--parameter") or None,
            arguments=_read(parse_pairs(argument, "--argument")) or None,
            destination=destination,
            effects=effect,
            intent=intent,
        )
    if connection.json:
        output.model(found)
        return
    output.record(
        {
            "effect": found.effect,
            "reasons": ", ".join(found.reasons),
            "of": found.capability,
            "agent": found.agent,
            "task": found.task_id,
            "at most": found.ttl,
            "policies": ", ".join(found.policies),
            "asks for": duties(found.obligations),
            "depends on": ", ".join(found.depends_on_arguments),
            "notes": "; ".join(found.notes),
        }
    )
    if found.explanation is not None:
        tell(found.explanation)


def _read(pairs: dict[str, str]) -> dict[str, Any]:
    return {name: _value(text) for name, text in pairs.items()}


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
