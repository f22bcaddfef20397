"""Identifiers that say what they name and which ledger shard holds it.

``tsk_2ak5c…``: a three-letter kind, two hex digits of shard, then 120 random bits. The shard is
the root task's and passes to everything under it, so any id of a chain leads straight to its
keys, without an index that maps one to the other.
"""

from __future__ import annotations

import re
import secrets
from typing import Final, Literal

Kind = Literal["tsk", "grt", "jti", "dec", "rev", "evt", "apr", "elv"]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_CHARS: Final = 24
_HEAD_CHARS: Final = len("dec_00")
_TIME_CHARS: Final = 9
_PATTERN: Final = re.compile(r"([a-z]{3})_([0-9a-f]{2})([0-9a-hjkmnp-tv-z]{24})")
MAX_SHARDS: Final = 256


def new_id(kind: Kind, shard: int) -> str:
    """Make an id of ``kind`` that lives in ``shard`` (0 to 255).

    Raises:
        ValueError: no id can name that shard.
    """
    if not 0 <= shard < MAX_SHARDS:
        msg = f"shard {shard} is not between 0 and {MAX_SHARDS - 1}"
        raise ValueError(msg)
    bits = secrets.randbits(5 * _RANDOM_CHARS)
    chars = [_ALPHABET[(bits >> (5 * i)) & 31] for i in range(_RANDOM_CHARS)]
    return f"{kind}_{shard:02x}{''.join(chars)}"


def timed_id(kind: Kind, shard: int, at_ms: int) -> str:
    """Make an id as ``new_id`` does, of which ``time_of`` tells when: 75 bits are random."""
    whole = new_id(kind, shard)
    time = "".join(_ALPHABET[(at_ms >> (5 * i)) & 31] for i in reversed(range(_TIME_CHARS)))
    return whole[:_HEAD_CHARS] + time + whole[_HEAD_CHARS + _TIME_CHARS :]


def time_of(identifier: str) -> int:
    """Return when an id of ``timed_id`` was made, in epoch milliseconds."""
    at_ms = 0
    for char in identifier[_HEAD_CHARS : _HEAD_CHARS + _TIME_CHARS]:
        at_ms = at_ms << 5 | _ALPHABET.index(char)
    return at_ms


def shard_of(identifier: str, kind: Kind) -> int | None:
    """Return the shard of an id of ``kind``, or None if the text isn't one."""
    match = _PATTERN.fullmatch(identifier)
    if match is None or match[1] != kind:
        return None
    return int(match[2], 16)
