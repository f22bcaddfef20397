"""The broker's access tokens: JWTs by the profile of RFC 9068, which only we sign and verify."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from broker.errors import InvalidToken
from broker.identity.jws import Jws, audiences, numeric_date, parse, text
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.clock import Clock
    from broker.identity.jwk import VerificationKey

TYPE: Final = "at+jwt"
MAX_CACHED: Final = 4096
MAX_SKEW_S: Final = 30
"""How far another replica's clock may be ahead of ours. ``exp`` is never stretched by it."""


class SigningKeys(Protocol):
    """What tokens need of ``keys.KeyRing``."""

    def sign(self, header: Mapping[str, Any], payload: Mapping[str, Any]) -> str:
        """Return a compact JWS with ``alg`` and ``kid`` filled in."""
        ...

    def find(self, kid: str) -> VerificationKey | None:
        """Return the public key with this id, if it is one of ours."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """What an access token says (RFC 9068 section 2.2). Times are epoch seconds.

    ``subject`` is on whose behalf, ``client_id`` who presents it, ``act`` the agents between
    (RFC 8693 section 4.1), ``txn`` the root task, ``cnf`` the key it is bound to (RFC 7800).
    ``lineage`` are the ids of the tokens it was exchanged from, oldest first: it dies with any of
    them. It is the private claim ``via``. ``may_act`` names who may act for the presenter, None for
    anybody whose task allows it (RFC 8693 section 4.4).
    """

    subject: str
    client_id: str
    audience: tuple[str, ...]
    jti: str
    issued_at: int
    expires_at: int
    scope: str = ""
    act: Mapping[str, Any] | None = None
    authorization_details: tuple[Mapping[str, Any], ...] = ()
    txn: str = ""
    cnf: Mapping[str, str] | None = None
    lineage: tuple[str, ...] = ()
    may_act: Mapping[str, Any] | None = None


def nested_actor(agent: str, actors: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the ``act`` claim for ``agent``, acting after ``actors`` (RFC 8693 section 4.1).

    ``actors`` are the agents before it, newest first, as ``Task.actors`` has them. The newest is
    outermost, and the only one that authorisation looks at. An actor has a ``sub`` and no
    ``exp``, ``nbf`` or ``aud``: those mean nothing there.
    """
    act: dict[str, Any] = {}
    for name in reversed((agent, *actors)):
        act = {"sub": name, "act": act} if act else {"sub": name}
    return act


def may_act_claim(agents: frozenset[str] | None) -> Mapping[str, Any] | None:
    """Return the ``may_act`` claim for these agents (RFC 8693 section 4.4); None for any.

    One is named by its ``sub``, as in ``act``; several, or none, by the member ``agents``.
    """
    if agents is None:
        return None
    return {"sub": min(agents)} if len(agents) == 1 else {"agents": sorted(agents)}


def may_act_of(claims: AccessClaims) -> frozenset[str] | None:
    """Return the agents that a token's ``may_act`` names; None for any."""
    if claims.may_act is None:
        return None
    one: str | None = claims.may_act.get("sub")
    return frozenset(claims.may_act.get("agents", ()) if one is None else (one,))


def token_type(cnf: Mapping[str, str] | None) -> str:
    """Return how a token is presented (RFC 6749 section 7.1, RFC 9449 section 5)."""
    return "DPoP" if cnf and "jkt" in cnf else "Bearer"


class Tokens:
    """Mints and verifies access tokens."""

    def __init__(
        self, issuer: str, keys: SigningKeys, clock: Clock, *, max_cached: int = MAX_CACHED
    ) -> None:
        """``issuer`` is the broker's own URL, compared byte for byte.

        ``max_cached`` is how many verified tokens are remembered, to check a signature once.
        """
        self._issuer = issuer
        self._keys = keys
        self._clock = clock
        self._max_cached = max_cached
        self._verified: OrderedDict[bytes, tuple[str, AccessClaims]] = OrderedDict()

    def mint(self, claims: AccessClaims) -> Secret:
        """Sign an access token. Claims without a value are left out."""
        audience: Any = claims.audience[0] if len(claims.audience) == 1 else list(claims.audience)
        optional = {
            "scope": claims.scope,
            "act": claims.act,
            "authorization_details": list(claims.authorization_details),
            "txn": claims.txn,
            "cnf": claims.cnf,
            "via": list(claims.lineage),
            "may_act": claims.may_act,
        }
        payload = {
            "iss": self._issuer,
            "sub": claims.subject,
            "aud": audience,
            "client_id": claims.client_id,
            "jti": claims.jti,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
            **{name: value for name, value in optional.items() if value},
        }
        return Secret(self._keys.sign({"typ": TYPE}, payload))

    def sign(self, typ: str, payload: Mapping[str, Any]) -> str:
        """Sign a JWT of another kind than an access token; ``typ`` tells them apart."""
        return self._keys.sign({"typ": typ}, payload)

    def verify(self, token: str, audience: str | None) -> AccessClaims:
        """Verify one of our access tokens for ``audience``, or any if None (RFC 9068 section 4).

        Whether it was revoked, and whether the caller holds the key in ``cnf``, is for the
        caller to check.

        Raises:
            InvalidToken: not ours, not for ``audience``, malformed, or expired.
        """
        # By digest, so that no usable token stays in memory.
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        cached = self._verified.pop(digest, None)
        # A token dies with its key, verified before or not.
        if cached is not None and self._keys.find(cached[0]) is not None:
            kid, claims = cached
        else:
            kid, claims = self._verify_signed(parse(token))
        self._check_now(claims, audience)
        if len(self._verified) >= self._max_cached:
            self._verified.popitem(last=False)
        self._verified[digest] = (kid, claims)
        return claims

    def _verify_signed(self, jws: Jws) -> tuple[str, AccessClaims]:
        """Return the key id and claims of a token that one of our keys signed as access token."""
        if jws.typ != TYPE:
            # RFC 8725 section 3.11: one kind of token can't stand in for another.
            raise InvalidToken("the token is not an access token")
        kid = jws.kid or ""
        key = self._keys.find(kid)
        if key is None or not key.verifies(jws):
            raise InvalidToken("the token is not signed by this broker")
        if jws.claims.get("iss") != self._issuer:
            raise InvalidToken("the token is from another issuer")
        return kid, _read(jws.claims)

    def _check_now(self, claims: AccessClaims, audience: str | None) -> None:
        """Check what depends on when and where; every time, cached or not."""
        now = self._clock.now()
        if audience is not None and audience not in claims.audience:
            raise InvalidToken("the token is meant for another audience")
        if now >= claims.expires_at:
            raise InvalidToken("the token has expired")
        if claims.issued_at > now + MAX_SKEW_S:
            raise InvalidToken("the token was issued in the future")


def _read(claims: Mapping[str, Any]) -> AccessClaims:
    """Read claims that we signed ourselves, and still believe no type."""
    details: list[Any] = _optional(claims, "authorization_details", list, [])
    if not all(_is_detail(detail) for detail in details):
        raise _malformed("authorization_details")
    act: dict[str, Any] | None = _optional(claims, "act", dict, None)
    if act is not None:
        _check_actor(act)
    may_act: dict[str, Any] | None = _optional(claims, "may_act", dict, None)
    if may_act is not None and not _names_agents(may_act):
        raise _malformed("may_act")
    return AccessClaims(
        subject=text(claims, "sub"),
        client_id=text(claims, "client_id"),
        audience=audiences(claims),
        jti=text(claims, "jti"),
        issued_at=_whole_seconds(claims, "iat"),
        expires_at=_whole_seconds(claims, "exp"),
        scope=_optional(claims, "scope", str, ""),
        act=act,
        authorization_details=tuple(details),
        txn=_optional(claims, "txn", str, ""),
        cnf=_optional(claims, "cnf", dict, None),
        lineage=_lineage(claims),
        may_act=may_act,
    )


def _is_detail(detail: object) -> bool:
    """Say whether something is an object whose ``capabilities``, if it has any, are names."""
    if not isinstance(detail, dict):
        return False
    names = cast("dict[str, Any]", detail).get("capabilities", [])
    return isinstance(names, list) and all(
        isinstance(name, str) for name in cast("list[Any]", names)
    )


def _names_agents(may_act: dict[str, Any]) -> bool:
    """Say whether a ``may_act`` has one member, which names agents: what isn't read isn't met."""
    if set(may_act) == {"sub"}:
        return isinstance(may_act["sub"], str)
    names = may_act["agents"] if set(may_act) == {"agents"} else None
    return isinstance(names, list) and all(isinstance(n, str) for n in cast("list[Any]", names))


def _lineage(claims: Mapping[str, Any]) -> tuple[str, ...]:
    ids: list[Any] = _optional(claims, "via", list, [])
    if not all(isinstance(jti, str) for jti in ids):
        raise _malformed("via")
    return tuple(ids)


def _check_actor(act: dict[str, Any]) -> None:
    """Walk down an ``act`` claim: an actor without a name can't be authorised or audited."""
    actor: Any = act
    while actor is not None:
        if not isinstance(actor, dict):
            raise _malformed("act")
        level = cast("dict[str, Any]", actor)
        text(level, "sub")
        actor = level.get("act")


def _whole_seconds(claims: Mapping[str, Any], name: str) -> int:
    value = numeric_date(claims, name)
    if not isinstance(value, int):
        raise _malformed(name)
    return value


def _optional(claims: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:  # noqa: ANN401
    """Return a claim that is of ``kind`` if it is there at all."""
    value = claims.get(name, default)
    if name in claims and not isinstance(value, kind):
        raise _malformed(name)
    return value


def _malformed(name: str) -> InvalidToken:
    return InvalidToken(f"the token's {name} is missing or malformed")
