"""Replicas that share one folder of signing keys, and the log that they write to."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from broker.errors import LedgerUnavailable
from broker.identity.jws import parse
from broker.keys import Algorithm, KeyRing, KeyRotation, RotationTimes
from broker.tokens import AccessClaims

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.clocks import ManualClock

DAY: Final = 86_400
EVERY: Final = 30 * DAY
PUBLISH: Final = 600
KEEP: Final = 900
TIMES: Final = RotationTimes(every_s=EVERY, publish_s=PUBLISH, keep_s=KEEP)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Made once: it takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def kids(ring: KeyRing) -> list[str]:
    return [key["kid"] for key in ring.jwks()["keys"]]


def put_key(
    path: Path,
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
    encryption: KeySerializationEncryption | None = None,
    says: str = "",
) -> None:
    path.touch(mode=0o600)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    path.write_bytes(says.encode() + pem)


def folder_of(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def claims(clock: ManualClock, ttl: int = KEEP) -> AccessClaims:
    now = int(clock.now())
    return AccessClaims(
        subject="a",
        client_id="a",
        audience=("x",),
        jti="j",
        issued_at=now,
        expires_at=now + ttl,
    )


def signer_of(replica: Replica) -> str:
    return parse(replica.ring.sign({}, {})).kid or ""


class Events:
    """The ledger's part: what was logged, and whether it can be."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, Any]]] = []
        self.down = False
        self.before_answer: asyncio.Event | None = None

    async def record(self, kind: str, *, shard: int, actor: str, data: Mapping[str, Any]) -> None:
        if self.before_answer:
            await self.before_answer.wait()
        await asyncio.sleep(0)
        if self.down:
            raise LedgerUnavailable
        self.seen.append((kind, actor, dict(data)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for seen, _, data in self.seen if seen == kind]


class Replica:
    """One broker's ring and its rotation."""

    def __init__(
        self,
        directory: Path,
        clock: ManualClock,
        events: Events,
        *,
        times: RotationTimes = TIMES,
        algorithm: Algorithm = Algorithm.ES256,
    ) -> None:
        self.ring = KeyRing.load_or_create(directory, clock=clock, algorithm=algorithm)
        self.rotation = KeyRotation(
            self.ring, events, clock, times=times, algorithm=algorithm, shards=4
        )

    @property
    def states(self) -> list[str]:
        """Newest first."""
        return [status.state.value for status in self.rotation.status()]

    @property
    def kids(self) -> list[str]:
        """Oldest first."""
        return [key["kid"] for key in self.ring.jwks()["keys"]]
