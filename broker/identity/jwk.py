"""Verification keys: each parsed once, and bound to the algorithms it may be used with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from broker.identity.jws import MAX_KID_CHARS, encode_base64url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jwt.algorithms import AllowedPublicKeys

    from broker.identity.jws import Jws

MAX_KEYS: Final = 256
MAX_TRIES: Final = 16
"""How many keys are tried for one token: without a ``kid``, or with one that repeats."""

MIN_RSA_BITS: Final = 2048

_RSA_ALGORITHMS: Final = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_CURVE_ALGORITHMS: Final = {
    # RFC 7518 section 3.4 binds each ECDSA algorithm to one curve, RFC 8037 EdDSA to its own,
    # to which RFC 9864 gives the name that says so.
    ("EC", "P-256"): frozenset(("ES256",)),
    ("EC", "P-384"): frozenset(("ES384",)),
    ("EC", "P-521"): frozenset(("ES512",)),
    ("OKP", "Ed25519"): frozenset(("EdDSA", "Ed25519")),
}
_PARSERS: Final[Mapping[str, Any]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}
_WRITERS: Final[Mapping[str, Any]] = {
    "RSA": RSAAlgorithm.to_jwk,
    "EC": ECAlgorithm.to_jwk,
    "OKP": OKPAlgorithm.to_jwk,
}
_REQUIRED_MEMBERS: Final = {
    # RFC 7638 section 3.2, RFC 8037 section 2.
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}
_P25519: Final = 2**255 - 19
_SMALL_ORDER: Final = frozenset(
    # The y of the points of order 1, 2, 4 and 8 on Ed25519, and second spellings of them.
    (
        0,
        1,
        _P25519 - 1,
        _P25519,
        _P25519 + 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    )
)
_PRIVATE_MEMBERS: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
_USES: Final = (None, "sig", "jwt-svid")


class UnusableKey(ValueError):
    """A JWK that can't verify anything here; the message says why."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, and the algorithms it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    public_key: AllowedPublicKeys

    def verifies(self, jws: Jws) -> bool:
        """Say whether this key signed the token, by an algorithm the key is meant for."""
        return jws.algorithm in self.algorithms and jws.is_signed_by(self.public_key)


class KeySet:
    """The verification keys of one issuer at one time; never changed, only replaced."""

    def __init__(self, keys: Iterable[VerificationKey], unusable: tuple[str, ...] = ()) -> None:
        """``unusable`` says of each key left out, why."""
        self._keys = tuple(keys)
        self.unusable = unusable
        self._by_kid: dict[str | None, list[VerificationKey]] = {}
        for key in self._keys:
            self._by_kid.setdefault(key.kid, []).append(key)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def refresh_s(self) -> int | None:
        """A JWK Set doesn't say when to come back."""
        return None

    def knows(self, kid: str | None) -> bool:
        """Say whether a key with this id is in the set."""
        return kid is not None and kid in self._by_kid

    def verifies(self, jws: Jws) -> bool:
        """Say whether a key of the set signed the token.

        A token that names its key is held to it. One that names none (RFC 7515 section 4.1.4,
        allowed by JWT-SVID) is tried with every key that fits its algorithm, up to a bound.
        """
        named = self._keys if jws.kid is None else self._by_kid.get(jws.kid, ())
        fitting = [key for key in named if jws.algorithm in key.algorithms]
        return any(key.verifies(jws) for key in fitting[:MAX_TRIES])


def parse_key_set(document: bytes) -> KeySet:
    """Read a JWK Set (RFC 7517 section 5): keys that can't be used are left out.

    An empty ``keys`` is a valid set that verifies nothing: the issuer revoked its keys.

    Raises:
        ValueError: not a JWK Set at all, which says nothing about the keys.
    """
    keys: list[VerificationKey] = []
    unusable: list[str] = []
    for position, entry in enumerate(open_key_set(document)["keys"]):
        try:
            keys.append(parse_key(entry))
        except UnusableKey as problem:
            unusable.append(f"key {position}: {problem}")
    return KeySet(keys, tuple(unusable))


def open_key_set(document: bytes) -> dict[str, Any]:
    """Return the members of a JWK Set, among them ``keys``: a list of anything, not too long.

    Raises:
        ValueError: not a JWK Set at all, which says nothing about the keys.
    """
    try:
        content: Any = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise ValueError("not a JWK Set: not JSON") from error
    members = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    entries: Any = members.get("keys")
    if not isinstance(entries, list):
        raise ValueError("not a JWK Set: no list named keys")  # noqa: TRY004  input, not a caller
    if len(cast("list[Any]", entries)) > MAX_KEYS:
        raise ValueError(f"the JWK Set has more than {MAX_KEYS} keys")
    return members


def parse_key(jwk: object) -> VerificationKey:
    """Read one public signature key (RFC 7517 section 4).

    Raises:
        UnusableKey: symmetric, private, weak, malformed, or meant for something else.
    """
    if not isinstance(jwk, dict):
        raise UnusableKey("not an object")
    members = cast("dict[str, Any]", jwk)
    allowed = _algorithms_of(members)
    if not _PRIVATE_MEMBERS.isdisjoint(members):
        raise UnusableKey("it contains a private key, which is compromised by being published")
    use, operations = members.get("use"), members.get("key_ops", ["verify"])
    if use not in _USES or not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("it is not for verifying signatures")
    kid: Any = members.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS):
        raise UnusableKey(f"its kid is not a text of 1 to {MAX_KID_CHARS} characters")
    try:
        public_key: AllowedPublicKeys = _PARSERS[members["kty"]](members)
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise UnusableKey(f"malformed {members['kty']} key") from error
    if isinstance(public_key, RSAPublicKey) and public_key.key_size < MIN_RSA_BITS:
        raise UnusableKey(f"an RSA key of {public_key.key_size} bits is weaker than {MIN_RSA_BITS}")
    if isinstance(public_key, Ed25519PublicKey) and _is_of_small_order(public_key):
        raise UnusableKey("an Ed25519 key of small order, for which anybody can sign")
    return VerificationKey(kid, allowed, public_key)


def _is_of_small_order(key: Ed25519PublicKey) -> bool:
    """Say whether one signature is good for every eighth message or more (RFC 8032 section 5.1).

    OpenSSL verifies by such a key. Whoever binds a token to it has bound it to nobody.
    """
    # The last bit is the sign of x, which makes no difference.
    return int.from_bytes(key.public_bytes_raw(), "little") % 2**255 in _SMALL_ORDER


def _algorithms_of(jwk: Mapping[str, Any]) -> frozenset[str]:
    """Return what a key's type, curve and ``alg`` allow it to verify."""
    kty, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(kty, str) or not isinstance(curve, str | None):
        raise UnusableKey("its kty or crv is not a text")
    fitting = _RSA_ALGORITHMS if kty == "RSA" else _CURVE_ALGORITHMS.get((kty, curve or ""))
    if fitting is None:
        raise UnusableKey("keys of its type or curve are not used")
    if "alg" not in jwk:
        return fitting
    # Not a set look-up: what stands there may be unhashable.
    declared = frozenset(name for name in fitting if name == jwk["alg"])
    if not declared:
        raise UnusableKey("its alg doesn't fit its type or curve, or is not used")
    return declared


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a public EC, RSA or OKP JWK (RFC 7638 section 3).

    ``jwk`` has been read by ``parse_key``, or is our own.
    """
    members = {name: jwk[name] for name in _REQUIRED_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return encode_base64url(hashlib.sha256(canonical).digest()).decode("ascii")


def is_canonical(jwk: Mapping[str, Any], key: VerificationKey) -> bool:
    """Say whether ``key``, read from ``jwk``, is written there as RFC 7518 section 6 has it.

    Readers forgive padding and leading zeros, by which one key would have many thumbprints.
    """
    kty = jwk["kty"]
    again = _WRITERS[kty](key.public_key, as_dict=True)
    return all(jwk[name] == again[name] for name in _REQUIRED_MEMBERS[kty])
