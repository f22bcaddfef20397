"""Ids say their kind and shard; nothing else passes for one."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ids import MAX_SHARDS, Kind, new_id, shard_of

KINDS: tuple[Kind, ...] = get_args(Kind)
SHARDS = st.integers(0, MAX_SHARDS - 1)


@given(st.sampled_from(KINDS), SHARDS)
def test_an_id_tells_its_shard_to_who_asks_for_its_kind(kind: Kind, shard: int) -> None:
    made = new_id(kind, shard)
    assert shard_of(made, kind) == shard
    assert [other for other in KINDS if shard_of(made, other) is not None] == [kind]


def test_ids_are_never_the_same_twice_and_use_their_whole_alphabet() -> None:
    made = [new_id("tsk", 0) for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert len({char for one in made for char in one[6:]}) == 32


@pytest.mark.parametrize("shard", [-1, MAX_SHARDS, 4096])
def test_a_shard_that_no_id_can_name_is_refused(shard: int) -> None:
    with pytest.raises(ValueError, match="shard"):
        new_id("tsk", shard)


@given(SHARDS, st.text(min_size=1, max_size=3))
def test_nothing_may_stand_before_or_after_an_id(shard: int, more: str) -> None:
    made = new_id("grt", shard)
    assert shard_of(made + more, "grt") is None
    assert shard_of(more + made, "grt") is None


@given(SHARDS, st.integers(0, 29), st.characters())
def test_no_other_character_passes(shard: int, at: int, char: str) -> None:
    made = new_id("jti", shard)
    changed = made[:at] + char + made[at + 1 :]
    allowed = (
        "jti_"[at]
        if at < 4
        else "0123456789abcdef"
        if at < 6
        else ("0123456789abcdefghjkmnpqrstvwxyz")
    )
    assert (shard_of(changed, "jti") is not None) is (char in allowed)


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    assert shard_of(text, "tsk") is None


@pytest.mark.parametrize(
    "text",
    ["", "tsk_", "tsk_00", f"tsk_00{'0' * 23}", f"tsk_00{'0' * 25}", f"TSK_00{'0' * 24}",
     f"tsk_0A{'0' * 24}", f"tsk_00{'i' * 24}", f"tsk_00{'0' * 24}\n", "tsk_00" + "\u0660" * 24,
     f"tsk_{{}}{'0' * 24}", f"tsk_00{'0' * 23}}}", f"tsk-00{'0' * 24}", f"tsk_0|{'0' * 24}"],
)  # fmt: skip
def test_hostile_strings_are_no_ids(text: str) -> None:
    assert shard_of(text, "tsk") is None
