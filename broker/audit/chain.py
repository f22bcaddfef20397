"""The hash chain and the Merkle tree above it, followed record by record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from broker.audit.head import GENESIS, Head
from broker.audit.merkle import Tree, leaf_hash
from broker.audit.record import record_hash, record_tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.audit.head import Position

_BEGIN: Final = b'{"event":{'


class Chain:
    """Where one stands in the log: the next record's number, what it follows, and the tree so far.

    ``tree`` is None where it isn't known what the records before were.
    """

    __slots__ = ("prev", "size", "tree")

    def __init__(self, size: int = 0, prev: str = GENESIS, tree: Tree | None = None) -> None:
        """Begin before record ``size``."""
        self.size = size
        self.prev = prev
        self.tree = tree

    @classmethod
    def after(cls, head: Head) -> Self:
        """Begin where ``head`` ends."""
        return cls(head.size, head.prev, head.tree())

    def copy(self) -> Chain:
        """Return another that goes on by itself."""
        return Chain(self.size, self.prev, self.tree.copy() if self.tree else None)

    def take(self, line: bytes) -> bool:
        """Go over the next record, given its line with the newline.

        Returns False, and stays, if the line isn't that of a record that follows.
        """
        body = line[:-1]
        tail = record_tail(self.size, self.prev)
        if line[-1:] != b"\n" or not body.startswith(_BEGIN) or not body.endswith(tail):
            return False
        self.add(body)
        return True

    def add(self, body: bytes) -> None:
        """Go over a record, given its line without the newline."""
        self.size += 1
        self.prev = record_hash(body)
        if self.tree is not None:
            self.tree.append(leaf_hash(body))

    def is_at(self, head: Head) -> bool:
        """Whether this is where ``head`` ends."""
        ranges = self.tree.hex_nodes() if self.tree is not None else None
        return (self.size, self.prev, ranges) == (head.size, head.prev, head.ranges)

    def head(self, cursor: Mapping[int, Position]) -> Head:
        """Return this place as a head.

        Raises:
            ValueError: the tree isn't known.
        """
        if self.tree is None:
            raise ValueError("the tree before this place isn't known")
        return Head(self.size, self.prev, self.tree.hex_nodes(), cursor)
