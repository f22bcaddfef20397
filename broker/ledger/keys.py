"""The ledger's keys.

A shard is seven tables that share a hash tag, so that one script changes a whole chain at once and
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
frozen     hash: selector → JSON       what an operator froze
audit      stream                      events
=========  ==========================  =====================================================

These seven don't expire (``PERSISTENT``): rows are removed by the prune job once they are dead.
Tokens and idempotency keys (``EXPIRING``) always carry an expiry.
"""

from __future__ import annotations

import hashlib
from typing import Final

PREFIX: Final = "broker"
TABLES: Final = ("tasks", "grants", "index", "due", "purge", "frozen", "audit")
PERSISTENT: Final = frozenset(TABLES)
EXPIRING: Final = frozenset({"token", "idem"})


def table(shard: int, name: str) -> str:
    """Return the key of one of a shard's tables."""
    return f"{PREFIX}:{{s{shard:02x}}}:{name}"


def tables(shard: int) -> list[str]:
    """Return a shard's tables in the order in which every script is given them."""
    return [table(shard, name) for name in TABLES]


def token(shard: int, jti: str) -> str:
    """Return the key of one of our tokens."""
    return table(shard, f"token:{jti}")


def idempotency(shard: int, scope: str, key: str) -> str:
    """Return the key that remembers an idempotency key within its scope."""
    digest = hashlib.sha256(f"{scope}\0{key}".encode()).hexdigest()[:32]
    return table(shard, f"idem:{digest}")


def shard_for(scope: str, key: str, shards: int) -> int:
    """Pick the shard of a root task from its idempotency key, so that a retry meets it again."""
    return int.from_bytes(hashlib.sha256(f"{scope}\0{key}".encode()).digest()[:4]) % shards
