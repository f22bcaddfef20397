"""A token request, read strictly: RFC 6749 section 3.2, RFC 8693 section 2.1, RFC 8707, RFC 9396.

What is asked, and nothing about whether it may be had: no token is looked at in here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from broker.errors import OAuthError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Form = dict[str, list[str]]
"""A form as it came: each name with all its values."""

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
CLIENT_CREDENTIALS: Final = "client_credentials"
GRANT_TYPES: Final = (EXCHANGE, CLIENT_CREDENTIALS)

TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TYPE_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
_TOKEN_TYPES: Final = (TYPE_JWT, TYPE_ACCESS_TOKEN)

ASSERTION_JWT: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SVID: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
ASSERTION_TYPES: Final = (ASSERTION_JWT, ASSERTION_SVID)

SEALED: Final = "sealed"
"""The scope of tokens by which no credential is to be seen; it takes away, and gives nothing."""

DETAIL_TYPE: Final = "broker_task"
_DETAIL_FIELDS: Final = frozenset(("type", "task_id", "capabilities"))
MAX_TARGETS: Final = 20
MAX_CAPABILITIES: Final = 50

_OF_EXCHANGE: Final = ("subject_token", "subject_token_type", "actor_token", "actor_token_type")
_SINGLE: Final = (
    "grant_type",
    *_OF_EXCHANGE,
    "requested_token_type",
    "scope",
    "authorization_details",
    "deferral",
    "deferral_code",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
)


@dataclass(frozen=True, slots=True)
class ClientAssertion:
    """How a client says who it is in a form; ``assertion`` is empty where TLS must prove it."""

    client_id: str = ""
    assertion: str = field(default="", repr=False)
    assertion_type: str = ""


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """An ``authorization_details`` object of type ``broker_task``: one task, or less of it.

    ``capabilities`` is None where the token is to be good for all that the task may have.
    """

    task_id: str
    capabilities: frozenset[str] | None = None

    def as_json(self) -> dict[str, Any]:
        """The object as it stands in tokens and answers."""
        some = {} if self.capabilities is None else {"capabilities": sorted(self.capabilities)}
        return {"type": DETAIL_TYPE, "task_id": self.task_id, **some}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What a caller asks of the token endpoint. ``targets`` are resources and audiences alike.

    With ``deferral`` it is told when a human has to say yes first; see ``deferral.py``.
    """

    grant_type: str
    subject_token: str = field(default="", repr=False)
    subject_token_type: str = ""
    actor_token: str = field(default="", repr=False)
    requested_token_type: str = TYPE_ACCESS_TOKEN
    targets: tuple[str, ...] = ()
    scope: frozenset[str] | None = None
    detail: TaskDetail | None = None
    deferral: bool = False
    deferral_code: str = ""


def read_request(form: Mapping[str, Sequence[str]]) -> TokenRequest:
    """Read a token request.

    Raises:
        OAuthError: with the code that the RFC has for what is wrong.
    """
    fields = single_fields(form)
    grant_type = _required(fields, "grant_type")
    if grant_type not in GRANT_TYPES:
        known = " or ".join(GRANT_TYPES)
        raise OAuthError("unsupported_grant_type", f"grant_type is {known}")
    if grant_type == EXCHANGE:
        _check_exchange(fields)
    elif used := [name for name in _OF_EXCHANGE if name in fields]:
        raise OAuthError("invalid_request", f"{used[0]} has no use with {CLIENT_CREDENTIALS}")
    requested = fields.get("requested_token_type", TYPE_ACCESS_TOKEN)
    if requested not in _TOKEN_TYPES:
        known = " or ".join(_TOKEN_TYPES)
        raise OAuthError("invalid_request", f"requested_token_type is {known}")
    deferral = fields.get("deferral", "false")
    if deferral not in ("true", "false"):
        raise OAuthError("invalid_request", "deferral is true or false")
    return TokenRequest(
        deferral=deferral == "true" or "deferral_code" in fields,
        deferral_code=fields.get("deferral_code", ""),
        grant_type=grant_type,
        subject_token=fields.get("subject_token", ""),
        subject_token_type=fields.get("subject_token_type", ""),
        actor_token=fields.get("actor_token", ""),
        requested_token_type=requested,
        targets=_targets(form),
        scope=_scope(fields.get("scope")),
        detail=read_details(fields.get("authorization_details")),
    )


def read_client(form: Mapping[str, Sequence[str]]) -> ClientAssertion:
    """Read how a client authenticates (RFC 7521 section 4.2).

    Raises:
        OAuthError: half of an assertion, one of an unknown type, or a shared secret.
    """
    fields = single_fields(form)
    if "client_secret" in fields:
        raise OAuthError("invalid_client", "there are no client secrets: prove a key of your own")
    assertion = fields.get("client_assertion", "")
    kind = fields.get("client_assertion_type", "")
    if bool(assertion) != bool(kind):
        missing = "client_assertion_type" if assertion else "client_assertion"
        raise OAuthError("invalid_request", f"{missing} is missing")
    if kind and kind not in ASSERTION_TYPES:
        raise OAuthError(
            "invalid_client", f"client_assertion_type is {' or '.join(ASSERTION_TYPES)}"
        )
    return ClientAssertion(fields.get("client_id", ""), assertion, kind)


def single_fields(form: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the parameters that come at most once (RFC 6749 section 3.2); empty is omitted."""
    fields: dict[str, str] = {}
    for name in _SINGLE:
        values = form.get(name, ())
        if len(values) > 1:
            raise OAuthError("invalid_request", f"{name} is given more than once")
        if values and values[0]:
            fields[name] = values[0]
    return fields


def read_details(text: str | None) -> TaskDetail | None:
    """Read ``authorization_details`` (RFC 9396 section 2): one object of our one type.

    Raises:
        OAuthError: ``invalid_authorization_details``: not that, or with a field we don't know.
    """
    if text is None:
        return None
    try:
        details = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _bad_details("authorization_details is not JSON") from None
    listed = cast("list[Any]", details) if isinstance(details, list) else []
    if len(listed) != 1 or not isinstance(listed[0], dict):
        raise _bad_details("authorization_details is an array of one object")
    detail = cast("dict[str, Any]", listed[0])
    if detail.get("type") != DETAIL_TYPE:
        raise _bad_details(f"the only type is {DETAIL_TYPE}")
    if not set(detail) <= _DETAIL_FIELDS or not isinstance(detail.get("task_id"), str):
        raise _bad_details(f"{DETAIL_TYPE} has: type, task_id, and capabilities to have less")
    return TaskDetail(detail["task_id"], _capabilities(detail))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name is repeated")
    return members


def _capabilities(detail: Mapping[str, Any]) -> frozenset[str] | None:
    if "capabilities" not in detail:
        return None
    names = detail["capabilities"]
    if (
        not isinstance(names, list)
        or not 0 < len(cast("list[Any]", names)) <= MAX_CAPABILITIES
        or not all(isinstance(name, str) for name in cast("list[Any]", names))
    ):
        raise _bad_details(f"capabilities is a list of 1 to {MAX_CAPABILITIES} names")
    return frozenset(cast("list[str]", names))


def _bad_details(detail: str) -> OAuthError:
    return OAuthError("invalid_authorization_details", detail)


def _check_exchange(fields: Mapping[str, str]) -> None:
    for name in ("subject_token", "subject_token_type"):
        _required(fields, name)
    if fields["subject_token_type"] not in _TOKEN_TYPES:
        raise OAuthError("invalid_request", f"subject_token_type is {' or '.join(_TOKEN_TYPES)}")
    # RFC 8693 section 2.1: each of the two comes with the other.
    if ("actor_token" in fields) != ("actor_token_type" in fields):
        missing = "actor_token_type" if "actor_token" in fields else "actor_token"
        raise OAuthError("invalid_request", f"{missing} is missing")
    if fields.get("actor_token_type", TYPE_JWT) != TYPE_JWT:
        raise OAuthError("invalid_request", f"actor_token_type is {TYPE_JWT}")


def _required(fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise OAuthError("invalid_request", f"{name} is missing")
    return fields[name]


def _targets(form: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return what the token is for; both parameters may repeat (RFC 8707, RFC 8693 2.1)."""
    resources = form.get("resource", ())
    if not all(map(_is_absolute, resources)):
        raise OAuthError("invalid_target", "resource: an absolute URI without a fragment")
    audiences = form.get("audience", ())
    if not all(audiences):
        raise OAuthError("invalid_target", "audience is empty")
    targets = tuple(dict.fromkeys((*resources, *audiences)))
    if len(targets) > MAX_TARGETS:
        raise OAuthError("invalid_target", f"at most {MAX_TARGETS} targets in one request")
    return targets


def _is_absolute(uri: str) -> bool:
    """Say whether ``uri`` may name a resource (RFC 8707 section 2)."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # such as a bracket that nothing closes
        return False
    return bool(parts.scheme and (parts.netloc or parts.path)) and "#" not in uri


def _scope(text: str | None) -> frozenset[str] | None:
    """Return the scopes asked for (RFC 6749 section 3.3), or None without a wish."""
    if text is None:
        return None
    words = text.split(" ")
    fine = all(word and all("!" <= c <= "~" and c not in '"\\' for c in word) for word in words)
    if not fine:
        raise OAuthError(
            "invalid_scope", "scope is words of printable ASCII with one space between"
        )
    return frozenset(words)
