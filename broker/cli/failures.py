"""How a command fails: the exit code, the words, and what to do next."""

from __future__ import annotations

import difflib
import json as jsonlib
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

from cyclopts import CycloptsError
from cyclopts.exceptions import UnknownCommandError

from broker import errors as server
from broker.cli.extras import not_installed
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import clean
from broker.client import errors as client

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
FORBIDDEN: Final = 4
PENDING: Final = 5

_EXIT_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (client.ConnectionFailed, UNREACHABLE),
    (client.Unavailable, UNREACHABLE),
    (client.Unauthenticated, FORBIDDEN),
    (client.Denied, FORBIDDEN),
    (client.ApprovalRequired, PENDING),
    (server.Unavailable, UNREACHABLE),
    (server.AuthenticationError, FORBIDDEN),
    (server.AccessDenied, FORBIDDEN),
)

_HINTS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (client.Unauthenticated, "is the token file's JWT fresh, and for this broker? --token-file"),
    (client.Denied, "an operator sees why in `broker audit list`"),
    (client.NotFound, "what isn't yours looks the same as what doesn't exist"),
    (
        client.Conflict,
        "look at its state: `broker task show`, `broker grant show`, `broker approval show`",
    ),
    (client.UnexpectedAnswer, "is --server or BROKER_URL the broker's own address?"),
    (client.Unavailable, "try again; an operator can run `broker doctor`"),
    (server.Unavailable, "`broker doctor` says which part doesn't answer"),
)

_HINTS_BY_CODE: Final = {
    "binding_required": "--dpop binds your token to a key",
    "connection_failed": "is it running there? `broker dev` starts one; --server says where",
    "no_answer": "look whether it happened before you repeat it: `broker task list`, "
    "`broker approval show`",
    "approval_required": "once an operator has approved it, ask again in the same words; --wait 5m "
    "waits for it",
    "approval_denied": "`broker approval show` says until when that is the answer",
    "credential_already_delivered": "`broker grant revoke` that one, and ask for another one",
    "frozen": "`broker freezes` lists what is frozen",
    "identity_unavailable": "it may answer in a moment; nothing was asked of the broker",
    "identity_missing": "give --token-file, or `broker login`; for a dev broker: "
    '`eval "$(broker dev token NAME --env)"`',
    "invalid_authorization_details": "an agent acts under a live task of its own, and only an "
    "agent: --as-task, BROKER_TASK_ID",
    "invalid_dpop_proof": "is the clock right, and --server the broker's public address?",
    "invalid_target": "--server and the broker's own `issuer` name different brokers",
    "keyring_unavailable": "unlock it, or log in anew: `broker login --keep file`",
    "login_ended": "`broker login`",
    "login_failed": "`broker login` again; `broker login --device` goes by a browser elsewhere",
    "login_unsafe": "give the https address of the broker with --server",
    "ledger_newer": "install that release here, too; or restore the backup from before it, and "
    "reconcile",
    "no_login": "an operator can add [login] to the broker's configuration",
    "invalid_url": "give --server, or set BROKER_URL",
}


def report(
    error: Exception, *, json: bool, command: str = "", commands: Sequence[str] = ()
) -> int | None:
    """Tell the user what went wrong, on standard error, and return the exit code.

    ``command`` is the one that was asked for, of ``commands``. None means that the error is
    nobody's fault but ours: let it show where it came from.
    """
    if isinstance(error, ModuleNotFoundError):
        error = not_installed(command) or error
    if isinstance(error, CycloptsError | UsageError):
        problem, hint, code = *_usage(error, commands), USAGE
    elif isinstance(error, CommandFailed):
        problem = {"code": error.code, "title": "Failed", "detail": error.detail}
        hint, code = error.hint, FAILED
    elif isinstance(error, client.BrokerClientError | server.BrokerError):
        problem = _problem(error)
        hint = _HINTS_BY_CODE.get(str(problem["code"])) or _first(_HINTS, error, "")
        explained = isinstance(error, client.Denied) and not isinstance(
            error, client.ApprovalDenied
        )
        if explained and (decision := problem.get("decision_id")):
            hint = f"an operator sees why: `broker policy explain {clean(str(decision))}`"
        code = _first(_EXIT_CODES, error, FAILED)
    else:
        return None
    if json:
        sys.stderr.write(jsonlib.dumps({"error": problem}, default=str) + "\n")
    else:
        sys.stderr.write(_words(problem, hint))
    return code


def _words(problem: dict[str, Any], hint: str) -> str:
    lines = str(problem["detail"]).splitlines() or [""]
    text = "error: " + "\n       ".join(clean(line) for line in lines)
    if "approval_id" in problem:
        text += f"\napproval: {clean(str(problem['approval_id']))}"
    advice = problem.get("advice")
    if isinstance(advice, list):
        said = [str(line) for line in cast("list[object]", advice)]
        new = [line for line in said if line not in str(problem["detail"])]
        text += "".join(f"\nadvice: {clean(line)}" for line in new)
    # How often to look whether it is approved isn't when to ask again.
    if "retry_after" in problem and problem["code"] != client.ApprovalRequired.code:
        text += f"\ntry again in {problem['retry_after']}s"
    return text + (f"\nhint: {hint}\n" if hint else "\n")


def _problem(error: client.BrokerClientError | server.BrokerError) -> dict[str, Any]:
    if isinstance(error, client.BrokerClientError):
        return error.as_problem()
    problem = {**error.extra, "code": error.code, "title": error.title, "detail": error.detail}
    return problem | ({"retry_after": error.retry_after} if error.retry_after is not None else {})


def _usage(
    error: CycloptsError | UsageError, commands: Sequence[str]
) -> tuple[dict[str, Any], str]:
    if isinstance(error, UsageError):
        detail, hint = error.detail, error.hint
    elif isinstance(error, UnknownCommandError) and not error.command_chain:
        # cyclopts would import every command to suggest one.
        word = (error.unused_tokens or [""])[0]
        close = difflib.get_close_matches(word, commands, n=1)
        detail = f'Unknown command "{word}".' + (f' Did you mean "{close[0]}"?' if close else "")
        hint = "`broker --help` lists the commands"
    else:
        error.verbose = False
        detail = str(error)
        hint = f"`{' '.join(['broker', *(error.command_chain or ())])} --help`"
    return {"code": "usage", "title": "Wrong usage", "detail": detail.strip()}, hint


def _first(
    table: Sequence[tuple[type[Exception], Any]],
    error: Exception,
    default: Any,  # noqa: ANN401  of the table's kind
) -> Any:  # noqa: ANN401
    return next((value for kind, value in table if isinstance(error, kind)), default)
