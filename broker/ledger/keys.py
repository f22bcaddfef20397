"""The ledger's keys.

A shard is eight tables that share a hash tag, so that one script changes a whole chain at once and
Redis Cluster keeps them together. The tables are fixed; what expires by itself has its own key.

=========  ==========================  =====================================================
table      type                        holds
=========  ==========================  =====================================================
tasks      hash: id → JSON             every task until ``retention`` after it was closed
grants     hash: id → JSON             every grant until ``retention`` after its death
index      sorted set, by name         see ``prelude.lua``: by task, agent, owner, capability,
                                       backend, state, parent; and all, by time
due        sorted set, by time (ms)    what a sweep must look at, and when
purge      sorted set, by time (ms)    what may be forgotten, and when
frozen     hash: selector → JSON       what an operator froze, the marks of ``register.py``, and
                                       what was reported (``signals.py``)
audit      stream                      events
approvals  hash: id → JSON             every approval, as long as its task
=========  ==========================  =====================================================

The first shard has a ninth, ``principals``: the register of who was added, suspended, handed over
or reviewed at run time. Its scripts are given it as their own key. A tenth, ``head``, says how far
the events are in the signed log, and has the fences of what is done alone (``lease.py``). Its index
also has the places of ``places.py``, of grants of all shards.

Every shard has ``schema``, too: which layout its tables have (``schema.py``).

These don't expire (``PERSISTENT``): rows are removed by the prune job once they are dead.
Tokens, idempotency keys, proofs already used (``replay``), DPoP nonces, the ``lease`` of whoever
writes the log or reconciles, the marks of what is done one at a time (``hold``: break-glasses of an
agent, rotations of a path), the ``rate`` at which something is issued, and what the last
reconciliation found (``reconciled``), sessions of people at the console, and the marks of those who
signed out everywhere (``signedout``) (``EXPIRING``) always carry an expiry.
"""

from __future__ import annotations

import hashlib
from typing import Final

PREFIX: Final = "broker"
TABLES: Final = (
    "tasks",
    "grants",
    "index",
    "due",
    "purge",
    "frozen",
    "audit",
    "approvals",
)
REGISTER: Final = "principals"
IN_FORCE: Final = "policy#"
"""Field of the first shard's ``frozen``: by which policies live grants were decided, since when."""
HEAD: Final = "head"
SCHEMA: Final = "schema"
PERSISTENT: Final = frozenset({*TABLES, REGISTER, HEAD, SCHEMA})
QUARANTINE: Final = "quarantine#"
QUARANTINE_UNTIL: Final = "quarantine#until"
"""Fields of every shard's ``frozen``: since when the ledger is in quarantine and why, and when the
last one ended. ``prelude.lua`` has both.
"""
EXPIRING: Final = frozenset(
    {
        "token",
        "idem",
        "replay",
        "nonce",
        "lease",
        "hold",
        "rate",
        "reconciled",
        "session",
        "signedout",
    }
)


def table(shard: int, name: str) -> str:
    """Return the key of one of a shard's tables."""
    return f"{PREFIX}:{{s{shard:02x}}}:{name}"


def tables(shard: int) -> list[str]:
    """Return a shard's tables in the order in which every script is given them."""
    return [table(shard, name) for name in TABLES]


def register() -> str:
    """Return the key of the register of principals; it is in the first shard."""
    return table(0, REGISTER)


def head() -> str:
    """Return the key of the log's commit point; it is in the first shard."""
    return table(0, HEAD)


def lease(work: str) -> str:
    """Return the key of who does some work alone for now; it is in the first shard."""
    return table(0, f"lease:{work}")


def fence(work: str) -> str:
    """Return the field of ``head`` that counts how often a lease was taken anew."""
    return "fence" if work == "audit" else f"fence:{work}"


def token(shard: int, jti: str) -> str:
    """Return the key of one of our tokens."""
    return table(shard, f"token:{jti}")


def idempotency(shard: int, scope: str, key: str) -> str:
    """Return the key that remembers an idempotency key within its scope."""
    digest = hashlib.sha256(f"{scope}\0{key}".encode()).hexdigest()[:32]
    return table(shard, f"idem:{digest}")


def replay(kind: str, key: str, shards: int) -> str:
    """Return the key that remembers that a proof of some kind was used."""
    digest = hashlib.sha256(f"{kind}\0{key}".encode()).hexdigest()[:32]
    return table(shard_for(kind, key, shards), f"replay:{kind}:{digest}")


def glass(agent: str) -> str:
    """Return the key that says which break-glass of an agent is open; all are of one shard."""
    return table(0, f"hold:glass:{agent}")


def rotation(path: str) -> str:
    """Return the key that says who rotates a path at the moment; all are of one shard."""
    return table(0, f"hold:rotation:{path}")


def rate(kind: str, name: str) -> str:
    """Return the key of how often something was issued lately; all are of one shard."""
    return table(0, f"rate:{kind}:{name}")


def nonce(span: int) -> str:
    """Return the key of the DPoP nonce of a span of time; all are of one shard."""
    return table(0, f"nonce:{span}")


def reconciled() -> str:
    """Return the key of what the last reconciliation found; it is in the first shard."""
    return table(0, "reconciled")


def session(digest: str) -> str:
    """Return the key of a session at the console; all are of one shard."""
    return table(0, f"session:{digest}")


def signed_out(person: str) -> str:
    """Return the key that says until when a person's sessions are over; all are of one shard."""
    return table(0, f"signedout:{hashlib.sha256(person.encode()).hexdigest()[:32]}")


def shard_for(scope: str, key: str, shards: int) -> int:
    """Pick the shard of a root task from its idempotency key, so that a retry meets it again."""
    return int.from_bytes(hashlib.sha256(f"{scope}\0{key}".encode()).digest()[:4]) % shards
