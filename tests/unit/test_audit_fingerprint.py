"""Fingerprints: the same value is found again, and only with the key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.fingerprint import Fingerprints
from broker.errors import ConfigError
from broker.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))
CANARY = "hunter2-canary"


def test_it_is_an_hmac_of_128_bits() -> None:
    digest = hmac.new(KEY, CANARY.encode(), hashlib.sha256).digest()[:16]

    made = Fingerprints(KEY).of(CANARY)

    assert made == "fp_" + base64.b32encode(digest).decode().lower().rstrip("=")
    assert re.fullmatch(r"fp_[a-z2-7]{26}", made)


def test_the_same_value_is_found_however_it_is_held() -> None:
    prints = Fingerprints(KEY)

    assert prints.of(CANARY) == prints.of(Secret(CANARY)) == prints.of(CANARY.encode())
    assert prints.of_value(CANARY) == prints.of(CANARY)
    assert prints.of_value({"b": 1, "a": [None, True]}) == prints.of('{"a":[null,true],"b":1}')


@given(one=st.text(), other=st.text())
def test_others_are_others(one: str, other: str) -> None:
    prints = Fingerprints(KEY)

    assert (prints.of(one) == prints.of(other)) == (one == other)
    assert prints.of(one) != Fingerprints(bytes(32)).of(one)


def test_nothing_shows_the_key() -> None:
    prints = Fingerprints(KEY)

    assert repr(KEY) not in repr(prints)
    assert not hasattr(prints, "key")
    with pytest.raises(ValueError, match="32 bytes"):
        Fingerprints(KEY[:31])


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "fingerprint.key"

    with ThreadPoolExecutor(8) as pool:
        made = [prints.of(CANARY) for prints in pool.map(Fingerprints.load_or_create, [path] * 8)]

    assert set(made) == {Fingerprints.load(path).of(CANARY)}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fingerprint.key"
    Fingerprints.load_or_create(path)
    path.chmod(0o640)

    with pytest.raises(ConfigError, match="chmod 600"):
        Fingerprints.load_or_create(path)


@pytest.mark.parametrize(
    "content", [b"", b"fingerprint-key-1:", b"fingerprint-key-1:!", b"x" * 2000]
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fingerprint.key"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="not a fingerprint key") as caught:
        Fingerprints.load_or_create(path)

    assert "xxx" not in caught.value.detail
    assert path.read_bytes() == content


def test_a_place_that_cant_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"fingerprint\.key can't be used"):
        Fingerprints.load_or_create(tmp_path / "file" / "fingerprint.key")
    with pytest.raises(ConfigError, match="can't be read"):
        Fingerprints.load(tmp_path / "nowhere")
