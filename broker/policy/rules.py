"""The rules of the catalogue: allow-lists, owners, lifetimes, what a token is narrowed to.

They come before any policy, and no policy widens them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from broker.delegation import Scope, outside, widens
from broker.durations import format_duration
from broker.identity.models import Role
from broker.policy.decision import Decision, Effect, deny

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.catalog import Capability, Principal
    from broker.tasks import Task


@dataclass(frozen=True, slots=True)
class OpenContext:
    """A task somebody wants to open. ``agent`` is None when there is no such agent.

    ``narrowed_to`` is what the caller's token is limited to, None for all that it could have.
    ``limits`` are those that are asked for, as ``Scope.read`` takes them. ``cycles`` lets an agent
    be in a chain more than once.
    """

    caller: Principal
    agent: Principal | None
    capabilities: tuple[Capability | None, ...]
    ttl_ms: int
    max_ttl_ms: int
    parent: Task | None
    max_depth: int
    narrowed_to: frozenset[str] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cycles: bool = False


@dataclass(frozen=True, slots=True)
class UseContext:
    """Something of the catalogue somebody wants to have or to call, under a task.

    ``capability`` is None when the catalogue has none of that name. ``bound`` says that the
    caller's token is bound to a key it proved, ``narrowed_to`` what the token is limited to, None
    for all of the task's.
    ``elevated`` is the capability that an elevation gives the task for now.
    ``asked_ttl_ms`` is 0 when the caller left it to the catalogue; ``now_ms`` is epoch
    milliseconds; ``backlog`` is how many credentials of the capability could not be revoked within
    their budget. ``effects`` are those that the request itself adds, ``given`` its parameters or
    arguments; ``short_of`` is the kind of budget that has too little left for it.
    """

    caller: Principal
    agent: Principal | None
    task: Task
    capability: Capability | None
    asked_ttl_ms: int
    now_ms: int
    backlog: int = 0
    backlog_limit: int = 1
    bound: bool = False
    narrowed_to: frozenset[str] | None = None
    elevated: str = ""
    effects: frozenset[str] = frozenset()
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    short_of: str = ""


def decide_open(context: OpenContext) -> Decision:  # noqa: PLR0911  one return a rule
    """Say whether a task may be opened, and for how long."""
    agent = context.agent
    if context.caller.role not in (Role.ORCHESTRATOR, Role.AGENT):
        return deny("caller_may_not_open_tasks")
    if context.caller.role is Role.AGENT and context.parent is None:
        return deny("agent_needs_parent_task")
    if not _is_living_agent(agent):
        return deny("unknown_agent")
    assert agent is not None  # noqa: S101  for the type checker: _is_living_agent has looked
    if any(c is None or c.name not in agent.capabilities for c in context.capabilities):
        return deny("capability_not_allowed")
    names = frozenset(c.name for c in context.capabilities if c is not None)
    if context.narrowed_to is not None and not names <= context.narrowed_to:
        return deny("more_than_token")
    ttl_ms, notes = clamp(context.ttl_ms, context.max_ttl_ms, "the longest a task may run")
    if context.parent is not None:
        refused = _not_below(context, context.parent, agent, names)
        if refused is not None:
            return refused
    return Decision(Effect.ALLOW, ("catalogue",), ttl_ms, notes)


def _not_below(
    context: OpenContext, parent: Task, agent: Principal, names: frozenset[str]
) -> Decision | None:
    """Refuse a child that is too deep, makes a circle, isn't named, or has more than its parent."""
    if parent.depth + 1 > context.max_depth:
        return deny("chain_too_deep")
    if agent.name in parent.actors and not context.cycles:
        return deny("chain_has_a_cycle")
    above = Scope.of(parent)
    may_act = (above.may_act, context.caller.delegates_to)
    if any(named is not None and agent.name not in named for named in may_act):
        return deny("delegate_not_named")
    part = widens(above, Scope.read(names, parent.expires_at, context.limits))
    return replace(deny("more_than_parent"), notes=(part,)) if part else None


def decide_issue(context: UseContext) -> Decision:
    """Say whether a credential may be issued, and for how long."""
    if context.caller.role not in (Role.ORCHESTRATOR, Role.AGENT):
        return deny("caller_may_not_request")
    refused = _not_usable(context)
    if refused is not None:
        return refused
    capability, agent = context.capability, context.agent
    assert capability is not None  # noqa: S101  for the type checker: _not_usable has looked
    assert agent is not None  # noqa: S101  as above
    if capability.is_tool:
        return deny("is_a_tool")
    if context.backlog >= context.backlog_limit:
        return deny("backend_backlog")
    asked = context.asked_ttl_ms or capability.ttl_ms
    ttl_ms, notes = clamp(asked, capability.max_ttl_ms, f"the most {capability.name} allows")
    if agent.max_ttl_ms:
        ttl_ms, more = clamp(ttl_ms, agent.max_ttl_ms, f"the most {agent.name} may hold")
        notes += more
    left = context.task.expires_at - context.now_ms
    # Without a wish of the caller's there is nothing to tell about the task ending sooner.
    ttl_ms, more = clamp(ttl_ms, left, "what is left of the task")
    notes += more if context.asked_ttl_ms else ()
    if ttl_ms <= 0:
        return deny("task_over")
    return Decision(Effect.ALLOW, ("catalogue",), ttl_ms, notes)


def decide_elevate(  # noqa: PLR0911  one return a rule
    context: UseContext, parent: Task | None, longest_ms: int
) -> Decision:
    """Say whether a task may be elevated to a capability, and for how long."""
    capability, agent, task = context.capability, context.agent, context.task
    if not _is_living_agent(agent):
        return deny("agent_not_registered")
    assert agent is not None  # noqa: S101  for the type checker: _is_living_agent has looked
    if capability is None or capability.name not in agent.capabilities:
        return deny("capability_not_allowed")
    if parent is not None and capability.name not in parent.capabilities:
        # What the parent has by an elevation of its own isn't handed on either.
        return deny("more_than_parent")
    if context.narrowed_to is not None:  # it was made for less than the task has already
        return deny("token_is_narrower")
    if capability.require_binding and not context.bound:
        return deny("binding_required")
    if context.backlog >= context.backlog_limit:
        return deny("backend_backlog")
    ttl_ms, notes = clamp(context.asked_ttl_ms, longest_ms, "the longest an elevation may last")
    ttl_ms, more = clamp(ttl_ms, task.expires_at - context.now_ms, "what is left of the task")
    if ttl_ms <= 0:
        return deny("task_over")
    return Decision(Effect.ALLOW, ("catalogue",), ttl_ms, notes + more)


def decide_call(context: UseContext) -> Decision:
    """Say whether a tool may be called at all: its arguments are for policy."""
    if context.caller.role not in (Role.ORCHESTRATOR, Role.AGENT, Role.RESOURCE_SERVER):
        return deny("caller_may_not_ask")
    refused = _not_usable(context)
    if refused is not None:
        return refused
    if context.capability is None or not context.capability.is_tool:
        return deny("not_a_tool")
    if context.task.expires_at <= context.now_ms:
        return deny("task_over")
    return Decision(Effect.ALLOW, ("catalogue",))


def _not_usable(context: UseContext) -> Decision | None:
    """Refuse what isn't the task's, its agent's, or within the caller's token."""
    capability = context.capability
    agent = context.agent
    if not _is_living_agent(agent):
        return deny("agent_not_registered")
    assert agent is not None  # noqa: S101  for the type checker: _is_living_agent has looked
    if (
        capability is None
        or capability.name not in (*context.task.capabilities, context.elevated)
        or capability.name not in agent.capabilities
    ):
        return deny("capability_not_allowed")
    if context.narrowed_to is not None and capability.name not in context.narrowed_to:
        return deny("token_is_narrower")
    if capability.require_binding and not context.bound:
        return deny("binding_required")
    return _beyond_limits(context, capability)


def _beyond_limits(context: UseContext, capability: Capability) -> Decision | None:
    """Refuse what the task's own limits, or the budget it draws on, don't leave room for."""
    why = outside(Scope.of(context.task), capability, context.effects, context.given)
    if why:
        return deny(why)
    if context.short_of:
        return replace(deny("budget_exhausted"), notes=(f"budget {context.short_of}",))
    return None


def _is_living_agent(agent: Principal | None) -> bool:
    return agent is not None and agent.role is Role.AGENT and bool(agent.owner)


def clamp(asked: int, most: int, why: str) -> tuple[int, tuple[str, ...]]:
    """Return the shorter of two lifetimes in milliseconds, with a note if it isn't the first."""
    if asked <= most:
        return asked, ()
    return most, (f"ttl shortened to {format_duration(max(most, 0) // 1000 * 1000)}: {why}",)
