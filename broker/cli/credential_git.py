"""``broker credential git``: a helper of git's (gitcredentials(7), git-credential(1))."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from broker.cli.connection import DEFAULT, Connection
from broker.cli.credential import Parameters, TaskOf, asked, needed
from broker.cli.refusals import CommandFailed
from broker.cli.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKENS: Final = ("password", "token", "access_token", "private_token")
_LONGEST: Final = 1 << 16


def git(
    operation: Annotated[
        Literal["get", "store", "erase"], Parameter(help="What git wants; git adds it itself.")
    ],
    /,
    *,
    capability: Annotated[str, Parameter(help="What is to be granted.", metavar="NAME")],
    host: Annotated[
        str,
        Parameter(help="The host that it is for, with its port if it has one.", metavar="HOST"),
    ],
    username: Annotated[
        str, Parameter(help="The user, where the credential has none.", metavar="NAME")
    ] = "x-access-token",
    task: TaskOf = None,
    parameter: Parameters = (),
    wait: Wait = None,
    connection: Connection = DEFAULT,
) -> None:
    """Answer git's credential protocol on standard input and output."""
    from broker.exec.members import Members

    request = _read()
    if operation == "store" or request.get("protocol") != "https" or request.get("host") != host:
        return
    wanted = asked(task, capability, parameter, wait, connection)
    if operation == "erase":
        with wanted.broker() as broker:
            if (grant := wanted.keeper().drop()) is not None:
                broker.revoke_grant(grant)
        return
    issued = wanted.kept()
    members = Members(issued)
    own = members.get("username")
    answer = {
        "username": own.reveal() if own else username,
        "password": needed(members, *_TOKENS),
    }
    if issued.expires_at is not None:
        answer["password_expiry_utc"] = str(int(issued.expires_at.timestamp()))
    _write(answer)


def _read() -> dict[str, str]:
    """Read ``key=value`` lines up to an empty one; of a key that comes twice the last counts."""
    found: dict[str, str] = {}
    for line in sys.stdin.read(_LONGEST).splitlines():
        if not line:
            break
        key, _, value = line.partition("=")
        found[key] = value
    return found


def _write(answer: Mapping[str, str]) -> None:
    if any(set("\n\r\0") & set(value) for value in answer.values()):
        raise CommandFailed(
            "the credential has a line break in it, which git can't be told", code="unfit"
        )
    sys.stdout.write("".join(f"{key}={value}\n" for key, value in answer.items()))
