from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.audit.checkpoint import Checkpoint, open_checkpoint
from broker.audit.merkle import EMPTY_ROOT
from broker.audit.note import (
    NoteError,
    Signer,
    VerifierKey,
    log_origin,
    open_note,
    parse_note,
    verify_signature,
)
from broker.audit.signing_key import load_signer
from broker.errors import ConfigError
from tests.unit.audit_world import ORIGIN, signer

if TYPE_CHECKING:
    from pathlib import Path

# The example that the documentation of Go's golang.org/x/mod/sumdb/note gives, with its keys.
GO_KEY: Final = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_PRIVATE: Final = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT: Final = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE: Final = (
    f"{GO_TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZ"
    "SNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

CHECKPOINT: Final = Checkpoint(ORIGIN, 4711, EMPTY_ROOT)


def test_a_note_of_another_implementation_is_signed_and_opened_alike() -> None:
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(GO_PRIVATE)[1:])
    peter = Signer("PeterNeumann", private)
    assert str(peter.key) == GO_KEY
    assert peter.sign(GO_TEXT) == GO_NOTE
    assert open_note(GO_NOTE, [VerifierKey.parse(GO_KEY)]) == GO_TEXT
    assert open_note(GO_NOTE.encode(), [VerifierKey.parse(GO_KEY)]) == GO_TEXT


def test_a_text_may_have_empty_lines() -> None:
    text = "one\n\ntwo\n"
    assert open_note(signer().sign(text), [signer().key]) == text


def test_signatures_of_strangers_are_passed_over() -> None:
    note = signer().sign("text\n")
    witness = signer(9, "witness.example").sign("text\n").rpartition("\n\n")[2]
    assert open_note(note + witness, [signer().key]) == "text\n"
    assert len(parse_note(note + witness).signatures) == 2
    with pytest.raises(NoteError, match="not signed by a key that is known"):
        open_note(note, [signer(2).key])
    with pytest.raises(NoteError, match="not signed by a key that is known"):
        open_note(note, [signer(1, "another.example").key])
    with pytest.raises(NoteError, match="not signed by a key that is known"):
        open_note(note, [])


def test_one_bad_signature_of_a_known_key_spoils_the_note() -> None:
    good = signer().sign("text\n")
    bad = signer().sign("other\n").rpartition("\n\n")[2]
    for note in (good + bad, "text\n\n" + bad, good.replace("text", "texx")):
        with pytest.raises(NoteError, match="not of this text"):
            open_note(note, [signer().key])


SIGNATURE: Final = signer().sign("text\n").rpartition("\n\n")[2]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "text\n",
        "text\n\n",
        SIGNATURE,
        "text\n" + SIGNATURE,
        "text\n\n" + SIGNATURE.rstrip("\n"),
        "text\n\n" + SIGNATURE.replace("—", "-"),
        "text\n\n" + SIGNATURE.replace("— ", "—"),
        "text\n\n" + SIGNATURE + "\n",
        "text\n\n" + SIGNATURE.replace(ORIGIN, "a+b"),
        "text\n\n" + SIGNATURE.replace(ORIGIN, ""),
        "text\n\n" + SIGNATURE.replace("=\n", "\n"),
        "text\n\n" + SIGNATURE.replace(ORIGIN + " ", ORIGIN + "  "),
        "text\n\n" + f"— {ORIGIN} AAAAAA==\n",
        "text\n\n" + f"— {ORIGIN} !!!!\n",
        "te\txt\n\n" + SIGNATURE,
        "text\r\n\n" + SIGNATURE,
        b"te\xffxt\n\n" + SIGNATURE.encode(),
        "te\ud800xt\n\n" + SIGNATURE,
        "text\n\n" + SIGNATURE * 101,
        "x" * 70_000 + "\n\n" + SIGNATURE,
    ],
    ids=range(21),
)
def test_what_is_not_quite_a_note_is_none(content: str | bytes) -> None:
    with pytest.raises(NoteError):
        open_note(content, [signer().key])


@pytest.mark.parametrize("text", ["", "no newline", "with a \t tab\n", "and \0\n"])
def test_what_cannot_be_the_text_of_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(NoteError):
        signer().sign(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+c74f20a3",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("c74f20a3", "C74F20A3"),
        GO_KEY.replace("PeterNeumann", "Peter Neumann"),
        GO_KEY.replace("PeterNeumann", "Peter"),
        GO_KEY.replace("+AR", "+Aw"),  # of another algorithm
        GO_KEY[:-4],
        GO_KEY + "=",
        GO_KEY + "\n",
    ],
    ids=range(11),
)
def test_what_is_not_quite_a_key_is_none(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)


def test_a_signature_apart_from_a_note_is_of_a_known_key_and_of_this_text() -> None:
    made = signer().signature("text\n")
    verify_signature("text\n", made, [signer(2).key, signer().key])
    for text, encoded, key in (
        ("other\n", made, signer()),
        ("text\n", made, signer(2)),
        ("text\n", made[:-4], signer()),
        ("text\n", "", signer()),
    ):
        with pytest.raises(NoteError):
            verify_signature(text, encoded, [key.key])


def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    note = signer().sign(CHECKPOINT.text())
    assert note.startswith(f"{ORIGIN}\n4711\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— ")
    assert open_checkpoint(note, [signer().key]) == CHECKPOINT


def test_extension_lines_say_nothing_to_us() -> None:
    note = signer().sign(CHECKPOINT.text() + "extension\n")
    assert open_checkpoint(note, [signer().key]) == CHECKPOINT


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n4711\n",
        f"{ORIGIN}\n04711\n{CHECKPOINT.text().split()[2]}\n",
        f"{ORIGIN}\n-1\n{CHECKPOINT.text().split()[2]}\n",
        f"{ORIGIN}\n４\n{CHECKPOINT.text().split()[2]}\n",  # noqa: RUF001  that is the point
        f"{ORIGIN}\n4711\n{CHECKPOINT.text().split()[2][:-4]}\n",
        f"{ORIGIN}\n4711\nnot base64\n",
        f"\n4711\n{CHECKPOINT.text().split()[2]}\n",
        f"{CHECKPOINT.text()}\nextension\n",
        f"another.example\n4711\n{CHECKPOINT.text().split()[2]}\n",
    ],
    ids=range(9),
)
def test_what_is_not_quite_a_checkpoint_of_this_log_is_none(text: str) -> None:
    with pytest.raises(NoteError):
        open_checkpoint(signer().sign(text), [signer().key])


@pytest.mark.parametrize(
    ("issuer", "origin"),
    [
        ("http://127.0.0.1:8700", "127.0.0.1:8700/audit"),
        ("https://broker.example/", "broker.example/audit"),
        ("https://broker.example/a+b", "broker.example/a%2Bb/audit"),
    ],
)
def test_the_origin_is_the_issuer_without_its_scheme(issuer: str, origin: str) -> None:
    assert log_origin(issuer) == origin
    assert VerifierKey(origin, bytes(32)).name == origin


def test_the_key_is_made_once_and_for_the_broker_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit-signing.key"
    made = load_signer(path, ORIGIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signer(path, ORIGIN).key == made.key
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_replicas_that_begin_at_once_have_one_key(tmp_path: Path) -> None:
    path = tmp_path / "audit-signing.key"
    with ThreadPoolExecutor(4) as pool:
        loading = [pool.submit(load_signer, path, ORIGIN) for _ in range(8)]
    assert len({each.result().key for each in loading}) == 1


def test_a_signer_shows_its_public_half_alone() -> None:
    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes_raw()
    shown = repr(Signer(ORIGIN, private))
    assert secret.hex() not in shown
    assert base64.b64encode(secret).decode() not in shown
    assert shown == f"Signer({Signer(ORIGIN, private).key})"


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_signer(path, ORIGIN)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_signer(path, ORIGIN)


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    locked = BestAvailableEncryption(b"password")
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    for content in (
        b"",
        b"not a key",
        ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, NoEncryption()),
        Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, locked),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError):
            load_signer(path, ORIGIN)
