"""Forgetting: the oldest segments go, and that they did is signed."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from broker.audit.files import sync_folder
from broker.audit.note import NoteError
from broker.audit.segments import lines, read_forgotten, segments, write_forgotten

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from broker.audit.note import Signer, VerifierKey

_TAIL: Final = 64 << 10


def forget(
    folder: Path, before_ms: int, *, signer: Signer, keys: Sequence[VerifierKey], time: str
) -> list[Path]:
    """Remove the oldest segments whose last event is before ``before_ms``; return which.

    The newest segment stays. ``time`` is what is signed as the time of it.

    Raises:
        OSError: some may be left; they go the next time.
    """
    found = segments(folder)
    old: list[Path] = []
    kept = 0
    for (_, path), (following, _) in pairwise(found):
        if _last_event_ms(path) >= before_ms:
            break
        old.append(path)
        kept = following
    if not old:
        return []
    with suppress(NoteError):  # what isn't a note of ours is written over
        kept = max(kept, read_forgotten(folder, keys))
    write_forgotten(folder, signer, kept, time)
    for path in old:
        path.unlink()
    sync_folder(folder)
    return old


def _last_event_ms(path: Path) -> int:
    """Return the time of the last event of a segment; of one that can't be read, never.

    One without events is as old as its header.
    """
    try:
        row: dict[str, Any] = json.loads(_last_line(path))
        time = datetime.fromisoformat(row.get("event", row)["time"])
        return int(time.timestamp() * 1000)
    except (ValueError, KeyError, TypeError, AttributeError):
        return 1 << 62


def _last_line(path: Path) -> bytes:
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - _TAIL))
        end = file.read().removesuffix(b"\n")
        if b"\n" in end:
            return end.rpartition(b"\n")[2]
        file.seek(0)
        line = b""
        for line in lines(file):  # noqa: B007  the last one is wanted
            pass
        return line
