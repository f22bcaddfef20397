"""What one decision costs by itself, by the default policies and more and more others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from broker.catalog import Capability, Power, Principal
from broker.dev.bench.decisions import TOOL, URL
from broker.dev.bench.figures import percentile
from broker.dev.bench.stand import clock
from broker.identity.models import Role
from broker.policy.cedar import Source
from broker.policy.decision import Decision, Effect
from broker.policy.folder import default_sources
from broker.policy.policies import Policies, Sources
from broker.policy.question import Moment, Use, using
from broker.power import PRIVATE
from broker.tasks import Task, TaskState
from broker.trail import Step, Survey

if TYPE_CHECKING:
    from broker.policy.question import Question

COUNTS: Final = (10, 100, 1000)
_ROUNDS: Final = 300


def alone(policies: int) -> tuple[float, float]:
    """Return the p50 and p99, in ms, of one decision by the default policies and so many more."""
    more = "".join(
        f'@id("p{i}") forbid (principal, action in Action::"call_tool", resource) when '
        f'{{ context.chain.effects.contains("x:y{i}") && context.risk > 5 }};\n'
        for i in range(policies)
    )
    tool = Capability(TOOL, Power.READ, "tool", 1, 1, arguments={"url": ("string", False)})
    sources = Sources((*default_sources(), Source("more.cedar", more)))
    engine = Policies(lambda: sources, [tool])
    asked = _question(tool)
    took: list[float] = []
    for _ in range(_ROUNDS):
        begun = clock.monotonic()
        decision = asyncio.run(engine.decide(asked, Decision(Effect.ALLOW, ("catalogue",))))
        took.append((clock.monotonic() - begun) * 1000)
        if not decision.allowed:
            raise RuntimeError(f"it was refused: {decision.reasons}")
    return percentile(took, 50), percentile(took, 99)


def _question(tool: Capability) -> Question:
    agent = Principal(
        name="agent", role=Role.AGENT, owner="o", capabilities=frozenset((tool.name,))
    )
    now = int(clock.now() * 1000)
    task: dict[str, Any] = dict.fromkeys(
        ("owner", "created_by", "orchestrator", "subject", "purpose"), "o"
    )
    held = Task(
        id="tsk_1",
        state=TaskState.ACTIVE,
        agent=agent.name,
        capabilities=(tool.name,),
        parent_id="",
        root_id="tsk_1",
        actors=(agent.name,),
        depth=0,
        created_at=now,
        expires_at=now + 600_000,
        **task,
    )
    moment = Moment(
        now_ms=now, environment="production", method="jwt", bound=False, private=PRIVATE
    )
    use = Use(caller=str(Role.AGENT), arguments={"url": URL})
    step = Step(frozenset(("ingests:untrusted",)), "public")
    return using(agent, tool, held, Survey("0.0", tasks=1), step, use, moment)
