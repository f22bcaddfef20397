"""What the caller is, and what it may ask for under a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.client.building import one, page, path_to
from broker.client.messages import Conversation, get

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from broker.client.messages import Call, PageCall

_mapping = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoAmI:
    """Who the broker takes the caller for. ``capabilities`` is None for all that its task has.

    By a ``sealed`` token no credential is seen. ``presented_to`` is the resource server that acts
    by a token which the agent has presented to it.
    """

    principal: str
    role: str
    owner: str = ""
    task_id: str | None = None
    capabilities: tuple[str, ...] | None = None
    sealed: bool = False
    presented_to: str | None = None
    expires_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A capability of a task: a ``credential`` to ask for, or a ``tool`` to ask about.

    ``arguments`` are a tool's by name, each with its type; ``?`` at its end: may be left out.
    """

    name: str
    kind: str
    power: str = ""
    data_class: str = ""
    effects: tuple[str, ...] = ()
    ttl: str | None = None
    max_ttl: str | None = None
    model_may_see: bool = False
    tool: str | None = None
    arguments: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


def whoami() -> Call[WhoAmI]:
    """Read who the broker takes the caller for, and by which token."""
    return one(WhoAmI, get("/v1/whoami"))


def get_issuer() -> Conversation[str]:
    """Read the broker's issuer URL: the ``iss`` of its tokens, below which its console is."""
    return Conversation(lambda session: session.issuer())


def list_capabilities(task_id: str) -> PageCall[Offer]:
    """Read what may be asked for under a task; all on one page."""
    return page(Offer, path_to("/v1/tasks", task_id, "capabilities"), {})
