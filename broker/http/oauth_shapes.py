"""The shapes of the OAuth endpoints' forms and answers, for the OpenAPI document alone.

A form's list is a field that may be repeated. Parameters that a server doesn't know are ignored
(RFC 6749 section 3.2), so forms stay open. What has a default isn't always there.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from broker.http.shapes import Answer, Count, GrantId, TaskId, Words
from broker.token_request import (
    ASSERTION_TYPES,
    DETAIL_TYPE,
    GRANT_TYPES,
    MAX_TARGETS,
    TYPE_ACCESS_TOKEN,
    TYPE_JWT,
)

_TOKEN_TYPES: Final = (TYPE_JWT, TYPE_ACCESS_TOKEN)
_JSON: Final[dict[str, Any]] = {"contentMediaType": "application/json"}


def _one_of(values: tuple[str, ...]) -> dict[str, Any]:
    return {"enum": list(values)}


def _at_most_one_of(values: tuple[str, ...]) -> dict[str, Any]:
    """Without a value a parameter is as good as left out (RFC 6749 section 3.2)."""
    return {"enum": [*values, ""]}


class ClientForm(BaseModel):
    """How a client authenticates in a form (RFC 7521 section 4.2), if not by mutual TLS."""

    client_id: str = Field(default_factory=str)
    client_assertion: str = Field(default_factory=str)
    client_assertion_type: str = Field(
        default_factory=str, json_schema_extra=_at_most_one_of(ASSERTION_TYPES)
    )


class TokenForm(ClientForm):
    """A token request (RFC 6749, RFC 8693 section 2.1, RFC 8707, RFC 9396)."""

    grant_type: str = Field(json_schema_extra=_one_of(GRANT_TYPES))
    subject_token: str = Field(default_factory=str)
    subject_token_type: str = Field(
        default_factory=str, json_schema_extra=_at_most_one_of(_TOKEN_TYPES)
    )
    actor_token: str = Field(default_factory=str)
    actor_token_type: str = Field(
        default_factory=str, json_schema_extra=_at_most_one_of(_TOKEN_TYPES)
    )
    requested_token_type: str = Field(
        default_factory=str, json_schema_extra=_at_most_one_of(_TOKEN_TYPES)
    )
    resource: list[str] = Field(default_factory=list, max_length=MAX_TARGETS)
    audience: list[str] = Field(default_factory=list, max_length=MAX_TARGETS)
    scope: str = Field(default_factory=str)
    authorization_details: str = Field(default_factory=str, json_schema_extra=_JSON)


class OneTokenForm(ClientForm):
    """A request about one token (RFC 7662 section 2.1, RFC 7009 section 2.1)."""

    token: Words
    token_type_hint: str = Field(default_factory=str)


class TaskDetail(Answer):
    """The task a token is for (RFC 9396), and which of its capabilities, if not all."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    type: str = Field(json_schema_extra={"const": DETAIL_TYPE})
    task_id: TaskId
    capabilities: list[Words] = Field(default_factory=list, min_length=1)


class AccessToken(Answer):
    """A token (RFC 8693 section 2.2.1, RFC 6749 section 5.1)."""

    access_token: Words
    issued_token_type: str = Field(default_factory=str, json_schema_extra=_one_of(_TOKEN_TYPES))
    token_type: Literal["Bearer", "DPoP"]
    expires_in: Count
    scope: str
    authorization_details: list[TaskDetail] = Field(default_factory=list[TaskDetail], min_length=1)
    grant_id: GrantId = Field(default_factory=str)


class Confirmation(Answer):
    """The key a token is bound to: of DPoP, or of a client certificate."""

    jkt: str = Field(default_factory=str)
    x5t_s256: str = Field(default_factory=str, serialization_alias="x5t#S256")


class Introspected(Answer):
    """What a token says while it lives; of any other only that it is not active (RFC 7662)."""

    active: bool
    iss: str = Field(default_factory=str)
    sub: str = Field(default_factory=str)
    aud: str | list[str] = Field(default_factory=str)
    client_id: str = Field(default_factory=str)
    jti: str = Field(default_factory=str)
    iat: Count = Field(default_factory=int)
    exp: Count = Field(default_factory=int)
    token_type: Literal["Bearer", "DPoP"] = Field(default_factory=lambda: "Bearer")
    act: dict[str, Any] = Field(default_factory=dict)
    authorization_details: list[TaskDetail] = Field(default_factory=list[TaskDetail], min_length=1)
    txn: TaskId = Field(default_factory=str)
    scope: str = Field(default_factory=str)
    cnf: Confirmation = Field(default_factory=Confirmation)


class Jwk(Answer):
    """A public key (RFC 7517); its other members depend on ``kty``."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "string"}})

    kty: Literal["EC", "RSA"]
    kid: Words
    use: Literal["sig"]
    alg: Literal["ES256", "RS256"]


class JwkSet(Answer):
    """The keys that tokens are verified with."""

    keys: Annotated[list[Jwk], Field(min_length=1)]
