"""Key revocation lists of OpenSSH: written, read, kept whole, and read alike by ``ssh-keygen``."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.backends.krl import Damaged, Krl, decode
from broker.backends.krl_file import KrlFile
from broker.clock import SystemClock
from broker.errors import BackendRefused
from tests.clocks import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = ManualClock().now()
HOUR: Final = 3600
needs_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen isn't here: install openssh-client"
)

serials = st.integers(1, 2**64 - 1)
kinds = st.sampled_from((2, 3, 5, 255))


def keygen(*words: str | Path) -> str:
    return subprocess.run(
        ["ssh-keygen", *map(str, words)], capture_output=True, text=True, check=True
    ).stdout


@given(
    st.dictionaries(serials, st.integers(0, 10 * HOUR)),
    st.lists(st.tuples(kinds, st.binary(max_size=40)), max_size=3),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=20),
)
def test_what_is_written_is_read_again(
    ends: dict[int, int], others: list[tuple[int, bytes]], version: int, comment: bytes
) -> None:
    before = Krl({}, tuple(others), version, comment)

    krl = before.with_serials({serial: NOW + left for serial, left in ends.items()}, NOW)

    assert decode(krl.encode(NOW)) == krl
    assert krl.serials.keys() == ends.keys()
    assert (krl.others, krl.version, krl.comment) == (
        tuple(others),
        min(version + 1, 2**64 - 1),
        comment,
    )


@given(st.dictionaries(serials, st.integers(-50 * HOUR, 50 * HOUR), max_size=20))
def test_none_is_let_go_before_its_certificate_has_ended(ends: dict[int, int]) -> None:
    krl = Krl().with_serials({serial: NOW + left for serial, left in ends.items()}, NOW)

    for late in range(0, 60 * HOUR, 7 * HOUR):
        krl = krl.with_serials({}, NOW + late)
        for serial, left in ends.items():
            if left >= late:
                assert serial in krl.serials
            if left + 2 * HOUR <= late:
                assert serial not in krl.serials


@given(st.binary(max_size=200))
def test_bytes_that_are_no_list_are_damaged_and_nothing_else(raw: bytes) -> None:
    whole = Krl().with_serials({7: NOW}, NOW).encode(NOW)
    for each in (raw, whole + raw[:1], whole[: -1 - len(raw) % (len(whole) - 1)]):
        try:
            again = decode(each).encode(NOW)
        except Damaged:
            continue
        assert again[36:] == each[36:]  # at least nothing is lost


@needs_keygen
async def test_ssh_keygen_reads_it_and_its_own_lists_are_added_to(tmp_path: Path) -> None:
    """An operator's list goes on: its sections are kept byte for byte."""
    for name in ("ca", "stolen"):
        keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name)
    (tmp_path / "spec").write_text("serial: 7-9\nid: left\n")
    path = tmp_path / "krl"
    keygen("-k", "-f", path, "-s", tmp_path / "ca.pub", tmp_path / "spec", tmp_path / "stolen.pub")
    theirs = path.read_bytes()
    file = KrlFile(path, SystemClock())

    await file.ready()
    assert path.read_bytes() == theirs
    await file.add(2**64 - 1, SystemClock().now() + 60)
    await file.add(5, SystemClock().now() + 60)

    listed = keygen("-Q", "-l", "-f", path)
    assert "# Wildcard CA\nserial: 5\nserial: 18446744073709551615\n" in listed
    assert "serial: 7-9\nid: left\n" in listed
    assert listed.count("hash: SHA256:") == 1
    assert theirs[44:] in path.read_bytes()
    assert await file.has(5)
    assert not await file.has(8)  # of another CA: not by our hand


async def test_a_file_is_made_when_none_is_there_and_anybody_may_read_it(tmp_path: Path) -> None:
    file = KrlFile(tmp_path / "krl", ManualClock())
    assert not await file.has(1)

    await file.ready()

    assert decode((tmp_path / "krl").read_bytes()).serials == {}
    assert (tmp_path / "krl").stat().st_mode & 0o777 == 0o644


async def test_a_damaged_file_is_left_alone_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "krl"
    file = KrlFile(path, ManualClock())
    await file.add(1, NOW)
    whole = path.read_bytes()
    signed = whole + bytes([4, 0, 0, 0, 0])
    endless = whole.replace(b"broker until ", b"broker until x")
    for spoilt in (b"", b"junk", whole[:-3], whole + b"\0", signed, endless):
        path.write_bytes(spoilt)
        for attempt in (file.ready(), file.add(2, NOW), file.has(1)):
            with pytest.raises(BackendRefused, match=r"left as it is.*ssh-keygen -k -f"):
                await attempt
        assert path.read_bytes() == spoilt

    path.write_bytes(whole)
    await file.add(3, NOW)
    assert [await file.has(serial) for serial in (1, 2, 3)] == [True, True, True]


async def test_a_link_stays_one_and_the_file_that_servers_read_is_written(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    link, read = tmp_path / "krl", tmp_path / "etc" / "revoked"
    link.symlink_to(read)
    file = KrlFile(link, ManualClock())

    await file.ready()
    await asyncio.gather(file.add(1, NOW), KrlFile(read, ManualClock()).add(2, NOW))

    assert link.is_symlink()
    assert decode(read.read_bytes()).serials.keys() == {1, 2}


@pytest.mark.parametrize(
    "said",
    [b"", b"x", b"-5", b"1" * 5000, "٣".encode()],
    ids=["no", "word", "minus", "long", "far"],
)
def test_a_section_of_ours_that_says_no_end_is_damaged(said: bytes) -> None:
    body = b"".join(len(text).to_bytes(4, "big") + text for text in (b"", b"broker until " + said))
    section = body + bytes([0x20]) + bytes(4)
    with pytest.raises(Damaged, match="broker's own"):
        decode(Krl().encode(NOW) + bytes([1]) + len(section).to_bytes(4, "big") + section)


async def test_what_comes_at_once_is_all_on_it_with_few_writes(tmp_path: Path) -> None:
    file = KrlFile(tmp_path / "krl", ManualClock())

    await asyncio.gather(*(file.add(serial, NOW) for serial in range(1, 201)))

    krl = decode((tmp_path / "krl").read_bytes())
    assert krl.serials.keys() == set(range(1, 201))
    assert krl.version < 5


async def test_replicas_that_write_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """Each has a lock of its own on the file, as processes have."""
    path = tmp_path / "krl"

    async def add(first: int) -> None:
        file = KrlFile(path, ManualClock())
        for serial in range(first, first + 8):
            await file.add(serial, NOW)

    await asyncio.gather(add(100), add(200), add(300))

    expected = {first + n for first in (100, 200, 300) for n in range(8)}
    assert decode(path.read_bytes()).serials.keys() == expected
