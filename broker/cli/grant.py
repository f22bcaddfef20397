"""``broker grant``: credentials, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

from broker.cli import delivery, grant_ends, grant_life, output
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging, duration
from broker.cli.grant_ends import GrantId
from broker.cli.pairs import parse_pairs
from broker.cli.text import ago, when
from broker.cli.waiting import Wait, approved
from broker.cli.watching import watchable
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client import Grant

State = Literal["pending", "active", "revoking", "stuck", "revoked", "failed", "abandoned"]
_WAITING: Final = frozenset({"revoking", "stuck"})

_REQUEST: Final = """\
The credential is printed once; the broker keeps no copy. Prefer --field or \
--env, which leave nothing on the screen.

Examples:

  broker grant request tsk_… orders-read --intent "count orders"

  psql "$(broker grant request tsk_… orders-read --field dsn)"

  eval "$(broker grant request tsk_… orders-read --env)"
  echo "$BROKER_CREDENTIAL_USERNAME"

  broker grant request tsk_… orders-admin --wait 15m --field dsn

  broker grant request tsk_… orders-read --wrapped --field token
"""
_LIST: Final = """\
Examples:

  broker grant list --task tsk_…
  broker grant list --state stuck --json
"""

_SHOW: Final = """\
Example: broker grant show grt_… --watch 1s
"""
_REVOKE: Final = """\
Example: broker grant revoke grt_…
"""

app = App(
    name="grant",
    group_commands="Commands",
    help="Ask for credentials, list and revoke them.",
)


@app.command(name="request", help_epilogue=_REQUEST)
def request_grant(  # noqa: PLR0913  one option for each member of the request
    task: Annotated[str, Parameter(help="The task's id.", metavar="TASK", name="task")],
    capability: Annotated[str, Parameter(help="What to be granted.", metavar="CAPABILITY")],
    /,
    *,
    ttl: Annotated[
        str | None,
        Parameter(help="How long it should last, such as 5m.", validator=duration, metavar="TIME"),
    ] = None,
    parameter: Annotated[
        tuple[str, ...],
        Parameter(
            help="A parameter; repeat for more.",
            metavar="KEY=VALUE",
            negative="",
            show_default=False,
        ),
    ] = (),
    intent: Annotated[
        str | None, Parameter(help="What you will do with it, for the log.", metavar="TEXT")
    ] = None,
    wrapped: grant_life.Wrapped = False,
    wrap_ttl: grant_life.WrapTtl = None,
    field: delivery.Field = None,
    env: delivery.Env = False,
    wait: Wait = None,
    connection: Connection = DEFAULT,
) -> None:
    """Ask for a credential under a task, and print it."""
    delivery.check(field, env=env, json=connection.json)
    parameters = parse_pairs(parameter, "--parameter")
    issued = approved(
        connection,
        task,
        lambda broker: broker.request_grant(
            task,
            capability,
            ttl=ttl,
            parameters=parameters or None,
            intent=intent,
            **grant_life.carried(wrapped=wrapped, wrap_ttl=wrap_ttl),
        ),
        wait,
    )
    delivery.printed(issued, field, env=env, json=connection.json)


@app.command(name="list", help_epilogue=_LIST)
@watchable
def list_grants(
    *,
    task: Annotated[str | None, Parameter(help="Only this task's.", metavar="TASK")] = None,
    agent: Annotated[str | None, Parameter(help="Only this agent's.", metavar="NAME")] = None,
    state: Annotated[State | None, Parameter(help="Only those in this state.")] = None,
    paging: Paging = FIRST,
    connection: Connection = DEFAULT,
) -> None:
    """List the grants that you may see; never a credential."""
    page = connection.ask(
        task,
        lambda broker: paging.collect(
            lambda cursor, limit: broker.list_grants(
                task_id=task, agent=agent, state=state, cursor=cursor, limit=limit
            )
        ),
    )
    if connection.json:
        output.page_document(page)
        return
    now = SystemClock().now()
    if state in _WAITING:
        output.rows(
            ("grant", "state", "capability", "asked", "attempts", "next", "error"),
            (_waiting(grant, now) for grant in page.items),
            empty="No grants.",
        )
    else:
        output.rows(
            ("grant", "state", "agent", "capability", "expires"),
            (
                (g.grant_id, g.state, g.agent, g.capability, ago(g.expires_at, now))
                for g in page.items
            ),
            empty="No grants.",
        )
    output.more(page)


@app.command(name="show", help_epilogue=_SHOW)
@watchable
def show_grant(grant: GrantId, /, *, connection: Connection = DEFAULT) -> None:
    """Show one grant; never its credential."""
    with connection.client() as broker:
        found = broker.get_grant(grant)
    if connection.json:
        output.model(found)
    else:
        output.record(_pairs(found))


@app.command(name="revoke", help_epilogue=_REVOKE)
def revoke_grant(grant: GrantId, /, *, connection: Connection = DEFAULT) -> None:
    """Revoke one grant. If it is dead already, that is no error."""
    with connection.client() as broker:
        found = broker.revoke_grant(grant)
    if connection.json:
        output.model(found)
        return
    output.line(f"{grant}: {found.state}")
    if found.state == "abandoned":
        output.note(f"given up, never confirmed dead: broker grant show {grant}")
    elif found.state not in {"revoked", "failed"}:
        output.note(f"not yet confirmed dead: broker grant show {grant}")


grant_life.register(app)
grant_ends.register(app)


def _waiting(grant: Grant, now: float) -> tuple[str | None, ...]:
    """Say of a grant that is being revoked since when, how often in vain, and why."""
    return (
        grant.grant_id,
        grant.state,
        grant.capability,
        ago(grant.revoke_requested_at, now),
        str(grant.attempts),
        ago(grant.next_attempt_at, now),
        grant.error,
    )


def _pairs(grant: Grant) -> dict[str, str | None]:
    now = SystemClock().now()
    times = {
        "created": grant.created_at,
        "expires": grant.expires_at,
        "revoke asked": grant.revoke_requested_at,
        "next attempt": grant.next_attempt_at,
        "ends by itself": grant.ends_by_itself_at,
        "ended": grant.ended_at,
    }
    dead = grant.time_to_dead_ms
    return {
        "grant": grant.grant_id,
        "state": grant.state,
        "reason": grant.reason,
        "error": grant.error,
        "task": grant.task_id,
        "agent": grant.agent,
        "capability": grant.capability,
        "backend": grant.backend,
        "power": grant.power,
        "account": grant.account,
        "revocability": grant.revocability,
        **{name: when(moment, now) for name, moment in times.items() if moment},
        "intent": grant.intent,
        "evidence": grant.evidence,
        "statement": grant.statement,
        "replaces": grant.replaces,
        "replaced by": grant.replaced_by,
        "time to dead": "" if dead is None else f"{dead} ms",
        "attempts": str(grant.attempts or ""),
    }
