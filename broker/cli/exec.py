"""``broker exec``: run a command as one task, with its credentials and nothing else."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection, duration
from broker.cli.pairs import parse_pairs
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.waiting import Meanwhile, Wait, attempt
from broker.clock import SystemClock
from broker.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.client import Client, IssuedGrant, Task

_EPILOGUE: Final = """\
The command sees PATH, HOME, TERM, the language, the time zone and the like, what --pass-env \
names, and its credentials; nothing else. Without --env and --file these come in the variables \
that programs of their kind read: PGUSER, PGPASSWORD, DATABASE_URL …

Examples:

  broker exec --agent report-writer --capability orders-read \\
      --purpose "nightly report" -- psql -c "select count(*) from orders"

  broker exec --task tsk_… --capability orders-api \\
      --env API_TOKEN={{access_token}} -- ./fetch

  broker exec --agent report-writer --capability orders-read \\
      --purpose "backup" --file PGSERVICEFILE={{pgservice}} -- pg_dump service=broker

Exit codes: the command's own, 128 + n if signal n killed it, and

  123  its task or a credential was revoked meanwhile
  124  a credential is not confirmed dead
  125  refused, failed, or wrong usage: the command was not run
  126  the command can't be executed
  127  there is no such command
"""

_Time = Annotated[str, Parameter(validator=duration, metavar="TIME")]
_Many = Parameter(negative="", show_default=False)

app = App(
    name="exec",
    help="Run a command with credentials that die with it.",
    help_epilogue=_EPILOGUE,
)


@app.default
def run(  # noqa: PLR0913  one option for each thing that can be said of it
    *command: Annotated[str, Parameter(help="The command, after --.", metavar="CMD")],
    capability: Annotated[
        tuple[str, ...],
        _Many,
        Parameter(help="What it is granted; repeat for more.", metavar="NAME"),
    ],
    agent: Annotated[str | None, Parameter(help="The agent that runs it.", metavar="NAME")] = None,
    purpose: Annotated[
        str | None, Parameter(help="Opens a task, for this purpose.", metavar="TEXT")
    ] = None,
    task: Annotated[
        str | None,
        Parameter(
            help="Uses this task, and lets it go on; as BROKER_TASK_ID does.", metavar="TASK"
        ),
    ] = None,
    parent: Annotated[
        str | None, Parameter(help="The task that the one it opens is part of.", metavar="TASK")
    ] = None,
    ttl: Annotated[
        str | None,
        Parameter(help="How long it may take, such as 15m.", validator=duration, metavar="TIME"),
    ] = None,
    heartbeat: Annotated[
        _Time, Parameter(help="All is revoked when broker exec is silent for this long.")
    ] = "30s",
    parameter: Annotated[
        tuple[str, ...],
        _Many,
        Parameter(help="A parameter; repeat for more.", metavar="[CAPABILITY.]KEY=VALUE"),
    ] = (),
    env: Annotated[
        tuple[str, ...],
        _Many,
        Parameter(help="A variable, with {{member}}s of credentials.", metavar="NAME=TEMPLATE"),
    ] = (),
    file: Annotated[
        tuple[str, ...],
        _Many,
        Parameter(help="As --env, in a private file; NAME is its path.", metavar="NAME=TEMPLATE"),
    ] = (),
    env_preset: Annotated[
        tuple[str, ...],
        _Many,
        Parameter(
            help="The variables of another kind: postgres, mysql, redis, rabbitmq, aws, azure, "
            "gcp, plain, none.",
            metavar="[CAPABILITY=]KIND",
        ),
    ] = (),
    pass_env: Annotated[
        tuple[str, ...],
        _Many,
        Parameter(help="Pass on this variable as it is here; repeat for more.", metavar="NAME"),
    ] = (),
    workdir: Annotated[
        Path | None, Parameter(help="The folder to run it in.", metavar="DIR")
    ] = None,
    wait: Wait = None,
    on_revoked: Annotated[
        Literal["terminate", "keep"],
        Parameter(help="What becomes of it when its task or a credential is revoked."),
    ] = "terminate",
    grace: Annotated[_Time, Parameter(help="From asking it to end until it is killed.")] = "10s",
    confirm: Annotated[
        _Time, Parameter(help="How long to wait until its credentials are confirmed dead.")
    ] = "30s",
    connection: Connection = DEFAULT,
) -> int:
    """Run a command as one task: with its credentials, and nothing else of this environment."""
    from broker.exec.environment import clean
    from broker.exec.handover import Handover
    from broker.exec.interruption import Interrupted, interruptible
    from broker.exec.refusal import Unfit
    from broker.exec.running import Order, Run
    from broker.exec.work import Work

    capabilities = _distinct(capability)
    task = task or (connection.as_task if purpose is None else None)
    _check(agent, purpose, task, parent, ttl)
    try:
        environ = clean(os.environ, pass_env)
        handover = Handover.parse(capabilities, env=env, file=file, preset=env_preset)
    except Unfit as error:
        raise UsageError(str(error)) from None
    if (missing := _missing(command, environ, workdir)) is not None:
        return missing
    clock = SystemClock()
    parameters = _parameters(parameter, capabilities)
    try:
        with interruptible(), client_for(connection, task or parent) as broker:
            begun = _begun(broker, agent, task) if task else None
            own = begun is None
            begun = begun or broker.open_task(
                agent or "",
                purpose or "",
                capabilities,
                ttl=ttl,
                parent_task_id=parent,
                heartbeat=heartbeat,
            )
            for text in begun.notes:
                _say(f"note: {text}")
            interval = parse_duration(begun.heartbeat or heartbeat) / 3000
            order = Order(
                command=command,
                environ=environ,
                folder=str(workdir) if workdir else None,
                capabilities=capabilities,
                parameters=parameters,
                intent=purpose or f"run {Path(command[0]).name}",
                handover=handover,
                interval=interval,
                terminates=on_revoked == "terminate",
                grace=parse_duration(grace) / 1000,
                limit=parse_duration(confirm) / 1000,
            )
            work = Work(broker, begun, own=own, clock=clock)
            return Run(order, work, broker, say=_say, show=_show, clock=clock).run(
                _attempts(broker, begun, wait, interval, quiet=connection.json)
            )
    except Interrupted as told:
        return told.exit_code
    except Unfit as error:
        raise CommandFailed(str(error), code="unfit") from None


def _attempts(
    broker: Client, task: Task, wait: str | None, interval: float, *, quiet: bool
) -> Callable[[Callable[[Client], IssuedGrant]], IssuedGrant]:
    """Return how a credential is asked for: while a human is waited for the task is kept alive."""
    from contextlib import suppress

    from broker.exec.work import PASSING

    def beat(client: Client) -> None:
        with suppress(*PASSING):
            client.heartbeat(task.task_id)

    meanwhile = Meanwhile(interval, beat)
    return lambda call: attempt(broker, call, wait, quiet=quiet, meanwhile=meanwhile)


def client_for(connection: Connection, about: str | None) -> Client:
    """Return a client; an agent acts under the task that it names, unless told."""
    from broker.client import Denied

    broker = connection.client()
    if about and not connection.as_task:
        try:
            broker.get_task(about)
        except Denied as error:
            broker.close()
            if error.code != "invalid_authorization_details":
                raise
            return replace(connection, as_task=about).client()
    return broker


def _begun(broker: Client, agent: str | None, task: str) -> Task:
    found = broker.get_task(task)
    if agent is not None and found.agent != agent:
        raise UsageError(f"{task} is of {found.agent}, not of {agent}")
    return found


def _check(
    agent: str | None, purpose: str | None, task: str | None, parent: str | None, ttl: str | None
) -> None:
    """Refuse what contradicts itself."""
    if task is None and (purpose is None or agent is None):
        raise UsageError(
            "name a task, or the agent and purpose of a new one",
            hint="--task, or --agent --purpose",
        )
    if task is not None and (purpose is not None or parent is not None or ttl is not None):
        raise UsageError("--purpose, --parent and --ttl are for a new task, not with --task")


def _distinct(capabilities: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(capabilities)) != len(capabilities):
        raise UsageError("--capability names one twice")
    return capabilities


def _parameters(texts: Sequence[str], capabilities: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the parameters of each capability, by ``[CAPABILITY.]KEY=VALUE``."""
    found: dict[str, dict[str, str]] = {name: {} for name in capabilities}
    for key, value in parse_pairs(texts, "--parameter").items():
        capability, _, name = key.rpartition(".")
        if capability in found:
            found[capability][name] = value
        elif len(capabilities) == 1:
            found[capabilities[0]][key] = value
        else:
            raise UsageError(f"--parameter {key}: of which capability? {capabilities[0]}.{key}")
    return found


def _missing(command: Sequence[str], environ: dict[str, str], folder: Path | None) -> int | None:
    """Return the exit code for a command that can't be run, found before anything is asked for."""
    from broker.exec.running import NOT_EXECUTABLE, NOT_FOUND

    if not command:
        raise UsageError("name the command after --", hint="broker exec … -- CMD ARGS")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--workdir {folder} is not a folder")
    program = Path(command[0])
    if "/" not in command[0]:
        if shutil.which(command[0], path=environ.get("PATH", os.defpath)) is None:
            _say(f"{command[0]}: there is no such command")
            return NOT_FOUND
        return None
    program = (folder or Path()) / program
    if not program.exists():
        _say(f"{command[0]}: there is no such command")
        return NOT_FOUND
    if not program.is_file() or not os.access(program, os.X_OK):
        _say(f"{command[0]}: it can't be executed")
        return NOT_EXECUTABLE
    return None


def _say(text: str) -> None:
    output.note(f"broker exec: {text}")


def _show(text: str) -> None:
    if sys.stderr.isatty():
        _say(text)
