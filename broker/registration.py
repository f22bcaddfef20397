"""What a principal that is added at run time must be; no I/O."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import TypeAdapter, ValidationError

from broker.catalog import PrincipalState
from broker.config.addresses import ResourceUri
from broker.errors import Conflict, InvalidRequest
from broker.identity.jwk import is_canonical, parse_key, parse_key_set, thumbprint
from broker.identity.models import Role
from broker.register import Entry, read_rule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from broker.catalog import Capability, Principal
    from broker.identity.rules import IdentityRule
    from broker.wire_principals import AddPrincipal, ProvedBy

MAX_KEYS: Final = 16
_RESOURCE: Final[TypeAdapter[str]] = TypeAdapter(ResourceUri)


def definition(
    ask: AddPrincipal,
    *,
    issuers: Collection[str],
    capabilities: Mapping[str, Capability],
    broker: str,
) -> dict[str, Any]:
    """Return a request as the register keeps it (``Entry.added``).

    ``issuers`` are the names that identities may be of, ``broker`` the broker's own URL.

    Raises:
        InvalidRequest: it can't be a principal; ``field`` says where, the detail what to change.
    """
    if ask.capabilities and ask.role != Role.AGENT:
        raise _wrong("capabilities", "only agents have some")
    if unknown := sorted(set(ask.capabilities) - set(capabilities)):
        raise _wrong("capabilities", f"there is no {unknown[0]!r} in the catalogue")
    if ask.max_ttl is not None and ask.role != Role.AGENT:
        raise _wrong("max_ttl", "only an agent's credentials can be bounded")
    if ask.delegates_to is not None and ask.role != Role.AGENT:
        raise _wrong("delegates_to", "only agents delegate")
    if (ask.resource is not None) != (ask.role == Role.RESOURCE_SERVER):
        raise _wrong("resource", "a resource server has one, and nobody else")
    if ask.resource is not None:
        _check_resource(ask.resource, broker)
    added: dict[str, Any] = {
        "role": ask.role,
        "purpose": ask.purpose,
        **_identity(ask.identity, issuers),
        "capabilities": sorted(set(ask.capabilities)),
        "resource": ask.resource,
        "max_ttl_ms": ask.max_ttl,
        "review_at": ask.review_by,
    }
    added = {key: value for key, value in added.items() if value}
    # To nobody is something else than to anybody.
    named = {} if ask.delegates_to is None else {"delegates_to": sorted(set(ask.delegates_to))}
    return {**added, **named}


def _check_resource(resource: str, broker: str) -> None:
    try:
        _RESOURCE.validate_python(resource)
    except ValidationError:
        raise _wrong("resource", "must be an absolute URI without fragment") from None
    if resource == broker:
        raise _wrong("resource", "is the broker's own URL")


def _identity(ask: ProvedBy, issuers: Collection[str]) -> dict[str, Any]:
    if ask.jwks is not None:
        return {"jwks": _key_set(ask.jwks)}
    if ask.issuer not in issuers:
        raise _wrong("identity.issuer", f"no issuer or trust domain is called {ask.issuer!r}")
    row = {"issuer": ask.issuer, "subject": ask.subject, "claims": ask.claims}
    row = {key: value for key, value in row.items() if value is not None}
    try:
        read_rule(row)
    except ValueError as error:
        raise _wrong("identity", f"a subject or claim: {error}") from None
    return {"identity": row}


def _key_set(jwks: Mapping[str, Any]) -> str:
    """Return a JWK Set as text, with the keys alone."""
    try:
        keys = parse_key_set(json.dumps(jwks).encode())
    except ValueError as error:
        raise _wrong("identity.jwks", str(error)) from None
    if keys.unusable:  # a private key is one of these
        raise _wrong("identity.jwks", "; ".join(keys.unusable[:3]))
    if not 0 < len(keys) <= MAX_KEYS:
        raise _wrong("identity.jwks", f"1 to {MAX_KEYS} public signature keys")
    if not all(is_canonical(key, parse_key(key)) for key in jwks["keys"]):
        # By another spelling one key could be two principals'.
        raise _wrong("identity.jwks", "a key is not written as RFC 7518 section 6 has it")
    return json.dumps({"keys": jwks["keys"]})


def check_unique(entry: Entry, principals: Iterable[Principal]) -> None:
    """Refuse a name, an identity or a resource that somebody has.

    Two rules that are the same, or that name the same subject and ask the same of the claims, would
    make whoever meets them nobody. One key is one party's alone.

    Raises:
        Conflict: somebody has it; ``state`` is theirs.
    """
    added = entry.added
    rule = read_rule(added["identity"]) if "identity" in added else None
    keys = _thumbprints(added.get("jwks", ""))
    for other in principals:
        taken = ""
        if other.name == entry.name:
            taken = "has this name, for good" if _is_retired(other) else "has this name"
        elif rule is not None and other.identity is not None and _same(rule, other.identity):
            taken = "has this identity"
        elif keys & _thumbprints(other.jwks):
            taken = "has one of these keys"
        elif added.get("resource") and added["resource"] == other.resource:
            taken = "answers for this resource"
        if taken:
            msg = f"Principal {other.name!r} {taken}: choose another, or retire that one first."
            raise Conflict(msg, state=str(other.state))


def _is_retired(principal: Principal) -> bool:
    return principal.state is PrincipalState.RETIRED


def _same(one: IdentityRule, other: IdentityRule) -> bool:
    if one.issuer_name != other.issuer_name or dict(one.claims) != dict(other.claims):
        return False
    if one.subject is None or other.subject is None:
        return one.subject is other.subject
    shared = {(type(value), value) for value in one.subject.values} & {
        (type(value), value) for value in other.subject.values
    }
    return bool(shared) or one.subject == other.subject


def _thumbprints(jwks: str) -> frozenset[str]:
    keys = cast("list[dict[str, Any]]", json.loads(jwks)["keys"]) if jwks else []
    return frozenset(thumbprint(key) for key in keys)


def _wrong(field: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {reason}", field=field)
