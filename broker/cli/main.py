"""The ``broker`` command: what there is, how it ends, and nothing that takes time to import."""

from __future__ import annotations

import os
import sys
from functools import cache
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final

from broker import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import App, Group

_EPILOGUE: Final = """\
Environment of the client commands:

  BROKER_URL                  where the broker is (http://127.0.0.1:8700)
  BROKER_IDENTITY_TOKEN_FILE  a file with your workload JWT
  BROKER_IDENTITY_TOKEN       the workload JWT itself, if no file is set
  BROKER_IDENTITY_COMMAND     a program that writes it, if that isn't set either; then a SPIFFE
                              agent, GitHub Actions, Kubernetes and your `broker login`
                              are looked for
  BROKER_AUDIENCE             whom minted identities are for (the broker's issuer URL)
  BROKER_TASK_ID              the task that an agent acts under
  BROKER_CA_FILE              whom to trust instead of the system's authorities
  BROKER_CLIENT_CERT, …_KEY   your certificate and its key, for mutual TLS
  BROKER_DPOP=1, …_DPOP_KEY   bind the access token to a key: a new one, or that of a file
  NO_COLOR, FORCE_COLOR       any value: no colours, or colours in a pipe too

Exit codes:

    0  done
    1  refused by the broker, failed, not confirmed by you, or not dead in time
    2  wrong usage; nothing was sent
    3  the broker can't be reached, or something that it needs is down
    4  your identity isn't accepted, or isn't allowed this
    5  approval is needed; ask again once approved
  130  interrupted

`broker exec` passes on those of its command; `broker exec --help` lists its own.
"""

_EXEC_FAILED: Final = 125
"""Whatever else `broker exec` exits with is its command's, as with env and docker."""

_WORK, _OPERATE, _PEOPLE, _RUN, _OTHER = _GROUPS = (
    "Tasks and credentials",
    "For operators",
    "You and your shell",
    "Running a broker",
    "Other",
)

# Import paths, not functions: a command's module, and what it needs, is imported when it is run.
_COMMANDS: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("task", "broker.cli.task:app", _WORK, "Open, watch and end tasks."),
    ("grant", "broker.cli.grant:app", _WORK, "Ask for credentials, list and revoke them."),
    ("exec", "broker.cli.exec:app", _WORK, "Run a command with credentials that die with it."),
    ("credential", "broker.cli.credential:app", _WORK, "Serve AWS SDKs, git and libpq."),
    ("mcp", "broker.cli.mcp:app", _WORK, "Serve the Model Context Protocol to agents."),
    ("elevate", "broker.cli.elevate:app", _WORK, "Give a task a capability for a while."),
    ("break-glass", "broker.cli.break_glass:app", _WORK, "Take a capability unapproved."),
    ("top", "broker.cli.top:app", _OPERATE, "Watch what lives, what dies next, what is wrong."),
    ("approval", "broker.cli.approval:app", _OPERATE, "Approve or deny what agents ask for."),
    ("review", "broker.cli.review:app", _OPERATE, "Look at what was done with broken glass."),
    ("revoke", "broker.cli.revoke:app", _OPERATE, "Revoke every credential that matches."),
    ("freeze", "broker.cli.freeze:freeze_app", _OPERATE, "Issue nothing more that matches."),
    ("thaw", "broker.cli.freeze:thaw_app", _OPERATE, "Lift a freeze."),
    ("freezes", "broker.cli.freeze:freezes_app", _OPERATE, "List the freezes in force."),
    ("quota", "broker.cli.quota:app", _OPERATE, "List the quotas, and what is used of them."),
    ("signal", "broker.cli.signal:app", _OPERATE, "Report risks of tasks, agents and owners."),
    ("policy", "broker.cli.policy:app", _OPERATE, "Check, test and explain policies."),
    ("keys", "broker.cli.keys:app", _OPERATE, "List and rotate the broker's signing keys."),
    ("agent", "broker.cli.agent:app", _OPERATE, "Add, suspend, retire and review principals."),
    ("owner", "broker.cli.owner:app", _OPERATE, "Say who left, and who takes over."),
    ("audit", "broker.cli.audit:app", _OPERATE, "Read the log."),
    ("reconcile", "broker.cli.reconcile:app", _OPERATE, "Compare ledger, backends and targets."),
    ("login", "broker.cli.login:login_app", _PEOPLE, "Log in as a person."),
    ("logout", "broker.cli.login:logout_app", _PEOPLE, "Delete the tokens of a login."),
    ("whoami", "broker.cli.login:whoami_app", _PEOPLE, "Show who you are to the broker."),
    ("completion", "broker.cli.completion:app", _PEOPLE, "Complete commands in your shell."),
    ("dev", "broker.cli.dev:app", _RUN, "Run a whole broker here, with its servers embedded."),
    ("serve", "broker.cli.serve:serve", _RUN, "Run the broker against real servers."),
    ("check-config", "broker.cli.check:check_config", _RUN, "Check a configuration file."),
    ("doctor", "broker.cli.doctor:doctor", _RUN, "Check the servers that the broker needs."),
    ("notify", "broker.cli.notify:app", _RUN, "Try out the channels of notifications."),
    ("vault", "broker.cli.vault:app", _RUN, "Prepare Vault or OpenBao for the broker."),
)

_EXAMPLES: Final = {
    "serve": "Example: broker serve --config /etc/broker/config.toml",
    "check-config": "Example: broker check-config --config /etc/broker/config.toml",
    "doctor": "Example: broker doctor --config /etc/broker/config.toml",
}
"""Of the commands that are functions, whose own text the one in the list takes the place of."""


@cache
def _groups() -> dict[str, Group]:
    """Make the groups of commands once: a command that is loaded keeps the one it is in."""
    from cyclopts import Group

    return {name: Group(name, sort_key=order) for order, name in enumerate(_GROUPS)}


def build() -> App:
    """Make the application, with every command still unloaded."""
    from cyclopts import App

    groups = _groups()
    app = App(
        name="broker",
        help="A just-in-time credential broker for AI agents: every credential lives for one "
        "task, and is confirmed dead when the task ends.",
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=__version__,
        version_flags=["--version", "-V"],
        group_commands=groups[_OTHER],
        suppress_keyboard_interrupt=False,
        result_action="return_int_as_exit_code_else_zero",
        exit_on_error=False,
        print_error=False,
    )
    for order, (name, path, group, help_text) in enumerate(_COMMANDS):
        example = {"help_epilogue": _EXAMPLES[name]} if name in _EXAMPLES else {}
        app.command(path, name=name, group=groups[group], help=help_text, sort_key=order, **example)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code that ``broker --help`` documents."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without UTF-8 gets escapes, not an error
            stream.reconfigure(errors="backslashreplace")
    try:
        if tokens in (
            ["--version"],
            ["-V"],
        ):  # asked by scripts, often: answered before all imports
            sys.stdout.write(f"{__version__}\n")
            return 0
        code = int(build()(tokens))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone (`broker task list | head`). Python would complain at exit as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        from broker.cli.failures import report

        own = tokens[: tokens.index("--")] if "--" in tokens else tokens
        commands = [name for name, *_ in _COMMANDS]
        command = next(iter(own), "")
        failure = report(error, json="--json" in own, command=command, commands=commands)
        if failure is None:
            raise
        return _EXEC_FAILED if own[:1] == ["exec"] else failure
    return code
