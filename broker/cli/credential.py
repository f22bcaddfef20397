"""``broker credential``: for programs that have a way of their own to ask for one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection
from broker.cli.pairs import parse_pairs
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import when
from broker.cli.waiting import Wait, attempt
from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from broker.client import Client, IssuedGrant
    from broker.exec.keeping import Keeper
    from broker.exec.members import Members

_AWS: Final = """\
In ~/.aws/config, where BROKER_TASK_ID or --task says under which task:

  [profile reports]
  credential_process = broker credential aws s3-read

One credential is used until a third of its life is left; it is kept in memory only. `broker exec` \
hands the same over in variables.

Example:

  broker credential aws s3-read --task tsk_…
"""
_PG: Final = """\
The file holds the password in plain text, for its user alone, until you remove it; the credential \
ends with its task. Prefer `broker exec --file PGPASSFILE={{pgpass}}`, whose file ends with the \
command.

Examples:

  broker credential pgpass orders-read --task tsk_… --output ./pgpass
  PGPASSFILE=./pgpass psql -h db -U "$(cut -d: -f4 pgpass)" orders
"""
_SERVICE: Final = """\
As `broker credential pgpass`, with the user and the host in it as well.

Examples:

  broker credential pgservice orders-read --task tsk_… --output ./pg_service.conf
  PGSERVICEFILE=./pg_service.conf psql service=broker
"""
_GIT: Final = """\
As a helper of git's, where BROKER_TASK_ID says under which task:

  git config credential.https://git.example.helper \\
      '!broker credential git --host git.example --capability git-push'

It answers for that host alone, and over https. What git says was refused is revoked.

Example:

  broker credential git --host git.example --capability git-push get
"""

Capability = Annotated[
    str, Parameter(help="What is to be granted.", metavar="CAPABILITY", name="capability")
]
TaskOf = Annotated[
    str | None,
    Parameter(help="The task that it is for, unless BROKER_TASK_ID is set.", metavar="TASK"),
]
Parameters = Annotated[
    tuple[str, ...],
    Parameter(
        help="A parameter; repeat for more.", metavar="KEY=VALUE", negative="", show_default=False
    ),
]
_Output = Annotated[
    Path, Parameter(help="The file to write; it must be new.", metavar="FILE", name="--output")
]
_Replace = Annotated[
    bool, Parameter(help="Write it anew if it is there.", negative="", show_default=False)
]

app = App(
    name="credential",
    group_commands="Commands",
    help="Hand over credentials as AWS SDKs, git and libpq ask for them.",
)
app.command(
    "broker.cli.credential_git:git",
    name="git",
    help="Answer git's credential protocol.",
    help_epilogue=_GIT,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A credential of a task that programs ask for again and again."""

    task: str
    capability: str
    parameters: Sequence[str]
    wait: str | None
    connection: Connection

    @contextmanager
    def broker(self) -> Generator[Client]:
        """Make the client; an agent acts under the task."""
        from broker.cli.exec import client_for

        with client_for(self.connection, self.task) as broker:
            yield broker

    def keeper(self) -> Keeper:
        """Return where the last one is kept."""
        from broker.exec.keeping import Keeper, folder, places

        about = (self.connection.server or "", self.task, self.capability, sorted(self.parameters))
        return Keeper(folder(places()), *about, clock=SystemClock())

    def kept(self) -> IssuedGrant:
        """Return the last one while it lives, and another then."""
        with self.broker() as broker:
            return self.keeper().get(broker, lambda: self.another(broker))

    def another(self, broker: Client) -> IssuedGrant:
        """Ask for one."""
        parameters = parse_pairs(self.parameters, "--parameter")
        return attempt(
            broker,
            lambda client: client.request_grant(
                self.task, self.capability, parameters=parameters or None
            ),
            self.wait,
            quiet=True,
        )


def asked(
    task: str | None,
    capability: str,
    parameters: Sequence[str],
    wait: str | None,
    connection: Connection,
) -> Asked:
    """Put together what is asked for."""
    task = task or connection.as_task
    if task is None:
        raise UsageError("name the task that it is for", hint="--task, or BROKER_TASK_ID")
    parse_pairs(parameters, "--parameter")
    return Asked(task, capability, parameters, wait, connection)


def needed(members: Members, *names: str) -> str:
    """Return the first member of these that there is.

    Raises:
        CommandFailed: there is none.
    """
    for name in names:
        if (value := members.get(name)) is not None:
            return value.reveal()
    raise CommandFailed(
        f"{members.grant_id} was issued, and its credential has no {names[0]!r}: it has "
        + ", ".join(members.names),
        code="no_such_field",
        hint=f"`broker grant revoke {members.grant_id}`",
    )


@app.command(help_epilogue=_AWS)
def aws(
    capability: Capability,
    /,
    *,
    task: TaskOf = None,
    parameter: Parameters = (),
    wait: Wait = None,
    connection: Connection = DEFAULT,
) -> None:
    """Print a credential as a credential_process of AWS does."""
    from broker.exec.members import Members

    issued = asked(task, capability, parameter, wait, connection).kept()
    members = Members(issued)
    token = members.get("session_token")
    document = {
        "Version": 1,
        "AccessKeyId": needed(members, "access_key"),
        "SecretAccessKey": needed(members, "secret_key"),
        "SessionToken": token.reveal() if token else None,
        "Expiration": f"{issued.expires_at:%Y-%m-%dT%H:%M:%SZ}" if issued.expires_at else None,
    }
    output.document({name: value for name, value in document.items() if value is not None})


@app.command(help_epilogue=_PG)
def pgpass(
    capability: Capability,
    /,
    *,
    out: _Output,
    replace: _Replace = False,
    task: TaskOf = None,
    parameter: Parameters = (),
    wait: Wait = None,
    connection: Connection = DEFAULT,
) -> None:
    """Write a PostgreSQL password file."""
    _write("pgpass", out, asked(task, capability, parameter, wait, connection), replace=replace)


@app.command(help_epilogue=_SERVICE)
def pgservice(
    capability: Capability,
    /,
    *,
    out: _Output,
    replace: _Replace = False,
    task: TaskOf = None,
    parameter: Parameters = (),
    wait: Wait = None,
    connection: Connection = DEFAULT,
) -> None:
    """Write a PostgreSQL connection service file, with the service `broker`."""
    _write("pgservice", out, asked(task, capability, parameter, wait, connection), replace=replace)


def _write(member: str, path: Path, wanted: Asked, *, replace: bool) -> None:
    """Ask for a credential, and write what files of this kind have of it.

    A file that was there is taken away only when there is something to write in its place.
    """
    from broker.exec.files import write_private
    from broker.exec.members import Members

    if path.is_symlink() or (path.exists() and not (replace and path.is_file())):
        raise UsageError(f"{path} is there already", hint="name a new file, or give --replace")
    with wanted.broker() as broker:
        issued = wanted.another(broker)
        text = needed(Members(issued), member)
        try:
            path.unlink(missing_ok=True)
            write_private(path, text)
        except OSError as error:
            broker.revoke_grant(issued.grant_id)
            msg = f"{path} can't be written: {error.strerror}; the credential is revoked"
            raise CommandFailed(msg, code="unwritable") from None
    if wanted.connection.json:
        output.document({"grant_id": issued.grant_id, "file": str(path)})
    else:
        ends = when(issued.expires_at, SystemClock().now())
        output.line(f"{issued.grant_id}: in {path}, lives until {ends}")
