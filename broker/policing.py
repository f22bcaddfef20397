"""What operators do with policies: look at those in force, load others, ask why and who could.

Other policies take effect at once and as a whole, and live grants are decided again by them: those
no longer allowed are revoked. Which policies the live grants were last decided by is written down,
so that a crash in between, or a start with other policies, leaves none undecided.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from broker.clock import to_rfc3339
from broker.errors import ConfigError, Conflict, NotFound
from broker.ids import shard_of
from broker.logs import get_logger
from broker.policy.arguments import BadArgument, canonical
from broker.policy.decision import Decision, Effect
from broker.policy.explain import explain, facts_json
from broker.policy.question import Question
from broker.policy.who_can import who_can
from broker.steps import Outcome
from broker.trail import Signals
from broker.visibility import must_operate, must_see_all

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.catalog import Catalog
    from broker.events import Event
    from broker.metrics import Metrics
    from broker.pipeline import Pipeline
    from broker.policy.cedar import CedarPolicies
    from broker.watch import Watch

log = get_logger("policy")
_ACTOR: Final = "broker"
_SETTLED_MS: Final = 3_600_000
"""Longer than any replica takes to notice that policies have changed."""


class Policing:
    """The operations."""

    def __init__(self, pipeline: Pipeline, watch: Watch, metrics: Metrics, *, follow: bool) -> None:
        """Revoke through ``watch``; ``follow`` loads policies by itself when they have changed."""
        self._pipeline = pipeline
        self._policies = pipeline.judge.policies
        self._watch = watch
        self._metrics = metrics
        self._follow = follow
        self._to_log = False
        self._to_review: bool | None = None  # not known before the ledger has been asked
        self._one_at_a_time = asyncio.Lock()
        self.problem = ""
        """Why the policies in their folder can't be used, if they can't: others are in force."""

    async def keep_up(self) -> None:
        """Load the policies if they have changed. Call it every few seconds."""
        if not self._follow:
            async with self._one_at_a_time:
                await self._decide_again()
            return
        try:
            await self.refresh(_ACTOR)
        except ConfigError as error:
            if error.detail != self.problem:
                log.warning("the policies can't be used; those in force stay", error=error.detail)
            self.problem = error.detail

    async def refresh(self, actor: str) -> tuple[bool, Outcome]:
        """Load the policies, and decide live grants again if they haven't been by these.

        Returns whether they had changed, and what became of the grants that were revoked.

        Raises:
            ConfigError: they can't be used; those in force stay.
        """
        async with self._one_at_a_time:
            try:
                changed = await asyncio.to_thread(self._policies.reload)
            except ConfigError:
                self._metrics.policies_read(ok=False)
                raise
            self.problem = ""
            if changed:
                self._metrics.policies_read(ok=True)
                self._to_log = self._to_review = True
            if self._to_log:
                await self._log(actor)
                self._to_log = False
            return changed, await self._decide_again()

    async def _log(self, actor: str) -> None:
        loaded = self._policies.loaded
        log.info("policies loaded", digest=loaded.digest, generation=loaded.generation)
        about = {"digest": loaded.digest, "policies": len(loaded.enforced.facts)}
        await self._pipeline.ledger.record("policy.reloaded", shard=0, actor=actor, data=about)

    async def _decide_again(self) -> Outcome:
        """Decide live grants by the policies in force, unless that is done.

        Whoever has loaded others does it: until then it has issued by the old ones, whatever
        another replica has decided meanwhile. At a start it is left out where these policies have
        been in force for long, as no replica can have issued by others since.
        """
        digest, actions = self._policies.loaded.digest, self._pipeline.judge.actions
        if self._to_review is None:
            self._to_review = not await actions.in_force(digest, for_ms=_SETTLED_MS)
        outcome = Outcome()
        if self._to_review:
            outcome = await self._watch.review(reason="policy_changed")
            await actions.put_in_force(digest)
        self._to_review = False
        return outcome

    async def show(self, caller: Caller) -> dict[str, Any]:
        """Return the policies in force, and those tried out."""
        must_see_all(caller)
        loaded = self._policies.loaded
        return {
            "digest": loaded.digest,
            "problem": self.problem or None,
            "remote": self._policies.remote_mode,
            "policies": _listed(loaded.enforced),
            "observed": [
                {"set": name, "policies": _listed(tried, beyond=loaded.enforced)}
                for name, tried in loaded.observed.items()
            ],
        }

    async def texts(self, caller: Caller) -> dict[str, Any]:
        """Return the policies as they are written, by file, and which reading of them it is.

        ``generation`` counts what this replica has loaded since it started.
        """
        must_see_all(caller)
        loaded = self._policies.loaded
        sets = (("", loaded.sources.enforced), *loaded.sources.observed)
        return {
            "generation": loaded.generation,
            "files": [
                {"set": name or None, "file": source.name, "text": source.text}
                for name, sources in sets
                for source in sources
            ],
        }

    async def reload(self, caller: Caller) -> dict[str, Any]:
        """Load the policies now, and decide live grants again.

        Raises:
            Conflict: they can't be used; the detail says why.
        """
        must_operate(caller)
        await self._pipeline.judge.operate(caller, "reload_policies")
        try:
            changed, outcome = await self.refresh(caller.name)
        except ConfigError as error:
            self.problem = error.detail
            msg = f"The policies can't be used, and those in force stay: {error.detail}"
            raise Conflict(msg) from error
        return {
            "changed": changed,
            "digest": self._policies.loaded.digest,
            "grants": outcome.as_json(),
        }

    async def who_can(self, caller: Caller, capability: str) -> dict[str, Any]:
        """Say which agents could have a capability, in a plain task.

        Raises:
            NotFound: there is none of that name.
        """
        must_see_all(caller)
        judge = self._pipeline.judge
        known = judge.catalog.capabilities.get(capability)
        if known is None:
            raise NotFound("There is no such capability.")
        moment = judge.moment(caller, Signals())
        enforced = self._policies.loaded.enforced
        found = await asyncio.to_thread(who_can, enforced, judge.catalog, known, moment)
        return {"capability": capability, "items": [who.as_json() for who in found]}

    async def explain(self, caller: Caller, decision_id: str) -> dict[str, Any]:
        """Say why a decision is what it is, and what would change it by the policies of now.

        Raises:
            NotFound: there is none of this id, or the ledger doesn't keep it any more.
        """
        must_see_all(caller)
        event = await self._pipeline.queries.decision(decision_id)
        if event is None or shard_of(decision_id, "dec") is None:
            msg = "There is no such decision in the ledger; `broker audit` looks into the log."
            raise NotFound(msg)
        enforced = self._policies.loaded.enforced
        catalog = self._pipeline.judge.catalog
        explained = await asyncio.to_thread(_explained, enforced, event, catalog)
        said = {k: v for k, v in event.data.items() if k not in ("id", "question")}
        return {
            "decision_id": decision_id,
            "time": to_rfc3339(event.at),
            "task_id": event.task_id or None,
            "principal": event.principal,
            "said": said,
            "question": event.data.get("question"),
            "explanation": explained,
        }


def _listed(policies: CedarPolicies, beyond: CedarPolicies | None = None) -> list[dict[str, Any]]:
    known = {fact.name for fact in beyond.facts.values()} if beyond else set[str]()
    return [facts_json(fact) for fact in policies.facts.values() if fact.name not in known]


def _explained(policies: CedarPolicies, event: Event, catalog: Catalog) -> dict[str, Any] | None:
    """Explain a decision from its event; None where the catalogue alone decided."""
    data = event.data
    if "question" not in data:
        return None
    question = Question.read(data["question"])
    tool = catalog.capabilities.get(question.resource[1])
    if data.get("arguments_logged") and tool is not None:
        # They are logged as they came. A tool that has other ones now is asked about without.
        with contextlib.suppress(BadArgument):
            question = question.with_context(arguments=canonical(tool, data.get("arguments", {})))
    decision = Decision(
        Effect(data["effect"]),
        tuple(str(data["reasons"]).split(",")),
        policies=tuple(data.get("policies", ())),
    )
    return explain(policies, question, decision).as_json()
