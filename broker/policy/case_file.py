"""How cases are written: ``*.cases.toml`` beside policies, one table a case.

::

    # Policies that only the cases of this file add; leave it out to test those in force.
    policies = '''permit (principal == Principal::"bot", …);'''

    [[cases]]
    rule = "power-privileged-approval"
    name = "what is privileged waits for a human"
    capability = { power = "privileged" }
    expect = "needs_approval"
    decided_by = ["privileged-by-approval"]

Whatever a case doesn't say is harmless: an agent with a task that may have just what it asks for,
nothing done so far, no risk, a plain token. With a configuration at hand, an agent, a capability or
a tool may be named as it is there.
"""

from __future__ import annotations

import difflib
import tomllib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
)

from broker.catalog import Power
from broker.durations import parse_duration
from broker.errors import ConfigError
from broker.identity.models import Role
from broker.policy.decision import Effect, Obligations
from broker.policy.question import Action
from broker.policy.schema import ARGUMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from broker.policy.cedar import Source

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Strict(strict=False)]
Loose = Strict(strict=False)
NOON: Final = datetime(2026, 1, 7, 12, 0, tzinfo=UTC)
"""When cases happen unless they say: on a Wednesday."""


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


DurationMs = Annotated[int, BeforeValidator(_duration)]


ArgumentType = Annotated[str, Field(pattern=rf"^({'|'.join(ARGUMENT_TYPES)})\??$")]


class Table(BaseModel):
    """A table of the file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Grantable(Table):
    """A capability or a tool."""

    name: str = "thing"
    power: Annotated[Power, Loose] = Power.READ
    backend: str = "vault"
    data_class: str = "internal"
    effects: Many[str] = ()
    instant: bool = True
    arguments: dict[str, ArgumentType] = Field(default_factory=dict[str, str])
    amount: str = ""


class Person(Table):
    """A principal. Its allow-list is what the case is about, unless said otherwise."""

    name: str = ""
    role: Annotated[Role, Loose] | None = None
    owner: str = "team@example.com"
    capabilities: Many[str] | None = None


class Done(Table):
    """What was done: by the task itself, or by the rest of its chain."""

    effects: Many[str] = ()
    data_classes: Many[str] = ()
    ways: Many[str] = ()
    grants: int = 0
    calls: int = 0
    amount: int | float = 0
    power: Annotated[Power, Loose] = Power.READ


class TaskOf(Table):
    """The task. It may have what the case asks for, unless said otherwise."""

    purpose: str = "a case"
    capabilities: Many[str] | None = None
    on_behalf_of: str = "orchestrator"
    age: DurationMs = 60_000
    left: DurationMs = 3_600_000
    depth: int = 0
    heartbeat: bool = False


class Parent(Table):
    """The task above the one that is to be opened; it has all that is asked for, unless said."""

    agent: str = "parent"
    purpose: str = "the task above"
    capabilities: Many[str] | None = None
    agents: Many[str] = ()
    depth: int = 0


class Asked(Table):
    """A human yes that is asked for: by whom, for what."""

    requester: str = "agent"
    agent: str = "agent"
    owner: str = "team@example.com"
    orchestrator: str = "orchestrator"
    subject: str = "orchestrator"
    action: str = "issue_grant"
    capability: str = "thing"
    power: Annotated[Power, Loose] = Power.PRIVILEGED


class Proof(Table):
    """How the caller proved itself."""

    bound: bool = False
    method: str = "jwt"


class Duties(Table):
    """The obligations of a decision, all of them."""

    approvals: int = 0
    approvers: dict[str, int] = Field(default_factory=dict[str, int])
    max_ttl: DurationMs = 0
    notify: Many[str] = ()
    require_binding: bool = False
    require_instant: bool = False
    log_arguments: bool = False
    keep_budget: bool = False

    def obligations(self) -> Obligations:
        """Return them as policies state them."""
        return Obligations(
            approvals=self.approvals,
            approvers=tuple(sorted(self.approvers.items())),
            max_ttl_ms=self.max_ttl,
            notify=frozenset(self.notify),
            require_binding=self.require_binding,
            require_instant=self.require_instant,
            log_arguments=self.log_arguments,
            keep_budget=self.keep_budget,
        )


class Case(Table):
    """One request, and what is to be said of it."""

    rule: str
    name: str
    expect: Annotated[Effect, Loose]
    reason: str | None = None
    decided_by: Many[str] | None = None
    obligations: Duties | None = None

    action: Annotated[Action, Loose] | None = None
    agent: str | Person = Person()
    caller: str | Person | None = None
    capability: str | Grantable | None = None
    tool: str | Grantable | None = None
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])
    destination: str = ""
    intent: str = ""
    ttl: DurationMs = 300_000
    task: TaskOf = TaskOf()
    trail: Done = Done()
    chain: Done = Done()
    asks: Many[str | Grantable] = ()
    parent: Parent | None = None
    approval: Asked = Asked()
    operation: str = "revoke"
    selector: str = ""

    proof: Proof = Proof()
    approvals: int = 0
    approvers: dict[str, int] | None = None
    elevated: bool = False
    risk: int = 0
    verdict: Literal["clean", "suspicious", "compromised"] = "clean"
    environment: str = "production"
    durable: bool = True
    at: AwareDatetime = NOON


class CaseFile(Table):
    """A file of cases, and the policies that only they are to meet."""

    policies: str = ""
    cases: Many[Case] = ()
    name: str = ""


def read_cases(sources: Sequence[Source]) -> tuple[CaseFile, ...]:
    """Read files of cases.

    Raises:
        ConfigError: with everything that is wrong with them.
    """
    found: list[CaseFile] = []
    faults: list[str] = []
    for source in sources:
        try:
            read = CaseFile.model_validate(tomllib.loads(source.text))
        except ValidationError as error:
            faults += [f"{source.name}: {_said(detail)}" for detail in error.errors()]
        except (ValueError, RecursionError) as error:
            faults.append(f"{source.name}: not valid TOML: {error}")
        else:
            found.append(read.model_copy(update={"name": source.name}))
    if faults:
        raise ConfigError("\n".join(faults))
    return tuple(found)


def _said(detail: ErrorDetails) -> str:
    place, model = "", CaseFile
    for part in detail["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not part.startswith(("function-", "lax-or-strict")) and part not in _UNION:
            place += f".{part}" if place else part
    if detail["type"] != "extra_forbidden":
        return f"{place}: {detail['msg']}"
    known = _fields(model, [part for part in detail["loc"][:-1] if isinstance(part, str)])
    close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"there are: {', '.join(known)}"
    return f"{place}: unknown key\n    {hint}"


_UNION: Final = ("str", "Person", "Grantable")
_TABLES: Final[dict[str, type[Table]]] = {
    "cases": Case,
    "agent": Person,
    "caller": Person,
    "capability": Grantable,
    "tool": Grantable,
    "asks": Grantable,
    "task": TaskOf,
    "trail": Done,
    "chain": Done,
    "parent": Parent,
    "approval": Asked,
    "proof": Proof,
    "obligations": Duties,
}


def _fields(model: type[Table], way: Sequence[str]) -> list[str]:
    for part in way:
        model = _TABLES.get(part, model)
    return list(model.model_fields)
