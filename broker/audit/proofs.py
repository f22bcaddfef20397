"""Proofs for strangers: that a record is in the log, that a log only grew.

A proof is a JSON document that needs nothing but the log's public key to be checked. Hashes in it
are in base64, in the order of RFC 9162 sections 2.1.3 and 2.1.4.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, cast

from broker.audit.checkpoint import CheckpointFolder, open_checkpoint
from broker.audit.errors import InvalidProof, LogDamaged, NotProvable
from broker.audit.merkle import (
    HASH_BYTES,
    MAX_PROOF,
    consistency_holds,
    consistency_spans,
    inclusion_holds,
    inclusion_spans,
    leaf_hash,
)
from broker.audit.note import NoteError
from broker.audit.record import read_record
from broker.audit.spans import hash_spans, read_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.audit.checkpoint import Checkpoint
    from broker.audit.note import VerifierKey

INCLUSION: Final = "inclusion"
CONSISTENCY: Final = "consistency"

_TLOG_PROOF: Final = "c2sp.org/tlog-proof@v1"


def prove_inclusion(
    folder: Path, keys: Sequence[VerifierKey], seq: int, *, checkpoint: str | None = None
) -> dict[str, Any]:
    """Prove that record ``seq`` is in the log that a checkpoint is of: the newest, unless given.

    Raises:
        NotProvable: no checkpoint covers it yet, or records that it needs aren't in this folder.
        LogDamaged: the records aren't those that were signed.
        OSError: the files can't be read.
    """
    note, signed = _signed(folder, keys, checkpoint)
    if not 0 <= seq < signed.size:
        raise NotProvable(f"Record {seq} is not covered by a checkpoint of {signed.size} records.")
    line = read_line(folder, seq)
    hashes = hash_spans(folder, keys, inclusion_spans(seq, signed.size), begin=seq)
    if not inclusion_holds(leaf_hash(line), seq, signed.size, hashes, signed.root):
        raise LogDamaged("The records aren't those that the checkpoint was made of.")
    return {
        "kind": INCLUSION,
        "record": line.decode(),
        "seq": seq,
        "size": signed.size,
        "proof": _encode(hashes),
        "checkpoint": note,
    }


def prove_consistency(
    folder: Path, keys: Sequence[VerifierKey], old: str, new: str | None = None
) -> dict[str, Any]:
    """Prove that the log of the checkpoint ``old`` has only grown since, to ``new`` or the newest.

    Raises:
        NotProvable: one isn't a checkpoint of this log, or records aren't in this folder.
        LogDamaged: the records aren't those that were signed.
        OSError: the files can't be read.
    """
    _, before = _signed(folder, keys, old)
    note, after = _signed(folder, keys, new)
    if before.size > after.size:
        raise NotProvable(f"A log of {before.size} records doesn't become one of {after.size}.")
    spans = consistency_spans(before.size, after.size)
    hashes = hash_spans(folder, keys, spans, begin=before.size)
    if not consistency_holds(before.size, after.size, hashes, before.root, after.root):
        raise LogDamaged("The records aren't those that the checkpoints were made of.")
    return {
        "kind": CONSISTENCY,
        "old_size": before.size,
        "new_size": after.size,
        "proof": _encode(hashes),
        "old_checkpoint": old,
        "new_checkpoint": note,
    }


def check_inclusion(document: Mapping[str, Any], keys: Sequence[VerifierKey]) -> dict[str, Any]:
    """Return the record that a document proves to be in the log.

    Raises:
        InvalidProof: it doesn't.
    """
    try:
        line, seq = _text(document, "record").encode(), _number(document, "seq")
        signed = open_checkpoint(_text(document, "checkpoint"), keys)
        record = read_record(line)
    except ValueError as error:
        raise InvalidProof(f"The proof can't be used: {error}.") from None
    hashes = _decode(document)
    if document.get("kind") != INCLUSION or _number(document, "size") != signed.size:
        raise InvalidProof("The proof is of another kind, or of another size than its checkpoint.")
    if record["seq"] != seq:
        raise InvalidProof("The record has another number than the proof is of.")
    if not inclusion_holds(leaf_hash(line), seq, signed.size, hashes, signed.root):
        raise InvalidProof("The record isn't in the log that was signed.")
    return record


def check_consistency(
    document: Mapping[str, Any], keys: Sequence[VerifierKey]
) -> tuple[Checkpoint, Checkpoint]:
    """Return the two checkpoints of which a document proves that one grew to the other.

    Raises:
        InvalidProof: it doesn't.
    """
    try:
        old = open_checkpoint(_text(document, "old_checkpoint"), keys)
        new = open_checkpoint(_text(document, "new_checkpoint"), keys)
    except NoteError as error:
        raise InvalidProof(f"The proof can't be used: {error}.") from None
    sizes = (_number(document, "old_size"), _number(document, "new_size"))
    if document.get("kind") != CONSISTENCY or sizes != (old.size, new.size):
        raise InvalidProof("The proof is of another kind, or of other sizes than its checkpoints.")
    if not consistency_holds(*sizes, _decode(document), old.root, new.root):
        raise InvalidProof("The log of the new checkpoint doesn't begin with that of the old one.")
    return old, new


def tlog_proof(document: Mapping[str, Any]) -> str:
    """Write a proof of inclusion in the form of c2sp.org/tlog-proof; the record goes beside it."""
    lines = [_TLOG_PROOF, f"index {document['seq']}", *document["proof"], ""]
    return "\n".join([*lines, document["checkpoint"]])


def _signed(folder: Path, keys: Sequence[VerifierKey], note: str | None) -> tuple[str, Checkpoint]:
    """Open a checkpoint, the newest if none is given."""
    if note is None:
        content = CheckpointFolder(folder).latest()
        if content is None:
            raise NotProvable("The log has no checkpoint yet.")
        note = content.decode(errors="replace")
    try:
        return note, open_checkpoint(note, keys)
    except NoteError as error:
        raise NotProvable(f"The checkpoint can't be used: {error}.") from None


def _encode(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(node).decode() for node in hashes]


def _decode(document: Mapping[str, Any]) -> list[bytes]:
    found: object = document.get("proof")
    encoded = cast("list[object]", found) if isinstance(found, list) else [found]
    try:
        hashes = [base64.b64decode(str(node), validate=True) for node in encoded]
    except (binascii.Error, ValueError):
        hashes = [b""]
    if len(hashes) > MAX_PROOF or any(len(node) != HASH_BYTES for node in hashes):
        raise InvalidProof("The proof must be a list of SHA-256 hashes in base64.")
    return hashes


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if isinstance(value, str):
        return value
    raise InvalidProof(f"{name} must be text.")


def _number(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidProof(f"{name} must be a number.")
