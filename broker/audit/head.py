"""How far the log goes: what the ledger keeps as the commit point."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from broker.audit.errors import HeadUnreadable
from broker.audit.merkle import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GENESIS: Final = "0" * 64
"""What the first record names as the hash of the one before it."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_STREAM_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


class Position(NamedTuple):
    """How far one shard's stream is drained: the last stream id, and how many events that were."""

    last: str
    drained: int


@dataclass(frozen=True, slots=True)
class Head:
    """Everything up to ``size`` is in the log. Records are counted from 0.

    ``prev`` is the hash of the last record, ``ranges`` the tree's compact range: hashes in hex, of
    the largest subtree first. ``cursor`` says for each shard what of its stream is in the log.
    """

    size: int = 0
    prev: str = GENESIS
    ranges: tuple[str, ...] = ()
    cursor: Mapping[int, Position] = field(default_factory=lambda: MappingProxyType({}))

    def tree(self) -> Tree:
        """Return the Merkle tree up to here, ready for the next record."""
        return Tree(self.size, [bytes.fromhex(node) for node in self.ranges])

    @property
    def root(self) -> bytes:
        """The Merkle root of everything up to here."""
        return self.tree().root()

    @property
    def at_ms(self) -> int:
        """When the newest event up to here happened (epoch ms, the ledger's clock); 0 if none."""
        return max((int(last.partition("-")[0]) for last, _ in self.cursor.values()), default=0)

    def to_json(self) -> str:
        """Write it as one line of JSON."""
        row = {
            "size": self.size,
            "prev": self.prev,
            "ranges": list(self.ranges),
            "cursor": cursor_row(self.cursor),
        }
        return json.dumps(row, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Head:
        """Read what ``to_json`` wrote.

        Raises:
            HeadUnreadable: it is something else.
        """
        try:
            row: dict[str, Any] = json.loads(text)
            place = read_place(row.pop("size"), row.pop("prev"), row.pop("ranges"))
            return cls(*place, cursor=read_cursor(**row))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise HeadUnreadable("The audit log's commit point can't be read.") from error


def read_place(size: object, prev: object, ranges: object) -> tuple[int, str, tuple[str, ...]]:
    """Check a size, the hash before it, and a compact range of that size.

    Raises:
        ValueError: they aren't.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError("size is not a count")
    if not isinstance(prev, str) or _HASH.fullmatch(prev) is None:
        raise ValueError("prev is not a SHA-256 in hex")
    nodes = cast("Sequence[object]", ranges if isinstance(ranges, list) else [None])
    hashes = tuple(n for n in nodes if isinstance(n, str) and _HASH.fullmatch(n))
    if len(hashes) != len(nodes) or len(hashes) != size.bit_count():
        raise ValueError("ranges is not a compact range of that size")
    return size, prev, hashes


def cursor_row(cursor: Mapping[int, Position]) -> dict[str, list[str | int]]:
    """Write a cursor for JSON, whose keys are text."""
    return {str(shard): [*cursor[shard]] for shard in sorted(cursor)}


def read_cursor(cursor: Mapping[str, Any]) -> Mapping[int, Position]:
    """Read what ``cursor_row`` wrote.

    Raises:
        ValueError, TypeError, AttributeError: it is something else.
    """
    found: dict[int, Position] = {}
    for shard, (last, drained) in cursor.items():
        if not isinstance(drained, int) or drained < 0 or _STREAM_ID.fullmatch(last) is None:
            raise ValueError("not a position in a stream")
        found[int(shard)] = Position(last, drained)
    return MappingProxyType(found)
