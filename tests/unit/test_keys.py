"""Signing keys on disk: made once, private, whole."""

from __future__ import annotations

import multiprocessing
import os
import stat
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    NoEncryption,
)

from broker.errors import ConfigError
from broker.identity.jwk import thumbprint
from broker.identity.jws import parse
from broker.keys import KeyRing
from tests.unit.key_world import ec_key, kids, put_key

if TYPE_CHECKING:
    import threading
    from multiprocessing.queues import Queue
    from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_a_private_key_and_later_ones_find_it(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "keys"
    previous = os.umask(0)
    try:
        first = KeyRing.load_or_create(directory)
    finally:
        os.umask(previous)
    assert mode(directory) == 0o700
    assert {path.name for path in directory.iterdir()} == {".lock", "signing-0001.pem"}
    assert all(mode(path) == 0o600 for path in directory.iterdir())
    assert KeyRing.load_or_create(directory).jwks() == first.jwks()


def test_only_the_public_half_is_published(tmp_path: Path) -> None:
    (key,) = KeyRing.load_or_create(tmp_path / "keys").jwks()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")
    assert key["kid"] == thumbprint(key)


def test_what_is_published_is_a_copy(tmp_path: Path) -> None:
    ring = KeyRing.load_or_create(tmp_path / "keys")
    ring.jwks()["keys"][0]["kid"] = "changed"
    assert ring.jwks()["keys"][0]["kid"] != "changed"


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    # The P-256 key of RFC 7517 appendix A.1; its thumbprint worked out with openssl.
    key = {
        "kty": "EC",
        "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        "use": "enc",
        "kid": "1",
    }
    assert thumbprint(key) == "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"


def test_others_verify_what_we_sign(tmp_path: Path) -> None:
    ring = KeyRing.load_or_create(tmp_path / "keys")
    signed = ring.sign({"typ": "at+jwt"}, {"sub": "a", "name": "é"})
    public = jwt.PyJWKSet.from_dict(ring.jwks())[kids(ring)[0]]
    complete = jwt.decode_complete(signed, public, algorithms=["ES256"])
    assert complete["payload"] == {"sub": "a", "name": "é"}
    assert complete["header"] == {"typ": "at+jwt", "alg": "ES256", "kid": kids(ring)[0]}


def test_the_newest_key_signs_and_all_verify(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    old = KeyRing.load_or_create(directory)
    earlier = parse(old.sign({}, {"sub": "a"}))
    newer = {n: ec_key() for n in (10, 2, 7, 5, 9, 12345)}
    for number, key in newer.items():
        put_key(directory / f"signing-{number:04}.pem", key)
    ring = KeyRing.load_or_create(directory)
    assert kids(ring)[1:] == kids(KeyRing([newer[number] for number in sorted(newer)]))
    assert kids(ring)[0] == kids(old)[0]
    later = parse(ring.sign({}, {"sub": "a"}))
    assert later.kid == kids(ring)[-1]
    for token in (earlier, later):
        key = ring.find(token.kid or "")
        assert key is not None
        assert key.verifies(token)
    assert old.find(kids(ring)[-1]) is None
    assert ring.find("unknown") is None


@pytest.mark.parametrize("open_to", [0o040, 0o020, 0o004, 0o077])
def test_a_key_others_can_read_is_refused(open_to: int, tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    KeyRing.load_or_create(directory)
    path = directory / "signing-0001.pem"
    path.chmod(0o600 | open_to)
    with pytest.raises(ConfigError) as caught:
        KeyRing.load_or_create(directory)
    assert f"chmod 600 {path}" in caught.value.detail


@pytest.mark.parametrize("open_to", [0o020, 0o002])
def test_a_directory_others_can_write_to_is_refused(open_to: int, tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    directory.chmod(0o755 | open_to)
    with pytest.raises(ConfigError) as caught:
        KeyRing.load_or_create(directory)
    assert f"chmod 700 {directory}" in caught.value.detail
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_broken_key_is_refused_and_not_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "signing-0001.pem"
    tmp_path.chmod(0o700)
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"signing-0001\.pem is not"):
        KeyRing.load_or_create(tmp_path)
    assert path.read_bytes() == content


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    p384 = ec.generate_private_key(ec.SECP384R1())
    p256 = ec.generate_private_key(ec.SECP256R1())
    for number, (key, encryption) in enumerate(
        [
            (p384, NoEncryption()),
            (ed25519.Ed25519PrivateKey.generate(), NoEncryption()),
            (p256, BestAvailableEncryption(b"x")),
        ]
    ):
        directory = tmp_path / str(number)
        directory.mkdir(mode=0o700)
        put_key(directory / "signing-0001.pem", key, encryption)
        with pytest.raises(ConfigError, match=r"signing-0001\.pem is not"):
            KeyRing.load_or_create(directory)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ConfigError, match=str(path)):
        KeyRing.load_or_create(path)


def test_what_a_crash_left_behind_is_neither_used_nor_in_the_way(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / ".signing-0001.pem.tmp").write_bytes(b"half a k")
    ring = KeyRing.load_or_create(tmp_path)
    assert kids(KeyRing.load_or_create(tmp_path)) == kids(ring)
    assert not (tmp_path / ".signing-0001.pem.tmp").exists()


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    target = tmp_path / "target"
    (directory / ".signing-0001.pem.tmp").symlink_to(target)
    KeyRing.load_or_create(directory)
    assert not target.exists()


def start_at_once(
    directories: list[Path], barrier: threading.Barrier, found: Queue[tuple[Path, list[str]]]
) -> None:
    for directory in directories:
        barrier.wait(60)
        found.put((directory, kids(KeyRing.load_or_create(directory))))


def test_processes_that_start_at_once_have_the_same_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    directories = [tmp_path / str(attempt) for attempt in range(3)]
    found: Queue[tuple[Path, list[str]]] = context.Queue()
    arguments = (directories, context.Barrier(4), found)
    processes = [context.Process(target=start_at_once, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    results = [found.get(timeout=60) for _ in processes for _ in directories]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    for directory in directories:
        of_each = [names for place, names in results if place == directory]
        assert of_each == [kids(KeyRing.load_or_create(directory))] * 4
