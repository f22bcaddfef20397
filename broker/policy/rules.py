"""The rules of the catalogue: allow-lists, owners, power, lifetimes. Deny by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.catalog import Power, Revocability
from broker.delegation import Scope, widens
from broker.durations import format_duration
from broker.identity.models import Role
from broker.policy.decision import Decision, Effect, IssueContext, OpenContext

if TYPE_CHECKING:
    from broker.catalog import Principal


def decide_open(context: OpenContext) -> Decision:  # noqa: PLR0911  one return a rule
    """Say whether a task may be opened, and for how long."""
    agent = context.agent
    if context.caller.role not in (Role.ORCHESTRATOR, Role.AGENT):
        return _deny("caller_may_not_open_tasks")
    if context.caller.role is Role.AGENT and context.parent is None:
        return _deny("agent_needs_parent_task")
    if not _is_living_agent(agent):
        return _deny("unknown_agent")
    assert agent is not None  # noqa: S101  for the type checker: _is_living_agent has looked
    if any(c is None or c.name not in agent.capabilities for c in context.capabilities):
        return _deny("capability_not_allowed")
    names = frozenset(c.name for c in context.capabilities if c is not None)
    if context.narrowed_to is not None and not names <= context.narrowed_to:
        return _deny("more_than_token")
    ttl_ms, notes = _clamp(context.ttl_ms, context.max_ttl_ms, "the longest a task may run")
    if context.parent is not None:
        if context.parent.depth + 1 > context.max_depth:
            return _deny("chain_too_deep")
        if agent.name in context.parent.actors:
            return _deny("chain_has_a_cycle")
        parent = Scope(frozenset(context.parent.capabilities), context.parent.expires_at)
        if widens(parent, names):
            return _deny("more_than_parent")
    return Decision(Effect.ALLOW, ("catalogue",), ttl_ms, notes)


def decide_issue(context: IssueContext) -> Decision:  # noqa: C901, PLR0911  one return a rule
    """Say whether a credential may be issued, and for how long."""
    capability = context.capability
    agent = context.agent
    if context.caller.role not in (Role.ORCHESTRATOR, Role.AGENT):
        return _deny("caller_may_not_request")
    if not _is_living_agent(agent):
        return _deny("agent_not_registered")
    assert agent is not None  # noqa: S101  for the type checker: _is_living_agent has looked
    if (
        capability is None
        or capability.name not in context.task.capabilities
        or capability.name not in agent.capabilities
    ):
        return _deny("capability_not_allowed")
    if context.narrowed_to is not None and capability.name not in context.narrowed_to:
        return _deny("token_is_narrower")
    if capability.require_binding and not context.bound:
        return _deny("binding_required")
    if capability.power is not Power.READ and capability.revocability is Revocability.TTL_ONLY:
        return _deny("not_revocable")
    if context.backlog >= context.backlog_limit:
        return _deny("backend_backlog")
    if capability.power is Power.PRIVILEGED:
        if not context.ledger_durable:
            return _deny("ledger_not_durable")
        return Decision(Effect.NEEDS_APPROVAL, ("power_privileged",))
    asked = context.asked_ttl_ms or capability.ttl_ms
    ttl_ms, notes = _clamp(asked, capability.max_ttl_ms, f"the most {capability.name} allows")
    if agent.max_ttl_ms:
        ttl_ms, more = _clamp(ttl_ms, agent.max_ttl_ms, f"the most {agent.name} may hold")
        notes += more
    left = context.task.expires_at - context.now_ms
    # Without a wish of the caller's there is nothing to tell about the task ending sooner.
    ttl_ms, more = _clamp(ttl_ms, left, "what is left of the task")
    notes += more if context.asked_ttl_ms else ()
    if ttl_ms <= 0:
        return _deny("task_over")
    return Decision(Effect.ALLOW, ("catalogue",), ttl_ms, notes)


def _is_living_agent(agent: Principal | None) -> bool:
    return agent is not None and agent.role is Role.AGENT and bool(agent.owner)


def _clamp(asked: int, most: int, why: str) -> tuple[int, tuple[str, ...]]:
    if asked <= most:
        return asked, ()
    return most, (f"ttl shortened to {format_duration(max(most, 0) // 1000 * 1000)}: {why}",)


def _deny(reason: str) -> Decision:
    return Decision(Effect.DENY, (reason,))
