"""What passes from the ledger's outbox to the log: batches, gaps, places in the streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.events import Event

Place = tuple[str, int]
"""How far one shard's stream is in the log: the last stream id, and how many events that were."""

START: Final[Place] = ("0-0", 0)


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of a shard that were gone before they could be drained.

    ``missed`` is how many; it is negative if the shard counts fewer than are in the log. ``why`` is
    ``deleted``, ``before`` (they went before there was a log) or ``reset`` (the shard was emptied
    or restored from a backup, so what is missing can't be counted). ``added`` is its own count.
    """

    shard: int
    missed: int
    why: str
    added: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order of all shards together, and where reading them leaves each shard.

    Everything up to ``at`` is read (epoch ms by the ledger's clock, which said ``now``); ``more``
    says that there is more to read at once.
    """

    events: tuple[Event, ...]
    gaps: tuple[Gap, ...]
    cursor: Mapping[int, Place]
    at: int
    now: int
    more: bool


@dataclass(frozen=True, slots=True)
class CommitPoint:
    """How far the log goes, as the ledger remembers it.

    ``fence`` is the number of the one who may commit; it only grows. ``head`` is the log's own
    text, empty before the first commit, and everything up to ``at`` (epoch ms) is in it.
    """

    fence: int = 0
    head: str = ""
    at: int = 0
