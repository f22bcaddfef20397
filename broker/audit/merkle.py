"""Merkle trees as RFC 9162 section 2.1 has them (and RFC 6962 had them), over SHA-256.

A tree is kept as its compact range: the roots of the perfect subtrees that it is made of, largest
first, one for each bit of its size. That is all that appending needs, and all that the root needs.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EMPTY_ROOT: Final = sha256().digest()
HASH_BYTES: Final = 32
MAX_PROOF: Final = 128
"""No proof over a tree of less than 2**64 leaves has more hashes."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that grows at its right edge and remembers no more than that needs."""

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        """``nodes`` is the compact range of a tree of ``size`` leaves."""
        self.size = size
        self.nodes = list(nodes)
        if len(self.nodes) != size.bit_count():
            raise ValueError(f"{len(self.nodes)} nodes can't be a tree of {size} leaves")

    def copy(self) -> Tree:
        """Return another that grows apart."""
        return Tree(self.size, self.nodes)

    def append(self, leaf: bytes) -> None:
        """Add the hash of one more leaf."""
        self.append_subtree(leaf, 0)

    def append_subtree(self, node: bytes, level: int) -> None:
        """Add the root of a perfect subtree of 2**level leaves, which must fit at the edge."""
        if self.size & ((1 << level) - 1):
            raise ValueError(f"no subtree of level {level} begins at {self.size}")
        carry = self.size >> level
        while carry & 1:
            node = node_hash(self.nodes.pop(), node)
            carry >>= 1
        self.nodes.append(node)
        self.size += 1 << level

    def root(self) -> bytes:
        """Return the root."""
        if not self.nodes:
            return EMPTY_ROOT
        root = self.nodes[-1]
        for node in self.nodes[-2::-1]:
            root = node_hash(node, root)
        return root

    def hex_nodes(self) -> tuple[str, ...]:
        """Return the compact range in hex."""
        return tuple(node.hex() for node in self.nodes)

    def spans(self) -> list[tuple[int, int]]:
        """Return which leaves each node stands for: from the first to before the second."""
        spans: list[tuple[int, int]] = []
        start = 0
        for level in range(self.size.bit_length() - 1, -1, -1):
            if self.size >> level & 1:
                spans.append((start, start + (1 << level)))
                start += 1 << level
        return spans

    def could_become(self, later: Tree) -> bool:
        """Whether no node that both have differs: all that two compact ranges can say alone."""
        theirs = dict(zip(later.spans(), later.nodes, strict=True))
        mine = zip(self.spans(), self.nodes, strict=True)
        return self.size <= later.size and all(theirs.get(s, node) == node for s, node in mine)


def inclusion_spans(index: int, size: int) -> list[tuple[int, int]]:
    """Return the spans whose hashes prove leaf ``index`` in a tree, from the leaf up (2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"{index} is not in a tree of {size}")
    spans: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[tuple[int, int]]:
    """Return the spans whose hashes prove that a tree of ``old`` grew to ``new`` (2.1.4.1)."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} can't grow to {new}")
    if old in (0, new):
        return []
    spans: list[tuple[int, int]] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start, whole = middle, False
    if not whole:
        spans.append((start, end))
    return spans[::-1]


def inclusion_holds(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether the leaf with hash ``leaf`` is number ``index`` of the tree (2.1.3.2)."""
    if not 0 <= index < size:
        return False
    here, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if here & 1 or here == last:
            node = node_hash(sibling, node)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        here, last = here >> 1, last >> 1
    return last == 0 and node == root


def consistency_holds(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> bool:
    """Whether the tree of ``new`` leaves begins with the one of ``old`` leaves (2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = [old_root, *proof] if old.bit_count() == 1 else list(proof)
    if not path:
        return False
    here, last = old - 1, new - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    before = after = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            after = node_hash(after, node)
        here, last = here >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1
