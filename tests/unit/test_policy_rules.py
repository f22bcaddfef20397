"""The rules of the catalogue: nothing is allowed unless every rule lets it through.

What power asks for is policy's: see ``test_policy_cases.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog import Capability, Power, Principal
from broker.errors import AccessDenied, BackendUnavailable, BindingRequired, InvalidRequest
from broker.identity.models import Role
from broker.policy import (
    Decision,
    Effect,
    OpenContext,
    UseContext,
    decide_call,
    decide_issue,
    decide_open,
)
from broker.policy.decision import deny
from broker.refusals import refusal
from broker.rulings import Ruling
from broker.tasks import Task, TaskState
from broker.trail import Step, Survey

MINUTE: Final = 60_000
NOW: Final = 1_800_000_000_000

READ: Final = Capability("orders-read", Power.READ, "vault", 5 * MINUTE, 15 * MINUTE)
OTHER: Final = replace(READ, name="orders-write", power=Power.OPERATE)
ADMIN: Final = replace(READ, name="orders-admin", power=Power.PRIVILEGED)
TOOL: Final = Capability("send", Power.OPERATE, "tool", 5 * MINUTE, 15 * MINUTE)
NAMES: Final = (READ.name, ADMIN.name, TOOL.name)
AGENT: Final = Principal(name="a", role=Role.AGENT, owner="o", capabilities=frozenset(NAMES))
ORCHESTRATOR: Final = Principal(name="boss", role=Role.ORCHESTRATOR, owner="o")
PARENT: Final = Task(
    id="tsk_1",
    state=TaskState.ACTIVE,
    agent="p",
    owner="o",
    created_by="boss",
    orchestrator="boss",
    subject="boss",
    purpose="",
    capabilities=NAMES,
    parent_id="",
    root_id="tsk_1",
    actors=("p",),
    depth=0,
    created_at=NOW,
    expires_at=NOW + 60 * MINUTE,
)
OPEN: Final = OpenContext(ORCHESTRATOR, AGENT, (READ,), 10 * MINUTE, 30 * MINUTE, None, 2)
ISSUE: Final = UseContext(AGENT, AGENT, PARENT, READ, 0, NOW, backlog_limit=50)
CALL: Final = UseContext(AGENT, AGENT, PARENT, TOOL, 0, NOW)
MAY_ASK: Final = (Role.ORCHESTRATOR, Role.AGENT)


def opened(**changes: Any) -> Decision:
    return decide_open(replace(OPEN, **changes))


def issued(**changes: Any) -> Decision:
    return decide_issue(replace(ISSUE, **changes))


def called(**changes: Any) -> Decision:
    return decide_call(replace(CALL, **changes))


def test_what_the_catalogue_allows_is_allowed() -> None:
    assert opened() == Decision(Effect.ALLOW, ("catalogue",), 10 * MINUTE)
    assert opened(caller=AGENT, parent=PARENT).effect is Effect.ALLOW
    assert issued() == Decision(Effect.ALLOW, ("catalogue",), READ.ttl_ms)
    assert issued(caller=ORCHESTRATOR).effect is Effect.ALLOW
    assert issued(capability=ADMIN).effect is Effect.ALLOW, "what power asks for is for policy"
    assert called() == Decision(Effect.ALLOW, ("catalogue",))


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("caller_may_not_open_tasks", {"caller": replace(AGENT, role=Role.OPERATOR)}),
        ("caller_may_not_open_tasks", {"caller": replace(AGENT, role=Role.AUDITOR)}),
        ("caller_may_not_open_tasks", {"caller": replace(AGENT, role=Role.RESOURCE_SERVER)}),
        ("agent_needs_parent_task", {"caller": AGENT}),
        ("unknown_agent", {"agent": None}),
        ("unknown_agent", {"agent": ORCHESTRATOR}),
        ("unknown_agent", {"agent": replace(AGENT, owner="")}),
        ("capability_not_allowed", {"capabilities": (None,)}),
        ("capability_not_allowed", {"capabilities": (READ, None)}),
        ("capability_not_allowed", {"capabilities": (READ, OTHER)}),
        ("chain_too_deep", {"parent": replace(PARENT, depth=2)}),
        ("chain_has_a_cycle", {"parent": replace(PARENT, actors=("p", "a"))}),
        ("more_than_parent", {"parent": replace(PARENT, capabilities=(ADMIN.name,))}),
        ("more_than_token", {"narrowed_to": frozenset((ADMIN.name,))}),
    ],
)
def test_a_task_is_refused_for_each_reason(reason: str, changes: dict[str, Any]) -> None:
    assert replace(opened(**changes), notes=()) == deny(reason)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("caller_may_not_request", {"caller": replace(AGENT, role=Role.OPERATOR)}),
        ("caller_may_not_request", {"caller": replace(AGENT, role=Role.AUDITOR)}),
        ("caller_may_not_request", {"caller": replace(AGENT, role=Role.RESOURCE_SERVER)}),
        ("agent_not_registered", {"agent": None}),
        ("agent_not_registered", {"agent": ORCHESTRATOR}),
        ("agent_not_registered", {"agent": replace(AGENT, owner="")}),
        ("capability_not_allowed", {"capability": None}),
        ("capability_not_allowed", {"capability": OTHER}),
        ("capability_not_allowed", {"task": replace(PARENT, capabilities=())}),
        ("capability_not_allowed", {"agent": replace(AGENT, capabilities=frozenset())}),
        ("backend_backlog", {"backlog": 50}),
        ("backend_backlog", {"backlog": 51}),
        ("is_a_tool", {"capability": TOOL}),
        ("token_is_narrower", {"narrowed_to": frozenset((ADMIN.name,))}),
        ("binding_required", {"capability": replace(READ, require_binding=True)}),
        ("task_over", {"now_ms": PARENT.expires_at}),
        ("task_over", {"now_ms": PARENT.expires_at + 1}),
    ],
)
def test_a_credential_is_refused_for_each_reason(reason: str, changes: dict[str, Any]) -> None:
    assert issued(**changes) == deny(reason)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("caller_may_not_ask", {"caller": replace(AGENT, role=Role.OPERATOR)}),
        ("caller_may_not_ask", {"caller": replace(AGENT, role=Role.AUDITOR)}),
        ("agent_not_registered", {"agent": None}),
        ("agent_not_registered", {"agent": replace(AGENT, owner="")}),
        ("capability_not_allowed", {"capability": None}),
        ("capability_not_allowed", {"task": replace(PARENT, capabilities=(READ.name,))}),
        ("capability_not_allowed", {"agent": replace(AGENT, capabilities=frozenset())}),
        ("token_is_narrower", {"narrowed_to": frozenset((READ.name,))}),
        ("binding_required", {"capability": replace(TOOL, require_binding=True)}),
        ("not_a_tool", {"capability": READ}),
        ("task_over", {"now_ms": PARENT.expires_at}),
    ],
)
def test_a_call_is_refused_for_each_reason(reason: str, changes: dict[str, Any]) -> None:
    assert called(**changes) == deny(reason)


def test_what_stands_against_it_can_be_removed() -> None:
    bound = replace(READ, require_binding=True)
    assert issued(capability=bound, bound=True).effect is Effect.ALLOW
    assert issued(narrowed_to=frozenset((READ.name,))).effect is Effect.ALLOW
    assert issued(backlog=49).effect is Effect.ALLOW
    assert called(caller=replace(AGENT, role=Role.RESOURCE_SERVER)).effect is Effect.ALLOW
    assert called(capability=replace(TOOL, require_binding=True), bound=True).allowed


def ruled(decision: Decision) -> Ruling:
    """A decision as the pipeline has it."""
    return Ruling("dec_1", decision, {}, Survey(""), Step(frozenset()))


def test_an_unknown_capability_and_one_not_allowed_are_refused_alike() -> None:
    unknown, forbidden = issued(capability=None), issued(capability=OTHER)
    told = [refusal(ruled(decision)) for decision in (unknown, forbidden)]
    assert [type(error) for error in told] == [AccessDenied, AccessDenied]
    assert told[0].detail == told[1].detail
    assert told[0].extra == told[1].extra == {"decision_id": "dec_1"}
    assert not any(name in told[0].detail for name in (*NAMES, OTHER.name, "not_allowed"))


def test_what_the_caller_can_act_on_is_told() -> None:
    unbound = refusal(ruled(issued(capability=replace(READ, require_binding=True))))
    assert isinstance(unbound, BindingRequired)
    assert isinstance(refusal(ruled(issued(capability=TOOL))), InvalidRequest)
    backlog = refusal(ruled(issued(backlog=50)))
    assert isinstance(backlog, BackendUnavailable)
    assert backlog.retry_after


@settings(max_examples=500)
@given(
    asked=st.integers(0, 10**9),
    own=st.integers(0, 10**9),
    left=st.integers(-10, 10**9),
)
def test_a_credential_lives_no_longer_than_anything_allows(asked: int, own: int, left: int) -> None:
    decision = issued(
        asked_ttl_ms=asked,
        agent=replace(AGENT, max_ttl_ms=own),
        task=replace(PARENT, expires_at=NOW + left),
    )
    most = min(asked or READ.ttl_ms, READ.max_ttl_ms, left, *([own] if own else []))
    if left <= 0:
        assert decision == deny("task_over")
    else:
        assert (decision.effect, decision.ttl_ms) == (Effect.ALLOW, most)
        # Without a wish of the caller's, only the agent's own bound is worth telling.
        told = most < asked if asked else 0 < own < READ.ttl_ms
        assert bool(decision.notes) is told


@given(asked=st.integers(1, 10**9))
def test_a_task_runs_no_longer_than_the_longest(asked: int) -> None:
    decision = opened(ttl_ms=asked)
    assert decision.ttl_ms == min(asked, OPEN.max_ttl_ms)
    assert bool(decision.notes) is (asked > OPEN.max_ttl_ms)


ROLES = st.sampled_from(list(Role))
CAPABILITIES = st.sampled_from([None, READ, OTHER, ADMIN, TOOL])


@given(
    role=ROLES,
    agent=st.one_of(st.none(), st.builds(replace, st.just(AGENT), role=ROLES)),
    capability=CAPABILITIES,
    tasks=st.sets(st.sampled_from([READ.name, OTHER.name, ADMIN.name, TOOL.name])),
    backlog=st.integers(0, 99),
)
def test_nothing_is_allowed_that_one_rule_forbids(
    role: Role,
    agent: Principal | None,
    capability: Capability | None,
    tasks: set[str],
    backlog: int,
) -> None:
    decision = issued(
        caller=replace(AGENT, role=role),
        agent=agent,
        capability=capability,
        task=replace(PARENT, capabilities=tuple(tasks)),
        backlog=backlog,
    )
    assert (decision.effect is Effect.ALLOW) is (
        role in MAY_ASK
        and agent is not None
        and agent.role is Role.AGENT
        and capability in (READ, ADMIN)
        and capability.name in tasks
        and backlog < ISSUE.backlog_limit
    )
    assert decision.reasons
    assert (decision.ttl_ms > 0) is (decision.effect is Effect.ALLOW)


def test_the_audit_holds_the_decision_and_what_it_was_about() -> None:
    assert issued(capability=None).for_audit(capability="x") == {
        "effect": "deny",
        "reasons": "capability_not_allowed",
        "capability": "x",
    }
