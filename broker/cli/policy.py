"""``broker policy``: the policies in force, why they decide as they do, and those in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from broker.cli import output, policy_files, unsettled
from broker.cli.connection import DEFAULT, Connection
from broker.cli.text import plural, when
from broker.cli.watching import watchable
from broker.clock import SystemClock
from broker.durations import format_duration

if TYPE_CHECKING:
    from broker.client import ExplainedDecision, Policies, Policy

_WHO: Final = """\
Examples:

  broker policy who-can orders-write
  broker policy who-can orders-write --config config.toml
"""

_DRY: Final = "Say what policy would decide of a request; nothing is issued, asked for or logged."
_DRY_RUN: Final = """\
Examples:

  broker policy dry-run orders-read --task tsk_… --ttl 10m
  broker policy dry-run deploy --agent releaser
  broker policy dry-run pay-out --task tsk_… --argument to=acme --argument amount=12.5
"""
_FLAGS: Final = {
    "require_binding": "a bound token",
    "require_instant": "revocable at once",
    "log_arguments": "arguments in the log",
    "keep_budget": "budgets don't go back",
}

app = App(
    name="policy",
    group_commands="Commands",
    help="Check, test and explain policies, and load others.",
)
app.command("broker.cli.dry_run:dry_run", name="dry-run", help_epilogue=_DRY_RUN, help=_DRY)
app.command(policy_files.check, help_epilogue=policy_files.CHECK)
app.command(policy_files.run_tests, name="test", help_epilogue=policy_files.TEST)
app.command(policy_files.schema)


@app.command
@watchable
def show(*, connection: Connection = DEFAULT) -> None:
    """Show the policies in force, and those that are only tried out.

    Example: broker policy show
    """
    with connection.client() as broker:
        found = broker.get_policies()
    if connection.json:
        output.model(found)
        return
    output.rows(
        ("policy", "effect", "file", "asks for", "tried out in"),
        (_row(policy, where) for policy, where in _all(found)),
        empty="There are no policies: everything is denied.",
    )
    output.note(f"digest {found.digest}")
    if found.remote:
        output.note(f"A decision point elsewhere is asked {found.remote} these.")
    if found.problem:
        output.note(f"The policies in their folder can't be used:\n{found.problem}")


def _all(found: Policies) -> Iterable[tuple[Policy, str]]:
    yield from ((policy, "") for policy in found.policies)
    for tried in found.observed:
        yield from ((policy, tried.set) for policy in tried.policies)


def _row(policy: Policy, where: str) -> tuple[str, ...]:
    return policy.policy, policy.effect, policy.file, duties(policy.obligations), where


def duties(obligations: Mapping[str, Any]) -> str:
    """Write obligations in a few words."""
    asked = dict(obligations)
    words: list[str] = []
    if count := asked.get("approvals"):
        words.append(plural(int(count), "approval"))
    if ttl := asked.get("max_ttl_ms"):
        words.append(f"at most {format_duration(int(ttl))}")
    if told := asked.get("notify"):
        words.append(f"telling {', '.join(map(str, told))}")
    return ", ".join([*words, *(_FLAGS[name] for name in asked if name in _FLAGS)])


@app.command(name="reload")
def reload_now(*, connection: Connection = DEFAULT) -> None:
    """Load the policies now: all or none. What they don't allow any more is revoked.

    Example: broker policy reload
    """
    with connection.client() as broker:
        done = broker.reload_policies()
    if connection.json:
        output.model(done)
        return
    output.line(f"{done.digest}: {'other policies' if done.changed else 'the same policies'}")
    if done.grants.revoked or done.grants.revoking:
        output.line(f"{done.grants.revoked} revoked, {done.grants.revoking} being revoked")
    unsettled.tell(done.grants)


@app.command(name="who-can", help_epilogue=_WHO)
def who_can(
    capability: Annotated[
        str, Parameter(help="A capability's or a tool's name.", metavar="CAPABILITY")
    ],
    /,
    *,
    config: Annotated[
        Path | None,
        Parameter(
            help="Ask this configuration and its policies, and no broker.",
            name=["--config", "-c"],
            metavar="FILE",
        ),
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Say which agents could have a capability, or call a tool, in a plain task."""
    if config is not None:
        found = [who.as_json() for who in policy_files.who_can_offline(capability, config)]
    else:
        from broker.client.decoding import encode

        with connection.client() as broker:
            found = [encode(who) for who in broker.who_can(capability).items]
    if connection.json:
        output.document({"capability": capability, "items": found})
        return
    output.rows(
        ("agent", "effect", "because", "asks for", "depends on the call"),
        (
            (
                str(who["agent"]),
                str(who["effect"]),
                ", ".join(who["policies"] or who["reasons"]),
                duties(who["obligations"]),
                ", ".join(who["depends_on_arguments"]),
            )
            for who in found
        ),
        empty="There are no agents.",
    )


@app.command
def explain(
    decision: Annotated[str, Parameter(help="The decision's id.", metavar="DECISION")],
    /,
    *,
    connection: Connection = DEFAULT,
) -> None:
    """Say why a decision is what it is, and what would change it.

    Example: broker policy explain dec_…
    """
    with connection.client() as broker:
        found = broker.explain_decision(decision)
    if connection.json:
        output.model(found)
        return
    output.record(_head(found))
    if found.explanation is None:
        output.note("No policy was asked: the catalogue alone decides this.")
    else:
        tell(found.explanation)


def tell(explanation: Mapping[str, Any]) -> None:
    """Print why something is decided so, and what would change it."""
    for title, lines in _parts(explanation):
        if lines:
            output.line(title)
            for line in lines:
                output.line(f"  {line}")


def _head(found: ExplainedDecision) -> Mapping[str, str | None]:
    question: Mapping[str, Any] = found.question or {}
    resource: Mapping[str, Any] = question.get("resource", {})
    return {
        "decision": found.decision_id,
        "effect": str(found.said.get("effect", "")),
        "reasons": str(found.said.get("reasons", "")),
        "time": when(found.time, SystemClock().now()),
        "task": found.task_id,
        "asked by": found.principal,
        "action": question.get("action"),
        "of": f"{resource['type']} {resource['id']}" if resource else None,
    }


def _parts(explanation: Mapping[str, Any]) -> Iterable[tuple[str, list[str]]]:
    yield "Decided by:", [_decided(policy) for policy in explanation["decided_by"]]
    yield (
        "Came near:",
        [
            f"{near['policy']} ({near['file']}) "
            + (f"lacks {' and '.join(near['missing'])}" if near["missing"] else "applies, in vain")
            for near in explanation["near"]
        ],
    )
    yield (
        "Would be otherwise:",
        [f"{change['text']}: {change['effect']}" for change in explanation["would_change_it"]],
    )
    left_out = explanation["left_out"]
    more = [f"not asked, they look at the call's arguments: {', '.join(left_out)}"]
    yield "Note:", [*(more if left_out else []), *explanation["notes"]]


def _decided(policy: Mapping[str, Any]) -> str:
    asked = duties(policy["obligations"])
    verb = "forbids" if policy["effect"] == "forbid" else "permits"
    text = f"{policy['policy']} ({policy['file']}) {verb}"
    text += f", asking for {asked}" if asked else ""
    return text + (f": {policy['advice']}" if policy["advice"] else "")
