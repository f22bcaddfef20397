"""What asks "what if": of a revocation, and of what policy would say."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from broker.wire import (  # noqa: TC001  pydantic reads the annotations below
    Duration,
    Selector,
    SmallObject,
    Text,
)
from broker.wire_parts import EffectLabel, Name, Request


class PreviewRevocation(Request):
    """``POST /v1/revocations/preview``."""

    selector: Selector


class DryRun(Request):
    """``POST /v1/policy/dry-run``: a credential or a tool call, of a task or of an agent.

    ``capability`` is a capability's name or a tool's. With ``task_id`` its own agent asks, as
    things stand now; with ``agent`` alone it does in a plain task for just that.
    """

    capability: Annotated[str, Field(min_length=1, max_length=64)]
    task_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    agent: Name | None = None
    ttl: Duration | None = None
    parameters: SmallObject | None = None
    arguments: SmallObject | None = None
    destination: Annotated[str, Field(max_length=2048)] | None = None
    effects: Annotated[list[EffectLabel], Field(max_length=20, default_factory=list[str])]
    intent: Text | None = None

    @model_validator(mode="after")
    def _of_one(self) -> Self:
        if (self.task_id is None) == (self.agent is None):
            msg = "must name a task_id or an agent, and not both"
            raise ValueError(msg)
        return self
