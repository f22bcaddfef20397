"""Cedar's schema: what policies can speak of. Always applied, so a policy can't be wrong quietly.

Each tool has an action of its own, ``call:NAME``, in the group ``call_tool``, so that a policy for
one tool can look at its arguments, with their types. The schema is therefore made from the
catalogue; ``broker policy schema`` prints it.

Most of what a question knows no policy asks about, and every attribute costs Cedar some
microseconds. So requests are put to a schema narrowed to what the policies need (``narrow.py``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.catalog import Capability
    from broker.policy.narrow import Needs

CALL: Final = "call:"

_TYPES: Final = {
    "string": "String",
    "integer": "Long",
    "number": "decimal",
    "boolean": "Bool",
    "strings": "Set<String>",
}
"""Types of a tool's arguments as the catalogue names them, and as Cedar does."""
ARGUMENT_TYPES: Final = tuple(_TYPES)

_Record = dict[str, Any]
"""Attributes with their types, a record where it has attributes itself; ``?`` marks optional."""
_WORDS: Final = "Set<String>"

_EXPOSURE: Final[_Record] = {"private": "Bool", "untrusted": "Bool", "egress": "Bool"}
_TRAIL: Final[_Record] = {
    "effects": _WORDS,
    "data_classes": _WORDS,
    "ways": _WORDS,
    "grants": "Long",
    "calls": "Long",
    "amount": "decimal",
    "power": "String",
    **_EXPOSURE,
    "way_out": "Bool",
}
_CHAIN: Final[_Record] = {**_TRAIL, "tasks": "Long"}
_TASK: Final[_Record] = {
    "id": "String",
    "purpose": "String",
    "on_behalf_of": "String",
    "capabilities": _WORDS,
    "age": "Long",
    "left": "Long",
    "depth": "Long",
    "heartbeat": "Bool",
    "trail": _TRAIL,
}
_ALWAYS: Final[_Record] = {
    "time": {"now": "datetime", "hour": "Long", "minute": "Long", "weekday": "Long"},
    "environment": "String",
    "proof": {"bound": "Bool", "method": "String"},
    "approvals": "Long",
    "risk": "Long",
    "verdict": "String",
}
_USING: Final[_Record] = {
    "caller": "String",
    "asker": "String",
    "task": _TASK,
    "chain": _CHAIN,
    "after": _TRAIL,
    "adds": {
        "effects": _WORDS,
        "data_class": "String",
        **_EXPOSURE,
        "amount": "decimal",
    },
    "power": "String",
    "intent?": "String",
    "destination?": {
        "host": "String",
        "within": _WORDS,
        "scheme": "String",
        "port": "Long",
        "ip": "Bool",
    },
    "elevated": "Bool",
    "break_glass": "Bool",
    "ledger_durable": "Bool",
    "ttl": "Long",
    **_ALWAYS,
}
_OPENING: Final[_Record] = {
    "capabilities": _WORDS,
    "powers": _WORDS,
    "data_classes": _WORDS,
    "effects": _WORDS,
    "purpose": "String",
    "ttl": "Long",
    "on_behalf_of": "String",
    "depth": "Long",
    "chain": _CHAIN,
    "parent?": {
        "id": "String",
        "agent": "String",
        "purpose": "String",
        "capabilities": _WORDS,
        "agents": _WORDS,
        "left": "Long",
    },
    **_ALWAYS,
}
_OPERATING: Final[_Record] = {"selector?": "String", **_ALWAYS}

_GRANTABLE: Final[_Record] = {
    "name": "String",
    "power": "String",
    "backend": "String",
    "data_class": "String",
    "effects": _WORDS,
    "instant": "Bool",
}
_ENTITIES: Final[Mapping[str, _Record]] = {
    "Principal in [Team]": {
        "name": "String",
        "role": "String",
        "owner": "String",
        "capabilities": _WORDS,
    },
    "Capability": _GRANTABLE,
    "Tool": _GRANTABLE,
    "Approval": {
        "requester": "String",
        "agent": "String",
        "owner": "String",
        "orchestrator": "String",
        "subject": "String",
        "action": "String",
        "capability": "String",
        "power": "String",
    },
}
_ACTIONS: Final[tuple[tuple[str, str, _Record], ...]] = (
    ("open_task, delegate", "Principal", _OPENING),
    ("issue_grant, elevate, break_glass", "Capability", _USING),
    ("call_tool", "Tool", _USING),
    ("approve", "Approval", _ALWAYS),
    ("operate", "Operation", _OPERATING),
)
_HEAD: Final = """\
// Who asks is a Principal; its name is its id, its owner the team it is in. What can be granted is
// a Capability, what can be called a Tool, what operators do ("revoke" ...) an Operation.
//
// Durations are seconds, times UTC, Monday is weekday 1. `task.trail` and `chain` are what was done
// so far, `adds` what this request adds, `after` the chain then. `ways` are the effects of
// credentials that were issued, `way_out` says that one of them is an egress. `within` has the host
// and every domain above it: "api.example.com", "example.com", "com".
entity Team;
entity Operation;
"""


def schema(tools: Iterable[Capability] = (), needs: Needs | None = None) -> str:
    """Return the schema, in Cedar's own syntax, with an action for each tool.

    With ``needs`` it holds those attributes only.
    """
    context, entity = (needs.context, needs.entity) if needs else (None, None)
    rows = [_HEAD]
    rows += [f"entity {name} = {_record(of, entity)};\n" for name, of in _ENTITIES.items()]
    rows += [_action(names, kind, _record(of, context)) for names, kind, of in _ACTIONS]
    for tool in sorted(tools, key=lambda tool: tool.name):
        arguments = {
            f"{name}?" if optional else name: _TYPES[kind]
            for name, (kind, optional) in sorted(tool.arguments.items())
        }
        named = f'"{CALL}{tool.name}" in [call_tool]'
        rows.append(_action(named, "Tool", _record({**_USING, "arguments": arguments}, context)))
    return "".join(rows)


def _action(names: str, resource: str, context: str) -> str:
    return (
        f"action {names} appliesTo {{\n  principal: [Principal],\n  resource: [{resource}],\n"
        f"  context: {context}\n}};\n"
    )


def _record(
    attributes: Mapping[str, Any], needed: Mapping[str, Any] | None, indent: int = 2
) -> str:
    """Write a record, of ``needed`` attributes only; an empty mapping there means all below."""
    rows: list[str] = []
    for name, kind in attributes.items():
        bare = name.removesuffix("?")
        if needed and bare not in needed:
            continue
        below = needed[bare] if needed else None
        written = kind if isinstance(kind, str) else _record(kind, below, indent + 2)
        optional = "?" if name.endswith("?") else ""
        rows.append(f"{' ' * indent}{json.dumps(bare)}{optional}: {written},\n")
    return "{\n" + "".join(rows) + " " * (indent - 2) + "}"
