"""DPoP proofs: that whoever sent a request holds a key, and nothing about who that is (RFC 9449).

Nothing is remembered here: that a proof is used once, and made with a fresh nonce, is
``possession.py``'s business.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from broker.errors import InvalidDpopProof, InvalidToken
from broker.identity.jwk import UnusableKey, is_canonical, parse_key, thumbprint
from broker.identity.jws import encode_base64url, numeric_date, parse, text
from broker.identity.models import WORKLOAD_ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.identity.jwk import VerificationKey
    from broker.identity.jws import Jws

ALGORITHMS: Final = tuple(sorted(WORKLOAD_ALGORITHMS))
"""What proofs may be signed with: for metadata, and the ``algs`` of a challenge."""

TYPE: Final = "dpop+jwt"
MAX_ID_CHARS: Final = 256
MAX_RSA_BITS: Final = 4096
MAX_RSA_EXPONENT: Final = 2**32
"""The key is the sender's choice: one of 16,384 bits, or with a long exponent, costs us dearly."""

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/(?:[a-z0-9._~!$&'()*+,;=:@/-]|%[0-9a-f]{2})*)?(?:[?#][!-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof says, once it is verified.

    ``jkt`` is the thumbprint of the sender's key (RFC 7638, SHA-256), ``jti`` the proof's own id,
    ``url`` what it was made for, normalised; ``issued_at`` is in epoch seconds.
    """

    jkt: str
    jti: str
    url: str
    nonce: str | None
    issued_at: float


def verify_proof(
    proof: str, *, method: str, url: str, now: float, window_s: int, access_token: str | None
) -> Proof:
    """Verify the value of a request's DPoP header (RFC 9449 section 4.3, whose numbers these are).

    ``method`` and ``url`` are the request's; ``now`` is in epoch seconds, and ``window_s`` how far
    from it, either way, the proof may have been made. ``access_token`` is the token that came with
    it, None at the token endpoint.

    The caller still owes: that there is one header only (1), the nonce (10), that the token is
    bound to this key (12), and that the proof was never seen before (section 11.1).

    Raises:
        InvalidDpopProof: it proves nothing about this request.
    """
    try:
        # 2, and 5: no other than asymmetric algorithms come through.
        jws = parse(proof, own_key=True)
        # 4.
        if jws.typ != TYPE:
            raise InvalidDpopProof(f"the DPoP proof's typ is not {TYPE}")
        # 7, and the key of 6.
        jwk, key = _own_key(jws)
        # 8.
        if jws.claims.get("htm") != method:
            raise InvalidDpopProof("the DPoP proof is for another method")
        # 9.
        target = normal_url(url)
        if target is None or _htu(jws) != target:
            raise InvalidDpopProof("the DPoP proof is for another URL")
        # 11.
        issued_at = _check_times(jws, now, window_s)
        # 12, first half.
        if access_token is not None and not _names(jws, access_token):
            raise InvalidDpopProof("the DPoP proof is not for this access token: see its ath")
        # 3: the rest of what is required; and what the caller needs.
        jti, nonce = _short_text(jws, "jti"), None
        if "nonce" in jws.claims:
            nonce = _short_text(jws, "nonce")
        # 6: last, because it is what costs.
        if not key.verifies(jws):
            raise InvalidDpopProof("the DPoP proof's signature is wrong")
    except InvalidToken as problem:
        raise InvalidDpopProof(f"DPoP proof: {problem.detail}") from None
    return Proof(thumbprint(jwk), jti, target, nonce, issued_at)


def normal_url(url: str) -> str | None:
    """Return an http or https URL without query and fragment, in the form proofs are compared by.

    Scheme and host in lower case, no default port, a path, and nothing escaped that needn't be
    (RFC 3986 sections 6.2.2.1, 6.2.2.2 and 6.2.3). Dot segments stay: our paths have none, and
    two readers may well disagree about where they lead. None if it is no such URL.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme, host, port = match["scheme"].lower(), match["host"].lower(), match["port"]
    authority = f"{host}:{port}" if port and port != _DEFAULT_PORTS[scheme] else host
    path = _ESCAPE.sub(_unescape, match["path"] or "/")
    return f"{scheme}://{authority}{path}"


def _unescape(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()


def _htu(jws: Jws) -> str | None:
    value = jws.claims.get("htu")
    return normal_url(value) if isinstance(value, str) else None


def _own_key(jws: Jws) -> tuple[Mapping[str, Any], VerificationKey]:
    """Return the public key in the proof's header, as it is written and as it is used."""
    try:
        key = parse_key(jws.jwk)
    except UnusableKey as problem:
        raise InvalidDpopProof(f"the DPoP proof's jwk can't be used: {problem}") from None
    jwk = cast("dict[str, Any]", jws.jwk)
    if isinstance(key.public_key, RSAPublicKey) and (
        key.public_key.key_size > MAX_RSA_BITS
        or key.public_key.public_numbers().e > MAX_RSA_EXPONENT
    ):
        raise InvalidDpopProof(
            f"the DPoP proof's jwk is over {MAX_RSA_BITS} bits, or its exponent is too big"
        )
    if not is_canonical(jwk, key):
        raise InvalidDpopProof("the DPoP proof's jwk is not written as RFC 7518 section 6 has it")
    return jwk, key


def _check_times(jws: Jws, now: float, window_s: int) -> float:
    """Return ``iat`` of a proof made about now."""
    issued_at = numeric_date(jws.claims, "iat")
    if issued_at is None:
        raise InvalidDpopProof("the DPoP proof has no iat")
    if abs(now - issued_at) > window_s:
        raise InvalidDpopProof(
            f"the DPoP proof was not made within {window_s} seconds of now: set the clock, and "
            "make a proof for each request"
        )
    # Not of RFC 9449, but of every JWT that has them (RFC 7519 sections 4.1.4 and 4.1.5).
    expires_at = numeric_date(jws.claims, "exp")
    not_before = numeric_date(jws.claims, "nbf")
    if expires_at is not None and now >= expires_at + window_s:
        raise InvalidDpopProof("the DPoP proof has expired")
    if not_before is not None and not_before > now + window_s:
        raise InvalidDpopProof("the DPoP proof is not valid yet")
    return issued_at


def _short_text(jws: Jws, name: str) -> str:
    value = text(jws.claims, name)
    if len(value) > MAX_ID_CHARS:
        raise InvalidDpopProof(f"the DPoP proof's {name} is over {MAX_ID_CHARS} characters")
    return value


def _names(jws: Jws, access_token: str) -> bool:
    """Say whether ``ath`` is this token's digest (RFC 9449 section 4.2)."""
    if not access_token.isascii():  # no token of ours
        return False
    digest = hashlib.sha256(access_token.encode("ascii")).digest()
    return jws.claims.get("ath") == encode_base64url(digest).decode("ascii")
