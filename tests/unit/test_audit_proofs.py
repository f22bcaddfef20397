from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymerkle import InclusionProof, InmemoryTree
from pymerkle import InvalidProof as TheirInvalidProof

from broker.audit.checkpoint import Checkpoint, CheckpointFolder, open_checkpoint
from broker.audit.errors import InvalidProof, LogDamaged, NotProvable
from broker.audit.head import GENESIS
from broker.audit.merkle import leaf_hash
from broker.audit.proofs import (
    check_consistency,
    check_inclusion,
    prove_consistency,
    prove_inclusion,
    tlog_proof,
)
from broker.audit.record import record_line
from broker.audit.segments import segment_file, segments
from broker.audit.spans import find_event, read_line
from tests.unit.audit_world import ORIGIN, START, STEP_MS, LogWorld, event, signer

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 27


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LogWorld:
    """Segments of a few records; a checkpoint was given away after each record."""
    world = LogWorld(tmp_path_factory.mktemp("proofs") / "audit", segment_bytes=1400)
    world.fill(*[1] * COUNT)
    assert len(segments(world.folder)) > 5
    return world


def all_lines(world: LogWorld) -> list[bytes]:
    return [read_line(world.folder, seq) for seq in range(COUNT)]


def theirs(lines: list[bytes]) -> Any:
    tree: Any = InmemoryTree(algorithm="sha256")
    for line in lines:
        tree.append_entry(line)
    return tree


def decoded(document: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(node) for node in document["proof"]]


def their_check(document: dict[str, Any], root: bytes) -> None:
    """The independent library, given nothing but what is in the document."""
    leaf = leaf_hash(document["record"].encode())
    index, size = document["seq"] + 1, document["size"]
    rule = theirs([b""] * size).prove_inclusion(index, size).rule
    proof: Any = InclusionProof("sha256", True, size, index, rule, [leaf, *decoded(document)])
    proof.verify(leaf, root, index=index, size=size, algorithm="sha256")


# One log for all examples: it is only read.
ONCE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONCE
@given(st.integers(1, COUNT), st.data())
def test_any_record_is_proved_against_any_checkpoint(
    world: LogWorld, size: int, draw: st.DataObject
) -> None:
    seq = draw.draw(st.integers(0, size - 1))
    note, keys = world.notes[size - 1], [world.signer.key]
    document = prove_inclusion(world.folder, keys, seq, checkpoint=note)
    assert json.loads(json.dumps(document)) == document
    assert check_inclusion(document, keys)["event"] == event(seq)
    root = open_checkpoint(note, keys).root
    their_check(document, root)
    with pytest.raises(TheirInvalidProof):
        their_check({**document, "record": document["record"] + " "}, root)


@ONCE
@given(st.integers(1, COUNT), st.data())
def test_any_checkpoint_is_shown_to_have_grown_out_of_any_earlier_one(
    world: LogWorld, new: int, draw: st.DataObject
) -> None:
    old = draw.draw(st.integers(1, new))
    keys, lines = [world.signer.key], all_lines(world)
    document = prove_consistency(world.folder, keys, world.notes[old - 1], new=world.notes[new - 1])
    before, after = check_consistency(document, keys)
    assert (before.size, after.size) == (old, new)
    tree = theirs(lines[:new])
    assert (before.root, after.root) == (tree.get_root(old), tree.get_root(new))
    tree.prove_consistency(old, new).verify(before.root, after.root, old, new, "sha256")


def test_a_proof_is_of_the_newest_checkpoint_unless_said_otherwise(world: LogWorld) -> None:
    keys = [world.signer.key]
    document = prove_inclusion(world.folder, keys, 5)
    assert (document["size"], document["checkpoint"]) == (COUNT, world.notes[-1])
    grown = prove_consistency(world.folder, keys, world.notes[4])
    assert (grown["new_size"], grown["new_checkpoint"]) == (COUNT, world.notes[-1])


def test_the_empty_log_grew_into_this_one(world: LogWorld) -> None:
    keys = [world.signer.key]
    nothing = CheckpointFolder(world.folder).read(0)
    assert nothing is not None
    document = prove_consistency(world.folder, keys, nothing.decode())
    assert document["proof"] == []
    assert check_consistency(document, keys)[0].size == 0


@pytest.mark.parametrize("seq", [0, 2, 3, 13, COUNT - 1])
def test_an_event_is_found_by_its_id(world: LogWorld, seq: int) -> None:
    assert find_event(world.folder, event(seq)["id"]) == seq


def test_what_is_not_in_the_log_is_not_proved(world: LogWorld) -> None:
    keys = [world.signer.key]
    for unknown in ("1800000000000-99-0", event(3)["id"][:-1], "grt_3", "\ud800"):
        with pytest.raises(NotProvable, match="has no event"):
            find_event(world.folder, unknown)
    with pytest.raises(NotProvable, match=f"Record {COUNT} is not covered"):
        prove_inclusion(world.folder, keys, COUNT)
    with pytest.raises(NotProvable, match="Record 5 is not covered by a checkpoint of 5"):
        prove_inclusion(world.folder, keys, 5, checkpoint=world.notes[4])
    with pytest.raises(NotProvable, match="is not covered"):
        prove_inclusion(world.folder, keys, -1)
    with pytest.raises(NotProvable, match="doesn't become one of 5"):
        prove_consistency(world.folder, keys, world.notes[5], new=world.notes[4])


def test_checkpoints_of_others_are_not_proved_anything_against(
    world: LogWorld, tmp_path: Path
) -> None:
    with pytest.raises(NotProvable, match="not signed by a key"):
        prove_inclusion(world.folder, [signer(2).key], 3)
    with pytest.raises(NotProvable, match="no checkpoint yet"):
        prove_inclusion(tmp_path, [world.signer.key], 3)
    with pytest.raises(NotProvable, match="can't be used"):
        prove_consistency(world.folder, [world.signer.key], "not a note")


def test_the_standard_form_has_the_same_in_it(world: LogWorld) -> None:
    document = prove_inclusion(world.folder, [world.signer.key], 5)
    head, _, note = tlog_proof(document).partition("\n\n")
    assert head.split("\n") == ["c2sp.org/tlog-proof@v1", "index 5", *document["proof"]]
    assert note == document["checkpoint"]


def test_a_touched_document_proves_nothing(world: LogWorld) -> None:
    keys = [world.signer.key]
    good = prove_inclusion(world.folder, keys, 5)
    other = prove_inclusion(world.folder, keys, 6)
    changes: list[dict[str, Any]] = [
        {"record": good["record"].replace("report-writer", "somebody-else")},
        {"record": other["record"]},
        {"record": "junk"},
        {"record": None},
        {"record": "\ud800"},
        {"seq": 6},
        {"seq": "5"},
        {"seq": True},
        {"size": COUNT - 1},
        {"size": None},
        {"proof": other["proof"]},
        {"proof": good["proof"][:-1]},
        {"proof": [*good["proof"], good["proof"][0]]},
        {"proof": good["proof"][0]},
        {"proof": ["AAAA"]},
        {"proof": ["!"]},
        {"proof": [None]},
        {"proof": good["proof"] * 50},
        {"proof": None},
        {"checkpoint": world.notes[20]},
        {"checkpoint": good["checkpoint"].replace("A", "B", 1)},
        {"checkpoint": 1},
        {"kind": "consistency"},
    ]
    for change in changes:
        with pytest.raises(InvalidProof):
            check_inclusion({**good, **change}, keys)
    for name in good:
        with pytest.raises(InvalidProof):
            check_inclusion({n: v for n, v in good.items() if n != name}, keys)
    with pytest.raises(InvalidProof, match="not signed by a key that is known"):
        check_inclusion(good, [signer(2).key])
    check_inclusion(good, keys)


def test_a_record_is_only_proved_under_its_own_number() -> None:
    line = record_line(event(7), seq=7, prev=GENESIS)
    checkpoint = Checkpoint(ORIGIN, 1, leaf_hash(line))
    document: dict[str, Any] = {
        "kind": "inclusion",
        "record": line.decode(),
        "seq": 0,
        "size": 1,
        "proof": [],
        "checkpoint": signer().sign(checkpoint.text()),
    }
    with pytest.raises(InvalidProof, match="another number"):
        check_inclusion(document, [signer().key])


def test_a_touched_document_shows_no_growth(world: LogWorld) -> None:
    keys = [world.signer.key]
    good = prove_consistency(world.folder, keys, world.notes[9])
    other = prove_consistency(world.folder, keys, world.notes[10])
    changes: list[dict[str, Any]] = [
        {"old_size": 11},
        {"new_size": COUNT - 1},
        {"proof": other["proof"]},
        {"proof": good["proof"][::-1]},
        {"proof": []},
        {"old_checkpoint": world.notes[10]},
        {"new_checkpoint": world.notes[20]},
        {"kind": "inclusion"},
        {"kind": None},
    ]
    for change in changes:
        with pytest.raises(InvalidProof):
            check_consistency({**good, **change}, keys)
    for name in good:
        with pytest.raises(InvalidProof):
            check_consistency({n: v for n, v in good.items() if n != name}, keys)
    check_consistency(good, keys)


def test_what_was_forgotten_is_not_needed_for_the_rest(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "audit", segment_bytes=1400)
    world.fill(*[1] * COUNT)
    keys = [world.signer.key]
    before = {n: prove_inclusion(world.folder, keys, n) for n in range(12, COUNT)}
    grown = prove_consistency(world.folder, keys, world.notes[12])
    with world.open() as writer:
        writer.forget(START + 12 * STEP_MS)
    assert segments(world.folder)[0][0] == 12
    assert {n: prove_inclusion(world.folder, keys, n) for n in range(12, COUNT)} == before
    assert prove_consistency(world.folder, keys, world.notes[12]) == grown
    for seq in (0, 11):
        with pytest.raises(NotProvable, match=f"Record {seq} is not in this folder"):
            prove_inclusion(world.folder, keys, seq)
    with pytest.raises(NotProvable, match="is not in this folder"):
        prove_consistency(world.folder, keys, world.notes[3])


def test_records_on_another_disk_can_be_missing_for_a_proof(tmp_path: Path) -> None:
    here, there = LogWorld(tmp_path / "here"), LogWorld(tmp_path / "there")
    here.fill(4)
    there.head = here.head
    there.fill(6)
    here.head = there.head
    here.fill(3)
    keys = [here.signer.key]
    with pytest.raises(NotProvable, match="Records 4 to 7 are not in this folder"):
        prove_inclusion(here.folder, keys, 1)
    check_inclusion(prove_inclusion(here.folder, keys, 1, checkpoint=here.notes[0]), keys)
    check_inclusion(prove_inclusion(here.folder, keys, 11), keys)
    with pytest.raises(NotProvable, match="Record 7 is not in this folder"):
        prove_inclusion(here.folder, keys, 7)


def test_nothing_is_proved_out_of_records_that_were_changed(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "audit", segment_bytes=1400)
    world.fill(*[1] * COUNT)
    keys = [world.signer.key]
    path = segment_file(world.folder, 3)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"report-writer", b"somebody-else", 1))
    for seq in (3, 4):
        with pytest.raises(LogDamaged, match="aren't those that the checkpoint"):
            prove_inclusion(world.folder, keys, seq)
    with pytest.raises(LogDamaged, match="aren't those that the checkpoints"):
        prove_consistency(world.folder, keys, world.notes[4])
    header, _, rest = good.partition(b"\n")
    path.write_bytes(header.replace(b'"prev"', b'"prew"') + b"\n" + rest)
    with pytest.raises(LogDamaged, match="has a header whose signature is bad"):
        prove_inclusion(world.folder, keys, 4)
    path.write_bytes(segment_file(world.folder, 6).read_bytes())
    with pytest.raises(LogDamaged, match="is the segment of record 6"):
        prove_inclusion(world.folder, keys, 4)
