"""What key files say, and what changes in their folder under a running broker."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import jwt
import pytest

from broker.errors import ConfigError
from broker.identity.jwk import thumbprint
from broker.identity.jws import parse
from broker.keys import Algorithm, KeyRing
from tests.clocks import ManualClock
from tests.unit.key_world import ec_key, folder_of, kids, put_key, rsa_key

if TYPE_CHECKING:
    from pathlib import Path

# ── what a file says ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("algorithm", Algorithm)
def test_other_programs_read_our_key_files(algorithm: Algorithm, tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    ring = KeyRing.load_or_create(directory, algorithm=algorithm)
    command = ["openssl", "pkey", "-in", str(directory / "signing-0001.pem"), "-noout"]
    subprocess.run(command, check=True, capture_output=True)
    (key,) = ring.jwks()["keys"]
    assert key["alg"] == algorithm
    token = ring.sign({}, {"sub": "a"})
    jwt.decode(token, jwt.PyJWK(key), algorithms=[algorithm.value])


def test_an_rsa_key_publishes_only_its_public_half(tmp_path: Path) -> None:
    put_key(folder_of(tmp_path) / "signing-0001.pem", rsa_key())
    (key,) = KeyRing.load_or_create(tmp_path).jwks()["keys"]
    assert set(key) == {"kty", "n", "e", "kid", "alg", "use"}
    assert (key["kty"], key["alg"], key["kid"]) == ("RSA", "RS256", thumbprint(key))


def test_the_thumbprint_of_an_rsa_key_is_that_of_rfc_7638() -> None:
    # The example of RFC 7638 section 3.1.
    key = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tS"
        "oc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQ"
        "R0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTW"
        "hAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_both_kinds_verify_and_each_signs_with_its_own_algorithm(tmp_path: Path) -> None:
    directory = folder_of(tmp_path)
    put_key(directory / "signing-0001.pem", ec_key())
    first = parse(KeyRing.load_or_create(directory).sign({}, {"sub": "a"}))
    put_key(directory / "signing-0002.pem", rsa_key())
    ring = KeyRing.load_or_create(directory)
    second = parse(ring.sign({}, {"sub": "a"}))
    assert (first.algorithm, second.algorithm) == ("ES256", "RS256")
    for token in (first, second):
        key = ring.find(token.kid or "")
        assert key is not None
        assert key.verifies(token)


@pytest.mark.parametrize("says", ["Signs-From: 1800000600\n", "x\nSigns-From: 1800000600\r\n"])
def test_a_key_signs_when_its_file_says(says: str, tmp_path: Path) -> None:
    directory = folder_of(tmp_path)
    put_key(directory / "signing-0001.pem", ec_key())
    put_key(directory / "signing-0002.pem", ec_key(), says=says)
    clock = ManualClock(1_800_000_599)
    ring = KeyRing.load_or_create(directory, clock=clock)
    first, second = kids(ring)
    assert parse(ring.sign({}, {})).kid == first
    clock.advance(1)
    assert parse(ring.sign({}, {})).kid == second


def test_with_a_clock_before_every_key_the_oldest_signs(tmp_path: Path) -> None:
    directory = folder_of(tmp_path)
    for number, since in ((1, 1_800_000_000), (2, 1_800_000_600)):
        put_key(directory / f"signing-000{number}.pem", ec_key(), says=f"Signs-From: {since}\n")
    ring = KeyRing.load_or_create(directory, clock=ManualClock(1_700_000_000))
    assert parse(ring.sign({}, {})).kid == kids(ring)[0]


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ("Signs-From: soon\n", "not epoch seconds"),
        ("Signs-From: -1\n", "not epoch seconds"),
        ("Signs-From: 1800000000.5\n", "not epoch seconds"),
        ("Signs-From: 9999999999999\n", "not epoch seconds"),
        ("Signs-From:\n", "not epoch seconds"),
        ("Created: \u0661\n", "not epoch seconds"),
        ("Signs-From: 1\nSigns-From: 2\n", "says Signs-From twice"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(says: str, problem: str, tmp_path: Path) -> None:
    put_key(folder_of(tmp_path) / "signing-0001.pem", ec_key(), says=says)
    with pytest.raises(ConfigError, match=problem):
        KeyRing.load_or_create(tmp_path)


def test_a_weak_rsa_key_is_refused(tmp_path: Path) -> None:
    put_key(folder_of(tmp_path) / "signing-0001.pem", rsa_key(1024))
    with pytest.raises(ConfigError, match="2048"):
        KeyRing.load_or_create(tmp_path)


def test_one_key_under_two_numbers_is_refused(tmp_path: Path) -> None:
    directory, key = folder_of(tmp_path), ec_key()
    put_key(directory / "signing-0001.pem", key)
    put_key(directory / "signing-0002.pem", key)
    with pytest.raises(ConfigError, match="twice"):
        KeyRing.load_or_create(directory)


def test_a_key_shows_nothing_private(tmp_path: Path) -> None:
    ring = KeyRing.load_or_create(tmp_path / "keys")
    shown = f"{ring.keys!r} {ring.keys} {vars(ring)!r} {ring.signer}"
    content = (tmp_path / "keys" / "signing-0001.pem").read_text()
    secret = content.split("-----")[2].split()
    assert len(secret) == 3
    assert not any(line in shown for line in secret)


# ── what changes under a running broker ──────────────────────────────────────────────────────────


def test_a_key_of_another_replica_is_found_when_it_is_asked_for(tmp_path: Path) -> None:
    clock = ManualClock()
    directory = folder_of(tmp_path)
    ring = KeyRing.load_or_create(directory, clock=clock)
    put_key(directory / "signing-0002.pem", ec_key())
    other = KeyRing.load_or_create(directory, clock=clock)
    kid = kids(other)[1]
    assert ring.find(kid) is None  # it has just been loaded: unknown ids are no reason to look
    clock.advance(1)
    assert ring.find(kid) is not None


def test_unknown_ids_look_at_the_folder_once_a_second(tmp_path: Path) -> None:
    clock = ManualClock()
    directory = folder_of(tmp_path)
    ring = KeyRing.load_or_create(directory, clock=clock)
    clock.advance(1)
    assert ring.find("x") is None
    put_key(directory / "signing-0002.pem", ec_key())
    kid = kids(KeyRing.load_or_create(directory))[1]
    assert ring.find(kid) is None
    clock.advance(1)
    assert ring.find(kid) is not None


def test_a_removed_key_verifies_nothing_more(tmp_path: Path) -> None:
    directory = folder_of(tmp_path)
    put_key(directory / "signing-0001.pem", ec_key())
    put_key(directory / "signing-0002.pem", ec_key())
    ring = KeyRing.load_or_create(directory)
    first, second = kids(ring)
    (directory / "signing-0001.pem").unlink()
    assert ring.reload()
    assert (ring.find(first), kids(ring)) == (None, [second])


@pytest.mark.parametrize("spoil", ["garbage", "open", "empty", "gone", "no folder"])
def test_a_folder_that_breaks_leaves_the_keys_as_they_are(
    spoil: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "keys"
    ring = KeyRing.load_or_create(directory)
    before = kids(ring)
    path = directory / "signing-0001.pem"
    good = path.read_bytes()
    if spoil == "garbage":
        put_key(directory / "signing-0002.pem", ec_key(), says="Signs-From: x\n")
    elif spoil == "open":
        put_key(directory / "signing-0002.pem", ec_key())
        (directory / "signing-0002.pem").chmod(0o644)
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "gone":
        path.unlink()
    else:
        directory.rename(tmp_path / "elsewhere")
    assert not ring.reload()
    assert not ring.reload()
    assert kids(ring) == before
    assert capsys.readouterr().err.count("not reloaded") == 1  # not again every time
    assert parse(ring.sign({}, {})).kid == before[0]
    # Once it is in order again, so are we.
    directory.mkdir(exist_ok=True)
    (directory / "signing-0002.pem").unlink(missing_ok=True)
    path.write_bytes(good)
    path.chmod(0o600)
    assert ring.reload()
    assert kids(ring) == before


def test_a_key_that_replaces_all_others_needs_no_look_at_them(tmp_path: Path) -> None:
    directory = folder_of(tmp_path)
    put_key(directory / "signing-0001.pem", ec_key())
    (directory / "signing-0002.pem").touch(mode=0o600)  # broken, and of no consequence
    put_key(directory / "signing-0003.pem", ec_key(), says="Replaces-All: yes\n")
    put_key(directory / "signing-0004.pem", ec_key())
    ring = KeyRing.load_or_create(directory)
    assert [key.number for key in ring.keys] == [3, 4]
