"""What policies say beside their conditions: names, obligations, advice.

::

    @id("deploys-need-two")
    @require_approval("2")      so many human yeses to exactly this request
    @approvers("security")      from each of these groups, not from any operator
    @max_ttl("10m")             the longest life of the credential
    @notify("security")         whom to tell; words of the operator's own
    @require_binding            only for tokens bound to a key (RFC 9449, RFC 8705)
    @require_instant            only for credentials that can be revoked at once
    @log_arguments              a tool's arguments are written into the log
    @keep_budget                what a child task didn't spend of its budget doesn't go back
    @advice("Ask for less.")    told to whoever was refused; everybody may read it
    permit (principal, action == Action::"issue_grant", resource == Capability::"deploy");

Obligations are those of **all** the policies that allow a request, of each the strictest. So adding
a policy never loosens one, and their order means nothing. A ``forbid`` has none: nothing lifts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import cedarpy

from broker.durations import parse_duration
from broker.errors import ConfigError
from broker.policy.decision import NONE, Obligations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cedarpy import pst

    from broker.policy.cedar import Schema, Source

_FLAGS: Final = ("require_binding", "require_instant", "log_arguments", "keep_budget")
OBLIGATIONS: Final = ("require_approval", "approvers", "max_ttl", "notify", *_FLAGS)
KNOWN: Final = ("id", "advice", *OBLIGATIONS)
MAX_APPROVALS: Final = 10


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """One policy: its name, where it stands, whether it permits, and what it asks for."""

    name: str
    source: str
    permits: bool
    obligations: Obligations
    advice: str


def obligations_of(facts: Iterable[PolicyFacts]) -> Obligations:
    """Return what all of these ask for, together."""
    together = NONE
    for fact in facts:
        together |= fact.obligations
    return together


def read_policies(sources: Sequence[Source], schema: Schema) -> dict[str, PolicyFacts]:
    """Read policies in the order and under the ids in which Cedar numbers them when joined.

    Raises:
        ConfigError: with everything that is wrong.
    """
    found: dict[str, PolicyFacts] = {}
    faults: list[str] = []
    names: dict[str, str] = {}
    for source in sources:
        try:
            parsed = _parsed(source.text)
        except ValueError as error:
            faults.append(f"{source.name}: {error}")
            continue
        if parsed.templates:
            faults.append(f"{source.name}: templates (?principal, ?resource) are not supported")
            continue
        own = {
            policy_id: _facts(source.name, policy_id, template, faults)
            for policy_id, template in sorted(parsed.static_policies.items(), key=_number)
        }
        for policy_id, message in schema.faults(source.text):
            name = own[policy_id].name if policy_id in own else ""
            faults.append(f"{source.name}: {name or 'the file'}: {message}")
        for fact in own.values():
            if fact.name in names:
                faults.append(f"{source.name}: @id({fact.name!r}) is also in {names[fact.name]}")
            names[fact.name] = source.name
            found[f"policy{len(found)}"] = fact
    if faults:
        raise ConfigError("\n".join(faults))
    return found


@lru_cache(maxsize=64)
def _parsed(text: str) -> pst.PolicySet:
    """Parse a file of policies: of those that are loaded anew, most have not changed."""
    return cedarpy.policies_to_pst(text)


def _number(item: tuple[str, object]) -> int:
    return int(item[0].removeprefix("policy"))


def _facts(source: str, policy_id: str, template: pst.Template, faults: list[str]) -> PolicyFacts:
    notes: Mapping[str, str] = template.annotations
    name = notes.get("id") or f"{source}#{int(policy_id.removeprefix('policy')) + 1}"
    permits = template.effect == "permit"
    for word in notes:
        if word not in KNOWN:
            known = ", ".join(f"@{known}" for known in KNOWN)
            faults.append(f"{source}: {name}: @{word} is not known; there are {known}")
        elif word in OBLIGATIONS and not permits:
            faults.append(f"{source}: {name}: a forbid can't be lifted, so @{word} has no meaning")
    return PolicyFacts(
        name, source, permits, _obligations(notes, source, name, faults), notes.get("advice", "")
    )


def _obligations(
    notes: Mapping[str, str], source: str, name: str, faults: list[str]
) -> Obligations:
    approvals, ttl = 0, 0
    if "require_approval" in notes:
        text = notes["require_approval"] or "1"
        if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_APPROVALS:
            approvals = int(text)
        else:
            faults.append(
                f'{source}: {name}: @require_approval takes a number from "1" to "{MAX_APPROVALS}"'
            )
    groups = notes.get("approvers", "").replace(",", " ").split()
    if "approvers" in notes and not groups:
        faults.append(f'{source}: {name}: @approvers names groups, such as "security platform"')
    if groups:
        approvals = approvals or 1
    if "max_ttl" in notes:
        try:
            ttl = parse_duration(notes["max_ttl"])
        except ValueError:
            faults.append(f'{source}: {name}: @max_ttl takes a duration, such as "10m"')
    faults += [f"{source}: {name}: @{flag} takes no value" for flag in _FLAGS if notes.get(flag)]
    words = notes.get("notify", "")
    if "notify" in notes and not words.strip():
        faults.append(f'{source}: {name}: @notify names whom to tell, such as "security"')
    return Obligations(
        approvals=approvals,
        approvers=tuple((group, approvals) for group in sorted(set(groups))),
        max_ttl_ms=ttl,
        notify=frozenset(word.strip() for word in words.split(",") if word.strip()),
        require_binding="require_binding" in notes,
        require_instant="require_instant" in notes,
        log_arguments="log_arguments" in notes,
        keep_budget="keep_budget" in notes,
    )
