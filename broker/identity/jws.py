"""A compact JWS from a stranger, taken apart strictly and believed in nothing.

One place for what every signed token must pass before anyone looks at what it says (RFC 7515,
RFC 8725): our own access tokens and workload JWTs alike. Nothing in a token's header chooses how
it is verified, but ``alg`` and ``kid``, and those only among what was configured beforehand.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from math import isinf
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from jwt.algorithms import get_default_algorithms

from broker.errors import InvalidToken
from broker.identity.models import WORKLOAD_ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jwt.algorithms import AllowedPrivateKeys, AllowedPublicKeys

MAX_TOKEN_CHARS: Final = 16 * 1024
MAX_KID_CHARS: Final = 256
MAX_TEXT_CHARS: Final = 512
MAX_DATE: Final = 253_402_300_799
"""The last second of the year 9999: larger dates are mistakes, or attacks on arithmetic."""

_PRIMITIVES: Final = {
    name: primitive
    for name, primitive in get_default_algorithms().items()
    if name in WORKLOAD_ALGORITHMS
}
_PRIMITIVES["Ed25519"] = _PRIMITIVES["EdDSA"]  # RFC 9864 gives it a name of its own

_FORBIDDEN_HEADERS: Final = {
    # RFC 7515 section 4.1.11: an extension we don't understand must be refused, and we
    # understand none; ``b64`` (RFC 7797) changes what is signed.
    "crit": "critical header extensions are not supported",
    "b64": "unencoded payloads are not supported",
    # RFC 8725 section 3.10: a token that brings its own key proves nothing.
    "jwk": "the token brings its own key",
    "jku": "the token names where to fetch its key",
    "x5u": "the token names where to fetch its key",
    "x5c": "the token brings its own key",
}


@dataclass(frozen=True, slots=True)
class Jws:
    """A well-formed JWS whose signature nobody has checked yet."""

    algorithm: str
    kid: str | None
    typ: str | None
    claims: Mapping[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    jwk: object = None
    """The key the JWS brings of its own, where ``parse`` was told to let it; unchecked."""

    @property
    def compact(self) -> str:
        """The token as it came: only canonical base64url is read, so nothing else can be meant."""
        return (self.signing_input + b"." + encode_base64url(self.signature)).decode("ascii")

    def is_signed_by(self, key: AllowedPublicKeys) -> bool:
        """Check the signature. The caller has made sure that ``key`` is for ``algorithm``."""
        primitive = _PRIMITIVES[self.algorithm]
        return primitive.verify(self.signing_input, key, self.signature)


def parse(token: str, *, own_key: bool = False) -> Jws:
    """Take a compact JWS with a JSON payload apart (RFC 7515 section 5.2, steps 1 to 7).

    ``own_key`` lets it bring a ``jwk``: a DPoP proof says which key its sender holds, and is
    never a proof of who that is.

    Raises:
        InvalidToken: anything but three canonical base64url segments, two JSON objects, an
            asymmetric ``alg``, and a header without traps.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise InvalidToken(f"the token is longer than {MAX_TOKEN_CHARS} characters")
    # What isn't ASCII becomes a question mark, which isn't base64url.
    parts = token.encode("ascii", "replace").split(b".")
    if len(parts) != 3:  # noqa: PLR2004  header, payload, signature
        raise InvalidToken("the token is not a compact JWS")
    header = _json_object(_base64url(parts[0]), "header")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _PRIMITIVES:
        raise InvalidToken("the token's signature algorithm is not accepted")
    for name, problem in _FORBIDDEN_HEADERS.items():
        if name in header and not (own_key and name == "jwk"):
            raise InvalidToken(problem)
    return Jws(
        algorithm=algorithm,
        kid=_header_text(header, "kid"),
        typ=_header_text(header, "typ"),
        claims=_json_object(_base64url(parts[1]), "payload"),
        signing_input=parts[0] + b"." + parts[1],
        signature=_base64url(parts[2]),
        jwk=header.get("jwk") if own_key else None,
    )


def sign(
    header: Mapping[str, Any], payload: Mapping[str, Any], key: AllowedPrivateKeys, algorithm: str
) -> str:
    """Make a compact JWS (RFC 7515 section 5.1); ``alg`` is written into the header."""
    signing_input = b".".join(
        encode_base64url(json.dumps(part, separators=(",", ":"), allow_nan=False).encode())
        for part in ({**header, "alg": algorithm}, dict(payload))
    )
    signature = _PRIMITIVES[algorithm].sign(signing_input, key)
    return (signing_input + b"." + encode_base64url(signature)).decode("ascii")


def encode_base64url(raw: bytes) -> bytes:
    """Encode without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=")


def numeric_date(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate claim (RFC 7519 section 2), or None if there is none.

    Raises:
        InvalidToken: not a number, not finite, negative, or after the year 9999.
    """
    if name not in claims:
        return None
    value = claims[name]
    # A bool is an int to Python. NaN and infinity fail the comparison.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_DATE:
        raise InvalidToken(f"the token's {name} is not a valid date")
    return value


def text(claims: Mapping[str, Any], name: str) -> str:
    """Return a required claim that names something: printable, not empty, of bounded length.

    Raises:
        InvalidToken: missing, of another type, or not fit to be shown and compared.
    """
    value = claims.get(name)
    # isprintable() is false for control, bidirectional and unassigned characters too, with
    # which one name can be made to look like another in a log or on a console.
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise InvalidToken(
            f"the token's {name} is missing or not a text of 1 to {MAX_TEXT_CHARS} characters"
        )
    if not value.isprintable():
        raise InvalidToken(f"the token's {name} contains unprintable characters")
    return value


def audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return ``aud`` as a tuple: a string, or a list of nothing but strings (RFC 7519 4.1.3).

    Raises:
        InvalidToken: missing, or of another type.
    """
    value: Any = claims.get("aud")
    found = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not all(isinstance(item, str) and item for item in found):
        raise InvalidToken("the token's aud is missing or not a list of texts")
    return tuple(found)


def _header_text(header: Mapping[str, Any], name: str) -> str | None:
    """Return an optional header member that must be a short string where present."""
    if name not in header:
        return None
    value = header[name]
    if not isinstance(value, str) or not 0 < len(value) <= MAX_KID_CHARS:
        raise InvalidToken(f"the token's {name} is not a text of 1 to {MAX_KID_CHARS} characters")
    return value


def _base64url(segment: bytes) -> bytes:
    """Decode canonical base64url (RFC 7515 section 2).

    Encoding the result again catches what the lenient decoder lets pass: foreign characters,
    padding, and a last character with stray bits, by which one token could be written many ways.
    """
    try:
        decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError as error:
        raise InvalidToken("the token is not base64url") from error
    if encode_base64url(decoded) != segment:
        raise InvalidToken("the token is not canonical base64url")
    return decoded


def _json_object(raw: bytes, what: str) -> dict[str, Any]:
    """Decode a JSON object that means the same to every reader (RFC 8725 3.7, RFC 7493)."""
    try:
        document = raw.decode("utf-8")
        value: Any = _DECODER.decode(document)
        if "\\u" in document:
            # A lone surrogate, written as an escape, is no text and breaks whoever encodes it.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise InvalidToken(f"the token's {what} is not valid JSON") from error
    if not isinstance(value, dict):
        raise InvalidToken(f"the token's {what} is not a JSON object")
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name is repeated")
    return members


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    """Read a number with a fraction or exponent; ``1e999`` would be infinity (RFC 7493 2.2)."""
    number = float(digits)
    if isinf(number):
        raise ValueError("a number is out of range")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)
