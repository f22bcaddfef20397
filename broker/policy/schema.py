"""Cedar's schema: what policies can speak of. Always applied, so a policy can't be wrong quietly.

Each tool has an action of its own, ``call:NAME``, in the group ``call_tool``, so that a policy for
one tool can look at its arguments, with their types. The schema is therefore made from the
catalogue; ``broker policy schema`` prints it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.catalog import Capability

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

_ALWAYS: Final = """\
  time: Time,
  environment: String,
  proof: Proof,
  approvals: Long,
  risk: Long,
  verdict: String,
"""
_USING: Final = (
    """\
  caller: String,
  task: Task,
  chain: Chain,
  after: Trail,
  adds: Adds,
  power: String,
  intent?: String,
  destination?: Destination,
  break_glass: Bool,
  ledger_durable: Bool,
  ttl: Long,
"""
    + _ALWAYS
)
_OPENING: Final = (
    """\
  capabilities: Set<String>,
  powers: Set<String>,
  data_classes: Set<String>,
  effects: Set<String>,
  purpose: String,
  ttl: Long,
  on_behalf_of: String,
  depth: Long,
  chain: Chain,
  parent?: Parent,
"""
    + _ALWAYS
)

_TRAIL: Final = """\
  effects: Set<String>,
  data_classes: Set<String>,
  ways: Set<String>,
  grants: Long,
  calls: Long,
  amount: decimal,
  power: String,
  private: Bool,
  untrusted: Bool,
  egress: Bool,
  way_out: Bool,
"""

_BASE: Final = f"""\
// Who asks. The name of a principal is its id; a team is the owner of principals.
entity Team;
entity Principal in [Team] = {{
  name: String,
  role: String,
  owner: String,
  capabilities: Set<String>,
}};
// What can be granted, and what can be called.
entity Capability, Tool = {{
  name: String,
  power: String,
  backend: String,
  data_class: String,
  effects: Set<String>,
  instant: Bool,
}};
// What operators do: "revoke", "freeze", "signal" …
entity Operation;
// A human yes that is asked for.
entity Approval = {{
  requester: String,
  agent: String,
  owner: String,
  orchestrator: String,
  capability: String,
  power: String,
}};

// Durations are seconds. A trail is what was done so far, and what that amounts to. `ways` are the
// effects of credentials that were issued, `way_out` says that one of them is an egress.
type Trail = {{
{_TRAIL}}};
type Chain = {{
{_TRAIL}  tasks: Long,
}};
type Task = {{
  id: String,
  purpose: String,
  on_behalf_of: String,
  capabilities: Set<String>,
  age: Long,
  left: Long,
  depth: Long,
  heartbeat: Bool,
  trail: Trail,
}};
type Parent = {{
  id: String,
  agent: String,
  purpose: String,
  capabilities: Set<String>,
  agents: Set<String>,
  left: Long,
}};
// What this request adds, by itself.
type Adds = {{
  effects: Set<String>,
  data_class: String,
  private: Bool,
  untrusted: Bool,
  egress: Bool,
  amount: decimal,
}};
// `within` has the host and every domain above it: "api.example.com", "example.com", "com".
type Destination = {{
  host: String,
  within: Set<String>,
  scheme: String,
  port: Long,
  ip: Bool,
}};
// In UTC. Monday is 1, Sunday 7.
type Time = {{
  now: datetime,
  hour: Long,
  minute: Long,
  weekday: Long,
}};
// How the identity was proved, and whether the token is bound to a key.
type Proof = {{
  bound: Bool,
  method: String,
}};
type Using = {{
{_USING}}};

action open_task, delegate appliesTo {{
  principal: [Principal],
  resource: [Principal],
  context: {{
{_OPENING}  }}
}};
action issue_grant, break_glass appliesTo {{
  principal: [Principal],
  resource: [Capability],
  context: Using
}};
action call_tool appliesTo {{
  principal: [Principal],
  resource: [Tool],
  context: Using
}};
action approve appliesTo {{
  principal: [Principal],
  resource: [Approval],
  context: {{
{_ALWAYS}  }}
}};
action operate appliesTo {{
  principal: [Principal],
  resource: [Operation],
  context: {{
  selector?: String,
{_ALWAYS}  }}
}};
"""


def schema(tools: Iterable[Capability] = ()) -> str:
    """Return the schema, in Cedar's own syntax, with an action for each tool."""
    return _BASE + "".join(map(_tool_action, sorted(tools, key=lambda tool: tool.name)))


def _tool_action(tool: Capability) -> str:
    arguments = "".join(
        f"    {json.dumps(name)}{'?' if optional else ''}: {_TYPES[kind]},\n"
        for name, (kind, optional) in sorted(tool.arguments.items())
    )
    return (
        f'action "{CALL}{tool.name}" in [call_tool] appliesTo {{\n'
        "  principal: [Principal],\n  resource: [Tool],\n  context: {\n"
        f"{_USING}  arguments: {{\n{arguments}  }},\n  }}\n}};\n"
    )
