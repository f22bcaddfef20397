"""Cases: requests with the answer they must get, put to the policies as real questions.

The rules of the catalogue, which come before any policy, are left out: a case shows what policies
say of a request that they were asked about. An error is never what was expected, also where a deny
was: it would be one for the wrong reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.errors import ConfigError
from broker.policy.arguments import BadArgument
from broker.policy.case_request import CaseRequest, NoRequestError
from broker.policy.cedar import CedarPolicies, Schema, Source
from broker.policy.decision import Decision, Effect, deny
from broker.policy.policies import POLICY_ERROR, conclude
from broker.power import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.catalog import Capability, Catalog
    from broker.policy.case_file import Case, CaseFile


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case; ``problems`` say how the answer differs from the one expected."""

    file: str
    case: Case
    decision: Decision
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the answer was the one expected."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "file": self.file,
            "rule": self.case.rule,
            "name": self.case.name,
            "passed": self.passed,
            "expected": self.case.expect,
            "effect": self.decision.effect,
            "reasons": list(self.decision.reasons),
            "policies": list(self.decision.policies),
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Results:
    """What became of all cases, and which policies decided none of them."""

    results: tuple[Result, ...]
    undecided: tuple[str, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """Those whose answer was not the one expected."""
        return tuple(result for result in self.results if not result.passed)


def run_cases(
    files: Sequence[CaseFile],
    sources: Sequence[Source],
    catalog: Catalog | None = None,
    private: frozenset[str] = PRIVATE,
) -> Results:
    """Put all cases to some policies; ``catalog`` is what names in them mean, if there is one.

    Raises:
        ConfigError: a case can't be a request, or policies can't be used.
    """
    bench = _Bench(catalog, private)
    results: list[Result] = []
    faults: list[str] = []
    decided: set[str] = set()
    for file in files:
        own = (Source(f"{file.name}: policies", file.policies),) if file.policies else ()
        policies = [*sources, *own]
        for case in file.cases:
            try:
                result = bench.result(file.name, case, policies)
            except NoRequestError as error:
                faults.append(f"{file.name}: {case.name}: {error}")
            else:
                decided |= set(result.decision.policies)
                results.append(result)
    if faults:
        raise ConfigError("\n".join(faults))
    tools = list(catalog.tools.values()) if catalog else []
    known = CedarPolicies(sources, Schema(tools)).facts.values()
    undecided = tuple(fact.name for fact in known if fact.name not in decided)
    return Results(tuple(results), undecided)


@dataclass(slots=True)
class _Bench:
    """Policies that were parsed already, by their sources and the tools they are used with."""

    catalog: Catalog | None
    private: frozenset[str]
    parsed: dict[object, CedarPolicies] = field(default_factory=dict[object, CedarPolicies])

    def result(self, file: str, case: Case, sources: Sequence[Source]) -> Result:
        decision = self._decided(case, sources)
        problems = [
            f"{what}: {wanted}, but it is {found}"
            for what, wanted, found in _expectations(case, decision)
            if wanted != found
        ]
        if POLICY_ERROR in decision.reasons:
            problems = [f"an error: {error}" for error in decision.advice] or ["an error"]
        return Result(file, case, decision, tuple(problems))

    def _decided(self, case: Case, sources: Sequence[Source]) -> Decision:
        request = CaseRequest(case, self.catalog, self.private)
        try:
            question = request.question()
        except BadArgument as error:
            return deny(error.reason)
        verdict = self._policies(sources, request.used).ask(question)
        floor = Decision(Effect.ALLOW, ("catalogue",), case.ttl)
        if verdict.errors:
            return Decision(Effect.DENY, (POLICY_ERROR,), advice=verdict.errors)
        return conclude(question, floor, verdict)

    def _policies(self, sources: Sequence[Source], used: Capability | None) -> CedarPolicies:
        tools = {tool.name: tool for tool in (self.catalog.tools.values() if self.catalog else ())}
        if used is not None and used.is_tool:
            tools[used.name] = used
        schema = Schema(tools.values())
        key = (schema.text, *sources)
        if key not in self.parsed:
            self.parsed[key] = CedarPolicies(sources, schema)
        return self.parsed[key]


def _expectations(case: Case, decision: Decision) -> Iterable[tuple[str, object, object]]:
    yield "effect", str(case.expect), str(decision.effect)
    if case.reason is not None:
        yield "reason", case.reason, ",".join(decision.reasons)
    if case.decided_by is not None:
        yield "decided by", sorted(case.decided_by), sorted(decision.policies)
    if case.obligations is not None:
        wanted = case.obligations.obligations()
        yield "obligations", wanted.as_json(), decision.obligations.as_json()
