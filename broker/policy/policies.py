"""The decision: a question put to all who are to be asked, and what follows from their answers.

 1. What the catalogue allows at most        (``rules.py``; no policy widens it)
 2. The enforced policies, and the decision point elsewhere if there is one
 3. Their obligations, of each the strictest
 4. What policies that are only being tried out would have said; it changes nothing

The policies in force are one object that is replaced as a whole: a request is decided by the old
ones or the new ones, never by some of each.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from broker.policy.cedar import CedarPolicies, Schema
from broker.policy.decision import Decision, Effect, Observed, Verdict
from broker.policy.rules import clamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from broker.catalog import Capability
    from broker.policy.cedar import Source
    from broker.policy.question import Question

POLICY_ERROR: Final = "policy_error"
DENIED: Final = "denied_by_policy"
NOT_ALLOWED: Final = "no_policy_allows_it"
APPROVAL: Final = "approval_required"
ALLOWED: Final = "policy"


class RemotePolicies(Protocol):
    """A decision point elsewhere, instead of the policies here or besides them."""

    instead: bool
    """Whether it takes the place of the policies here."""

    async def ask(self, question: Question) -> Verdict:
        """Answer a question; whatever goes wrong is a verdict with errors, which is a deny."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """The texts of the policies: those enforced, and by name each set that is being tried out."""

    enforced: tuple[Source, ...]
    observed: tuple[tuple[str, tuple[Source, ...]], ...] = ()

    @property
    def digest(self) -> str:
        """Name these policies: the same texts have the same digest."""
        seen = hashlib.sha256()
        for name, sources in (("", self.enforced), *self.observed):
            for source in sources:
                for part in (name, source.name, source.text):
                    seen.update(len(part).to_bytes(8) + part.encode())
        return seen.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Policies in force, and their texts. ``generation`` counts the replacements."""

    generation: int
    sources: Sources
    digest: str
    enforced: CedarPolicies
    observed: Mapping[str, CedarPolicies]


class Policies:
    """The policies in force, and the way to other ones."""

    def __init__(
        self,
        read: Callable[[], Sources],
        tools: Sequence[Capability],
        remote: RemotePolicies | None = None,
    ) -> None:
        """Load what ``read`` returns.

        Raises:
            ConfigError: the policies can't be read or used.
        """
        self._read = read
        self._schema = Schema(tools)
        self._remote = remote
        self.loaded = self._load(read(), 1)

    def _load(self, sources: Sources, generation: int) -> Loaded:
        return Loaded(
            generation,
            sources,
            sources.digest,
            CedarPolicies(sources.enforced, self._schema),
            {
                name: CedarPolicies((*sources.enforced, *tried), self._schema)
                for name, tried in sources.observed
            },
        )

    @property
    def remote_mode(self) -> str | None:
        """How a decision point elsewhere is asked: ``besides``, ``instead``, or not at all."""
        if self._remote is None:
            return None
        return "instead" if self._remote.instead else "besides"

    @property
    def counting(self) -> bool:
        """Whether a decision can depend on how often or how much, and not only on what was done."""
        loaded = self.loaded
        return self._remote is not None or any(
            policies.counting for policies in (loaded.enforced, *loaded.observed.values())
        )

    def reload(self) -> bool:
        """Take the policies as they are now, all or nothing; says whether they had changed.

        Raises:
            ConfigError: they can't be used; those in force stay.
        """
        sources = self._read()
        if sources.digest == self.loaded.digest:
            return False
        self.loaded = self._load(sources, self.loaded.generation + 1)
        return True

    async def decide(self, question: Question, floor: Decision) -> Decision:
        """Decide a request that the catalogue allows as ``floor`` says."""
        if not floor.allowed:
            return floor
        loaded = self.loaded
        verdict = await self._ask(question, loaded)
        decision = conclude(question, floor, verdict)
        observed = [
            Observed(name, other.effect, other.policies)
            for name, policies in loaded.observed.items()
            if (other := conclude(question, floor, policies.ask(question))).effect
            is not decision.effect
        ]
        return replace(decision, observed=tuple(observed), generation=loaded.generation)

    async def _ask(self, question: Question, loaded: Loaded) -> Verdict:
        if self._remote is None:
            return loaded.enforced.ask(question)
        if self._remote.instead:
            return await self._remote.ask(question)
        ours = loaded.enforced.ask(question)
        return ours if not ours.allowed else both(ours, await self._remote.ask(question))


def both(ours: Verdict, theirs: Verdict) -> Verdict:
    """Return what two engines say together: yes only if both do, with what each asks for."""
    return Verdict(
        allowed=ours.allowed and theirs.allowed,
        policies=theirs.policies if not theirs.allowed else ours.policies + theirs.policies,
        obligations=ours.obligations | theirs.obligations,
        advice=ours.advice + theirs.advice,
        errors=ours.errors + theirs.errors,
    )


def conclude(question: Question, floor: Decision, verdict: Verdict) -> Decision:
    """Return the decision that follows from what an engine said; pure, and deny by default."""
    decision = replace(
        floor,
        policies=verdict.policies,
        obligations=verdict.obligations,
        advice=verdict.advice,
    )
    asked, context = verdict.obligations, question.context
    if verdict.errors:
        return decision.denied(POLICY_ERROR)
    if not verdict.allowed:
        return decision.denied(DENIED if verdict.policies else NOT_ALLOWED)
    if asked.require_binding and not context["proof"]["bound"]:
        return decision.denied("binding_required")
    if asked.require_instant and not question.resource_attributes.get("instant", True):
        return decision.denied("not_revocable")
    if not question.yeses.meet(asked.needs):
        return replace(decision, effect=Effect.NEEDS_APPROVAL, reasons=(APPROVAL,), ttl_ms=0)
    if asked.max_ttl_ms and floor.ttl_ms:
        ttl_ms, notes = clamp(floor.ttl_ms, asked.max_ttl_ms, "the most that policy allows")
        decision = replace(decision, ttl_ms=ttl_ms, notes=floor.notes + notes)
    return replace(decision, effect=Effect.ALLOW, reasons=(ALLOWED,))
