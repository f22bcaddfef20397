from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from broker.audit.merkle import (
    EMPTY_ROOT,
    Tree,
    consistency_holds,
    consistency_spans,
    inclusion_holds,
    inclusion_spans,
    leaf_hash,
    node_hash,
)

LEAVES: Final = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)
"""The leaves that the implementations of RFC 6962 are tested with, and the roots they agree on."""

ROOTS: Final = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)

SIZES: Final = st.integers(min_value=1, max_value=130)


def data(count: int) -> list[bytes]:
    return [b"record %d" % number for number in range(count)]


def tree_of(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    return tree


def root_of(leaves: list[bytes]) -> bytes:
    return tree_of(leaves).root()


def hashes(leaves: list[bytes], spans: list[tuple[int, int]]) -> list[bytes]:
    return [root_of(leaves[start:end]) for start, end in spans]


def theirs(leaves: list[bytes]) -> Any:
    tree: Any = InmemoryTree(algorithm="sha256")
    for leaf in leaves:
        tree.append_entry(leaf)
    return tree


def subproof(old: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 9162 section 2.1.4.1, as it stands there."""
    if old == len(leaves):
        return [] if whole else [theirs(leaves).get_root()]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if old <= k:
        right = theirs(leaves[k:]).get_root()
        return [*subproof(old, leaves[:k], whole=whole), right]
    return [*subproof(old - k, leaves[k:], whole=False), theirs(leaves[:k]).get_root()]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_that_all_implementations_of_rfc_6962_agree_on(size: int) -> None:
    assert root_of([bytes.fromhex(leaf) for leaf in LEAVES[:size]]).hex() == ROOTS[size]


def test_the_proofs_of_the_rfcs_example_tree() -> None:
    # RFC 9162 section 2.1.5: seven leaves; a to f, j are their hashes, g, h, i pairs, k, l fours.
    leaves = data(7)
    a, b, c, d, e, f, j = (leaf_hash(leaf) for leaf in leaves)
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, l = node_hash(g, h), node_hash(i, j)  # noqa: E741  the RFC's names
    assert root_of(leaves) == node_hash(k, l)
    assert hashes(leaves, inclusion_spans(0, 7)) == [b, h, l]
    assert hashes(leaves, inclusion_spans(3, 7)) == [c, g, l]
    assert hashes(leaves, inclusion_spans(4, 7)) == [f, j, k]
    assert hashes(leaves, inclusion_spans(6, 7)) == [i, k]
    assert hashes(leaves, consistency_spans(3, 7)) == [c, d, g, l]
    assert hashes(leaves, consistency_spans(4, 7)) == [l]
    assert hashes(leaves, consistency_spans(6, 7)) == [i, j, k]


@given(SIZES)
def test_roots_are_those_of_an_independent_library(size: int) -> None:
    leaves = data(size)
    assert root_of(leaves) == theirs(leaves).get_root()


@given(SIZES, st.data())
def test_inclusion_proofs_are_those_of_an_independent_library(
    size: int, draw: st.DataObject
) -> None:
    leaves = data(size)
    index = draw.draw(st.integers(0, size - 1))
    ours = hashes(leaves, inclusion_spans(index, size))
    assert [leaf_hash(leaves[index]), *ours] == theirs(leaves).prove_inclusion(index + 1, size).path
    assert inclusion_holds(leaf_hash(leaves[index]), index, size, ours, root_of(leaves))


@given(SIZES, st.data())
def test_consistency_proofs_show_that_a_tree_only_grew(size: int, draw: st.DataObject) -> None:
    leaves = data(size)
    old = draw.draw(st.integers(0, size))
    proof = hashes(leaves, consistency_spans(old, size))
    before, after = root_of(leaves[:old]), root_of(leaves)
    assert consistency_holds(old, size, proof, before, after)
    if old:
        assert proof == subproof(old, leaves, whole=True)
        # The library has proofs of a form of its own; that they hold says that the roots are right.
        theirs(leaves).prove_consistency(old, size).verify(before, after, old, size, "sha256")


@given(SIZES, st.data())
def test_a_proof_that_was_touched_proves_nothing(size: int, draw: st.DataObject) -> None:
    leaves = data(size)
    index = draw.draw(st.integers(0, size - 1))
    leaf, root = leaf_hash(leaves[index]), root_of(leaves)
    proof = hashes(leaves, inclusion_spans(index, size))
    other = draw.draw(st.integers(0, size + 3).filter(lambda n: n != index))
    assert not inclusion_holds(leaf, other, size, proof, root)
    assert not inclusion_holds(leaf_hash(b"another"), index, size, proof, root)
    assert not inclusion_holds(leaf, index, size, [*proof, root], root)
    assert not inclusion_holds(leaf, index, size, proof, EMPTY_ROOT)
    for place in range(len(proof)):
        changed = [*proof[:place], leaf_hash(b"x"), *proof[place + 1 :]]
        assert not inclusion_holds(leaf, index, size, changed, root)
        assert not inclusion_holds(leaf, index, size, proof[:place] + proof[place + 1 :], root)


@given(st.integers(2, 130), st.data())
def test_a_tree_that_was_rewritten_is_not_consistent(size: int, draw: st.DataObject) -> None:
    leaves = data(size)
    old = draw.draw(st.integers(1, size - 1))
    before = root_of(leaves[:old])
    rewritten = leaves.copy()
    rewritten[draw.draw(st.integers(0, old - 1))] = b"never happened"
    proof = hashes(rewritten, consistency_spans(old, size))
    assert not consistency_holds(old, size, proof, before, root_of(rewritten))
    good = hashes(leaves, consistency_spans(old, size))
    assert not consistency_holds(old, size, good, before, root_of(rewritten))
    assert not consistency_holds(old, size, [*good, before], before, root_of(leaves))
    assert not consistency_holds(old, size, good[:-1], before, root_of(leaves))


@given(st.integers(0, 130), st.integers(0, 130))
def test_a_compact_range_goes_on_where_it_was_kept(kept: int, more: int) -> None:
    leaves = data(kept + more)
    start = tree_of(leaves[:kept])
    again = Tree(start.size, start.nodes)
    for leaf in leaves[kept:]:
        again.append(leaf_hash(leaf))
    assert (again.root(), again.size) == (root_of(leaves), kept + more)
    assert start.could_become(again)
    assert start.root() == root_of(leaves[:kept])


@given(st.integers(1, 60), st.integers(0, 60))
def test_a_fork_shows_in_the_nodes_that_two_ranges_share(size: int, more: int) -> None:
    leaves = data(size + more)
    grown, forked = tree_of(leaves), tree_of([b"another", *leaves[1:]])
    shared = set(tree_of(leaves[:size]).spans()) & set(forked.spans())
    assert tree_of(leaves[:size]).could_become(grown)
    seen = any(start == 0 for start, _ in shared)
    assert tree_of(leaves[:size]).could_become(forked) is not seen
    assert not (more and grown.could_become(tree_of(leaves[:size])))


def test_subtrees_fit_only_where_they_belong() -> None:
    leaves = data(8)
    tree = Tree()
    tree.append_subtree(root_of(leaves[:4]), 2)
    tree.append_subtree(root_of(leaves[4:6]), 1)
    tree.append(leaf_hash(leaves[6]))
    assert tree.root() == root_of(leaves[:7])
    with pytest.raises(ValueError, match="begins at 7"):
        tree.append_subtree(root_of(leaves[:2]), 1)


def test_a_proof_of_a_smaller_tree_is_none_of_a_larger_one() -> None:
    leaves = data(3)
    pair, leaf = root_of(leaves[:2]), leaf_hash(leaves[0])
    sibling = [leaf_hash(leaves[1])]
    assert inclusion_holds(leaf, 0, 2, sibling, pair)
    assert not inclusion_holds(leaf, 0, 3, sibling, pair)
    assert not inclusion_holds(leaf, 0, 1, sibling, pair)
    assert inclusion_holds(leaf, 0, 1, [], leaf)
    assert not inclusion_holds(leaf, 0, 2, [], leaf)


def test_what_cannot_be_proved_is_not_asked_for() -> None:
    with pytest.raises(ValueError, match="3 is not in a tree of 3"):
        inclusion_spans(3, 3)
    with pytest.raises(ValueError, match="can't grow"):
        consistency_spans(4, 3)
    with pytest.raises(ValueError, match="can't be a tree"):
        Tree(3, [EMPTY_ROOT])
    assert not inclusion_holds(EMPTY_ROOT, -1, 3, [], EMPTY_ROOT)
    assert not consistency_holds(4, 3, [], EMPTY_ROOT, EMPTY_ROOT)
    assert not consistency_holds(3, 4, [], EMPTY_ROOT, EMPTY_ROOT)
    assert not consistency_holds(0, 4, [EMPTY_ROOT], EMPTY_ROOT, EMPTY_ROOT)
