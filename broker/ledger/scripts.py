"""The Lua scripts, each as one callable; ``redis.py`` gives each its typed method.

A script is: which flags it runs with, the tables of legal moves taken from the Python models,
``prelude.lua``, ``budgets.lua``, ``consent.lua``, and its own file. Revoking goes on when Redis is
out of memory; issuing does not.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from broker.approvals import APPROVAL_MOVES
from broker.grants import GRANT_MOVES
from broker.tasks import TASK_MOVES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

_ALLOW_OOM: Final = "#!lua flags=allow-oom"
_FLAGS: Final = {
    "open_task": "#!lua",
    "take_place": "#!lua",
    "leave_place": _ALLOW_OOM,
    "reserve": "#!lua",
    "activate": _ALLOW_OOM,  # a lease that was minted is always recorded
    "fail": _ALLOW_OOM,
    "begin_revoke": _ALLOW_OOM,
    "end_task": _ALLOW_OOM,
    "abandon": _ALLOW_OOM,
    "confirm": _ALLOW_OOM,
    "retry": _ALLOW_OOM,
    "retry_later": _ALLOW_OOM,
    "claim_due": _ALLOW_OOM,
    "close_task": _ALLOW_OOM,
    "postpone_task": _ALLOW_OOM,
    "heartbeat": _ALLOW_OOM,
    "handle": _ALLOW_OOM,
    "wrapping": _ALLOW_OOM,  # it revokes what was intercepted
    "renew": "#!lua",
    "supersede": _ALLOW_OOM,  # it shortens a life
    "freeze": _ALLOW_OOM,
    # Operators must be able to log in and revoke. What a token lets an agent do is refused anyway.
    "put_token": _ALLOW_OOM,
    "token_status": "#!lua flags=no-writes",
    "drop_token": _ALLOW_OOM,
    "record": "#!lua",
    "record_revocation": _ALLOW_OOM,  # an order to revoke is carried out, so it is logged
    "hasten": _ALLOW_OOM,
    "prune": _ALLOW_OOM,
    "survey": "#!lua flags=no-writes",
    "call": "#!lua",
    "ask_approval": "#!lua",
    "vote": _ALLOW_OOM,  # also a no
    "cancel_approval": _ALLOW_OOM,
    "elevate": "#!lua",
    "end_elevation": _ALLOW_OOM,
    "settle_elevation": _ALLOW_OOM,
    "close_review": _ALLOW_OOM,
    "hold": "#!lua",
    "report": _ALLOW_OOM,
    "signal": _ALLOW_OOM,  # it stops things
    "registry_write": _ALLOW_OOM,  # suspending is revoking
    "registry_settle": _ALLOW_OOM,
    "registry_note": _ALLOW_OOM,
    "set_marks": _ALLOW_OOM,
    "end_tasks": _ALLOW_OOM,
    "census": "#!lua flags=no-writes",
    # What was set back must stop issuing also when memory is short, and letting go is deleting.
    "quarantine": _ALLOW_OOM,
    "reconciled": _ALLOW_OOM,  # what is ended is logged
    "schema": _ALLOW_OOM,
    "lease": _ALLOW_OOM,  # what is done alone sees to what lives, or makes room
    # Draining makes room: what is in the log can be trimmed.
    "audit_read": "#!lua flags=no-writes",
    "audit_commit": _ALLOW_OOM,
}
NAMES: Final = tuple(_FLAGS)


def issues(name: str) -> bool:
    """Whether a script is on the way to a credential: what ends one goes on where issuing stops."""
    return _FLAGS[name] == "#!lua"


def _moves_table(name: str, moves: Mapping[Any, frozenset[Any]]) -> str:
    rows = (
        f"  {state} = {{ {', '.join(f'{to} = true' for to in sorted(targets))} }},"
        for state, targets in moves.items()
    )
    return "\n".join([f"local {name} = {{", *rows, "}"])


@cache
def source(name: str) -> str:
    """Return the full text of a script."""
    return _text(_FLAGS[name], (_folder() / f"{name}.lua").read_text("utf-8"))


def step(lua: str) -> str:
    """Return the full text of a step of ``schema.py``: KEYS[9] is the version, A = {from, to}.

    It is done where the shard has version ``from``, and its version with it, or not at all.
    """
    if_due = "if tonumber(redis.call('HGET', KEYS[9], 'version')) ~= A.from then return 0 end"
    done = "redis.call('HSET', KEYS[9], 'version', A.to)\nreturn 1"
    return _text(_ALLOW_OOM, f"{if_due}\n{lua}\n{done}")


def _folder() -> Traversable:
    return resources.files("broker.ledger") / "lua"


def _text(flags: str, lua: str) -> str:
    folder = _folder()
    return "\n".join(
        (
            flags,
            _moves_table("GRANT_MOVES", GRANT_MOVES),
            _moves_table("TASK_MOVES", TASK_MOVES),
            _moves_table("APPROVAL_MOVES", APPROVAL_MOVES),
            (folder / "prelude.lua").read_text("utf-8"),
            (folder / "budgets.lua").read_text("utf-8"),
            (folder / "consent.lua").read_text("utf-8"),
            lua,
        )
    )
