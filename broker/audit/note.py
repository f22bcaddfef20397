"""Signed notes (c2sp.org/signed-note), Ed25519 only, and the keys that sign and verify them."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NOTE: Final = 64 << 10
_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_PUBLIC_BYTES: Final = 32
_MAX_SIGNATURES: Final = 100
_DASH: Final = "\N{EM DASH} "
_NAME: Final = re.compile(r"[^\s+]+")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class NoteError(ValueError):
    """Not a signed note, not a key, or not signed by a key that is known."""


def log_origin(issuer: str) -> str:
    """Return the origin of a broker's log: its issuer without the scheme, and ``/audit``."""
    return _SCHEME.sub("", issuer, count=1).rstrip("/").replace("+", "%2B") + "/audit"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a key that signs notes, under the name that its signatures go by."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None or len(self.public) != _PUBLIC_BYTES:
            raise NoteError("not the name or not the size of an Ed25519 key")

    @property
    def key_id(self) -> bytes:
        """What tells it from other keys of that name."""
        named = self.name.encode() + b"\n" + _ED25519 + self.public
        return sha256(named).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        """Write it in the form that verifiers take: ``name+id+key``."""
        key = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the form ``name+id+key``.

        Raises:
            NoteError: it is something else, a key of another kind, or its id isn't the key's.
        """
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        content = _base64(encoded)
        if content[:1] != _ED25519:
            raise NoteError("not the key of an Ed25519 signer")
        key = cls(name, content[1:])
        if key.key_id.hex() != key_id:
            raise NoteError("the key's id is not that of the key")
        return key

    def verifies(self, text: str, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``text``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


class Signer:
    """A private key, under the name that its signatures go by."""

    __slots__ = ("__private", "key")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        """``name`` is the log's origin."""
        self.__private = private
        self.key = VerifierKey(name, private.public_key().public_bytes_raw())
        """The public half."""

    @property
    def name(self) -> str:
        """The name of the key."""
        return self.key.name

    def __repr__(self) -> str:
        return f"Signer({self.key})"

    def signature(self, text: str) -> str:
        """Return what stands in a signature line: the key's id and the signature, in base64."""
        made = self.key.key_id + self.__private.sign(text.encode())
        return base64.b64encode(made).decode()

    def sign(self, text: str) -> str:
        """Return ``text`` as a signed note.

        Raises:
            NoteError: it can't be the text of one.
        """
        if not text.endswith("\n") or _CONTROL.search(text):
            raise NoteError("the text of a note ends with a newline and has no control characters")
        return f"{text}\n{_DASH}{self.name} {self.signature(text)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note as it was read: whether to believe it is ``open_note``'s business."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...] = field(repr=False)
    """Of each signature the key's name and id, and the signature itself."""


def parse_note(content: str | bytes) -> Note:
    """Read a signed note, strictly.

    Raises:
        NoteError: it isn't one.
    """
    text, signatures = _split(content)
    found: list[tuple[str, bytes, bytes]] = []
    for line in signatures:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        made = _base64(encoded)
        if (
            not line.startswith(_DASH)
            or _NAME.fullmatch(name) is None
            or len(made) <= _KEY_ID_BYTES
        ):
            raise NoteError("a line below the text is no signature")
        found.append((name, made[:_KEY_ID_BYTES], made[_KEY_ID_BYTES:]))
    return Note(text, tuple(found))


def open_note(content: str | bytes, keys: Iterable[VerifierKey]) -> str:
    """Return the text of a note that one of ``keys`` signed.

    Signatures of keys that aren't known are passed over.

    Raises:
        NoteError: it isn't a note, none of the keys signed it, or one of them didn't sign this.
    """
    note = parse_note(content)
    known = {(key.name, key.key_id): key for key in keys}
    believed = False
    for name, key_id, signature in note.signatures:
        key = known.get((name, key_id))
        if key is None:
            continue
        if not key.verifies(note.text, signature):
            raise NoteError("the signature is not of this text")
        believed = True
    if not believed:
        raise NoteError("not signed by a key that is known")
    return note.text


def verify_signature(text: str, encoded: str, keys: Iterable[VerifierKey]) -> None:
    """Check what ``Signer.signature`` made, apart from a note.

    Raises:
        NoteError: no key that is known made it of this text.
    """
    made = _base64(encoded)
    for key in keys:
        if key.key_id == made[:_KEY_ID_BYTES]:
            if key.verifies(text, made[_KEY_ID_BYTES:]):
                return
            raise NoteError("the signature is not of this text")
    raise NoteError("not signed by a key that is known")


def _split(content: str | bytes) -> tuple[str, list[str]]:
    """Take the text and the lines of signatures apart, at the last empty line."""
    if len(content) > MAX_NOTE:
        raise NoteError("too long for a note")
    try:
        whole = content.decode() if isinstance(content, bytes) else content
        whole.encode()
    except UnicodeError:
        raise NoteError("not UTF-8") from None
    if _CONTROL.search(whole):
        raise NoteError("has control characters")
    text, gap, below = whole.rpartition("\n\n")
    if not gap or not below.endswith("\n"):
        raise NoteError("has no signatures")
    lines = below[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise NoteError("has too many signatures")
    return text + "\n", lines


def _base64(text: str) -> bytes:
    """Decode standard base64, in its one canonical form."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("not base64") from None
    if base64.b64encode(content).decode() != text:
        raise NoteError("not canonical base64")
    return content
