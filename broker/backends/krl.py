"""OpenSSH key revocation lists, read and written as ``PROTOCOL.krl`` of OpenSSH has them.

A list is a header and sections. Ours revoke certificates by serial number under any CA (an empty
``ca_key``): OpenBao's serials are random numbers of 64 bits, and by the time of a revocation the
mount may have another CA than the one that signed. In the field that is reserved, which OpenSSH
skips, each of our sections says when the last of its certificates has ended. Sections of anybody
else are kept byte for byte.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAGIC: Final = b"SSHKRL\n\0"
_FORMAT: Final = 1
_HEADER: Final = struct.Struct(">8sIQQQ")
_CERTIFICATES, _SIGNATURE, _SERIALS = 1, 4, 0x20
_KINDS: Final = frozenset((1, 2, 3, 5, 255))
_MARK: Final = b"broker until "
_HOUR_S: Final = 3600
_MOST_VERSION: Final = 2**64 - 1
_COMMENT: Final = b"certificates revoked by the broker"
MOST_BYTES: Final = 16 << 20


class Damaged(ValueError):
    """It isn't a list that can be read and written again without losing something."""


@dataclass(frozen=True, slots=True)
class Krl:
    """One list. ``serials`` are ours, each with when its section may go, in epoch seconds."""

    serials: Mapping[int, int] = field(default_factory=dict[int, int])
    others: tuple[tuple[int, bytes], ...] = ()
    version: int = 0
    comment: bytes = _COMMENT

    def with_serials(self, ends: Mapping[int, float], now_s: float) -> Krl:
        """Return it with more certificates, by serial and end, and without those long ended.

        A section holds those of an hour, and goes an hour or two after the last of them ended:
        a server's clock may be late.
        """
        more = {serial: (int(end) // _HOUR_S + 2) * _HOUR_S for serial, end in ends.items()}
        every = {serial: max(until, more.get(serial, 0)) for serial, until in self.serials.items()}
        kept = {serial: until for serial, until in {**more, **every}.items() if until > now_s}
        return Krl(kept, self.others, min(self.version + 1, _MOST_VERSION), self.comment)

    def encode(self, now_s: float) -> bytes:
        """Return its bytes; ``now_s`` is written down as when it was made."""
        header = _HEADER.pack(_MAGIC, _FORMAT, self.version, int(now_s), 0)
        hours: defaultdict[int, list[int]] = defaultdict(list)
        for serial, until in sorted(self.serials.items()):
            hours[until].append(serial)
        ours = [(_CERTIFICATES, _ours(until, serials)) for until, serials in sorted(hours.items())]
        return b"".join(
            (header, _string(b""), _string(self.comment), *map(_section, (*self.others, *ours)))
        )


def decode(raw: bytes) -> Krl:
    """Read a list.

    Raises:
        Damaged: it is none, it is cut off, or it has something that can't be kept.
    """
    if len(raw) > MOST_BYTES:
        raise Damaged("it is over 16 MiB")
    if len(raw) < _HEADER.size or not raw.startswith(_MAGIC):
        raise Damaged("it is not a KRL")
    _, layout, version, _, _ = _HEADER.unpack_from(raw)
    if layout != _FORMAT:
        raise Damaged(f"it is of format {layout}")
    rest = _Reader(raw[_HEADER.size :])
    rest.string()
    comment = rest.string()
    serials: dict[int, int] = {}
    others: list[tuple[int, bytes]] = []
    while not rest.at_end:
        kind, body = rest.byte(), rest.string()
        if kind == _SIGNATURE:
            raise Damaged("it is signed, and would not be any more")
        if kind not in _KINDS:
            raise Damaged(f"it has a section of kind {kind}")
        found = _ours_in(body) if kind == _CERTIFICATES else None
        if found is None:
            others.append((kind, body))
        else:
            serials.update(found)
    return Krl(serials, tuple(others), version, comment)


def _section(section: tuple[int, bytes]) -> bytes:
    kind, body = section
    return bytes([kind]) + _string(body)


def _ours(until: int, serials: Iterable[int]) -> bytes:
    packed = b"".join(serial.to_bytes(8, "big") for serial in serials)
    reserved = _MARK + str(until).encode()
    return _string(b"") + _string(reserved) + bytes([_SERIALS]) + _string(packed)


def _ours_in(body: bytes) -> dict[int, int] | None:
    """Return the serials of a section of ours; None when it is somebody else's."""
    rest = _Reader(body)
    ca, reserved = rest.string(), rest.string()
    if ca or not reserved.startswith(_MARK):
        return None
    until = reserved[len(_MARK) :]
    if not re.fullmatch(rb"[0-9]{1,12}", until) or rest.byte() != _SERIALS:
        raise Damaged("a section of the broker's own is not as it writes them")
    packed = rest.string()
    if len(packed) % 8 or not rest.at_end:
        raise Damaged("a section of the broker's own is not as it writes them")
    return {
        int.from_bytes(packed[at : at + 8], "big"): int(until) for at in range(0, len(packed), 8)
    }


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


class _Reader:
    """Bytes and strings (a length of four bytes, and what it says) of a text, one by one."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._raw)

    def _take(self, length: int) -> bytes:
        taken = self._raw[self._at : self._at + length]
        if len(taken) < length:
            raise Damaged("it is cut off")
        self._at += length
        return taken

    def byte(self) -> int:
        return self._take(1)[0]

    def string(self) -> bytes:
        return self._take(int.from_bytes(self._take(4), "big"))
