"""Cedar: policies are parsed once, always with the schema, and any error is a deny.

Cedar skips a policy whose evaluation errors, a ``forbid`` too: that would fail open. So whatever
diagnostic comes with an answer turns it into a deny (https://docs.cedarpolicy.com/auth/authorization.html).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import cedarpy
from cedarpy import pst

from broker.policy.annotations import PolicyFacts, obligations_of, read_policies
from broker.policy.decision import Verdict
from broker.policy.narrow import needs_of, project
from broker.policy.schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.catalog import Capability
    from broker.policy.narrow import Needs
    from broker.policy.question import Question

_REMEMBERED: Final = 4096
"""Answers that are kept. A digest and a verdict are some 300 bytes."""
_cedar: Any = cedarpy  # its signatures take bare dicts, which the type checker calls unknown


@dataclass(frozen=True, slots=True)
class Source:
    """The text of one file of policies, and where it is from."""

    name: str
    text: str


class Schema:
    """The schema with some tools, parsed once; ``text`` is in Cedar's own syntax."""

    def __init__(self, tools: Iterable[Capability] = (), needs: Needs | None = None) -> None:
        """Make and parse it, with the attributes of ``needs`` alone if that is given."""
        self.tools = tuple(tools)
        self.text = schema(self.tools, needs)
        self._parsed = _schema_of(self.text)

    def __eq__(self, other: object) -> bool:
        """Tell whether the same policies fit both."""
        return isinstance(other, Schema) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def faults(self, policies: str) -> list[tuple[str, str]]:
        """Return what is wrong with some policies: pairs of an id by Cedar and a message."""
        return list(_faults(policies, self.text))

    @property
    def parsed(self) -> cedarpy.Schema:
        """The handle for the evaluator."""
        return self._parsed


@lru_cache(maxsize=16)
def _schema_of(text: str) -> cedarpy.Schema:
    return cedarpy.Schema.from_str(text)


@lru_cache(maxsize=64)
def _faults(policies: str, schema_text: str) -> tuple[tuple[str, str], ...]:
    found = _cedar.validate_policies(policies, _schema_of(schema_text))
    return tuple((fault.policy_id, fault.error) for fault in found.errors)


@dataclass(frozen=True, slots=True)
class _Read:
    facts: Mapping[str, PolicyFacts]
    parsed: cedarpy.PolicySet
    needs: Needs
    schema: Schema


@lru_cache(maxsize=8)
def _read(sources: tuple[Source, ...], schema: Schema) -> _Read:
    """Parse and check, which takes some 50 ms; the same text by the same schema once a process."""
    facts = read_policies(sources, schema)
    parsed = cedarpy.PolicySet.from_str("\n".join(source.text for source in sources))
    needs = needs_of(parsed.to_pst().static_policies.values())
    # The policies fit the whole schema; what is put to them fits the part that they look at.
    return _Read(facts, parsed, needs, Schema(schema.tools, needs))


class CedarPolicies:
    """Some policies, ready to be asked. Never changes: other policies are another object."""

    def __init__(self, sources: Sequence[Source], schema: Schema) -> None:
        """Parse and check all of it.

        Raises:
            ConfigError: a file can't be parsed, doesn't fit the schema, or says something about
                obligations that can't be read. The detail lists everything that is wrong.
        """
        read = _read(tuple(sources), schema)
        self.facts: Mapping[str, PolicyFacts] = read.facts
        self._set = read.parsed
        self._needs = read.needs
        self.counting = read.needs.counts
        self._answers: OrderedDict[bytes, Verdict] = OrderedDict()
        self._schema = read.schema

    @property
    def nodes(self) -> Mapping[str, pst.Template]:
        """Each policy as it was parsed, by the same ids as ``facts``."""
        return self._set.to_pst().static_policies

    def only(self, nodes: Mapping[str, pst.Template]) -> CedarPolicies:
        """Return these policies in the place of all of them, to see what would be answered then."""
        other = copy.copy(self)
        other._answers = OrderedDict()  # noqa: SLF001  ours
        other._set = cedarpy.PolicySet.from_pst(pst.PolicySet({}, nodes, ()))  # noqa: SLF001  ours
        return other

    def ask(self, question: Question) -> Verdict:
        """Answer a question; takes some tens of microseconds, and blocks.

        These policies never change, and Cedar knows nothing but what it is handed: who hands it the
        same gets the same answer, so that is worked out once.
        """
        asked = _asked(question, self._needs)
        # By digest: a tool's arguments don't stay in memory.
        digest = hashlib.sha256(json.dumps(asked).encode()).digest()
        found = self._answers.pop(digest, None)
        if found is None:
            found = self._worked_out(*asked)
            if len(self._answers) >= _REMEMBERED:
                self._answers.popitem(last=False)
        if not found.errors:
            self._answers[digest] = found
        return found

    def _worked_out(self, request: dict[str, Any], entities: list[dict[str, Any]]) -> Verdict:
        try:
            parsed = _cedar.Entities.from_json_str(json.dumps(entities), self._schema.parsed)
            result = _cedar.is_authorized(request, self._set, parsed, self._schema.parsed)
        except ValueError as error:
            return Verdict(allowed=False, errors=(f"the question doesn't fit the schema: {error}",))
        facts = [self.facts[name] for name in result.diagnostics.reasons]
        named = tuple(sorted(fact.name for fact in facts))
        advice = tuple(sorted({fact.advice for fact in facts if fact.advice}))
        if result.diagnostics.errors or not result.allowed:
            errors = tuple(map(str, result.diagnostics.errors))
            return Verdict(allowed=False, policies=named, advice=advice, errors=errors)
        return Verdict(
            allowed=True,
            policies=named,
            obligations=obligations_of(facts),
            advice=advice,
        )


def _asked(question: Question, needs: Needs) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kind, name = question.resource
    who = {"type": "Principal", "id": question.principal}
    what = {"type": kind, "id": name}
    entities = [_entity(who, question.principal_attributes, needs)]
    if what != who:
        entities.append(_entity(what, question.resource_attributes, needs))
    request = {
        "principal": who,
        "action": {"type": "Action", "id": question.action},
        "resource": what,
        "context": project(question.context, needs.context),
    }
    return request, entities


def _entity(uid: Mapping[str, str], attributes: Mapping[str, Any], needs: Needs) -> dict[str, Any]:
    owner = attributes.get("owner")
    team = [{"type": "Team", "id": owner}] if uid["type"] == "Principal" and owner else []
    return {"uid": uid, "attrs": project(attributes, needs.entity), "parents": team}
