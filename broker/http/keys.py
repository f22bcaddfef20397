"""``/v1/keys``: the broker's signing keys, for operators; auditors may read."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from broker.clock import to_rfc3339
from broker.http.callers import By, The
from broker.http.openapi import answers
from broker.http.shapes import Answer, Time, Words
from broker.keys import Algorithm, KeyRotation, KeyState, KeyStatus
from broker.visibility import must_operate, must_see_all
from broker.wire import Request as Body
from broker.wire import Text, page_json

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)
_KID: Final = "^[A-Za-z0-9_-]{43}$"
Kid = Annotated[str, Field(pattern=_KID)]


class RotateKeys(Body):
    """``POST /v1/keys/rotate``: ``now`` kills every token that was signed so far."""

    reason: Text | None = None
    now: bool = False

    @model_validator(mode="after")
    def _explained(self) -> RotateKeys:
        if self.now and self.reason is None:
            raise ValueError("a rotation with now needs a reason")
        return self


class SigningKeyAnswer(Answer):
    """A signing key: only its public half ever leaves the broker, at the JWKS endpoint."""

    kid: Kid
    algorithm: Algorithm
    state: KeyState
    created_at: Time
    signs_from: Time
    retires_at: Time | None


class SigningKeyPage(Answer):
    """All signing keys, the newest first; always one page."""

    items: Annotated[list[SigningKeyAnswer], Field(min_length=1)]
    next: None


class RotatedAnswer(SigningKeyAnswer):
    """The new key, and the ids of those whose every token is dead now."""

    removed: list[Kid]
    reason: Words | None


def rotation_of(request: Request) -> KeyRotation:
    """Return the app's signing keys."""
    rotation: KeyRotation = request.app.state.keys
    return rotation


Rotation = Annotated[KeyRotation, Depends(rotation_of)]


@router.get("/keys", responses=answers(200, SigningKeyPage, 403))
async def list_keys(rotation: Rotation, caller: By) -> dict[str, Any]:
    """List the signing keys, newest first."""
    must_see_all(caller)
    return page_json([_key_json(status) for status in rotation.status()], None)


@router.post("/keys/rotate", responses=answers(200, RotatedAnswer, 400, 403, 409))
async def rotate_keys(
    broker: The, rotation: Rotation, caller: By, ask: RotateKeys
) -> dict[str, Any]:
    """Make the next signing key; it signs once it has been published for a while.

    With `now` it signs at once and every older key is removed: all that they signed is dead.
    """
    must_operate(caller)
    await broker.pipeline.judge.operate(caller, "rotate_keys")
    made = await rotation.rotate(
        actor=caller.name, reason=ask.reason or "requested", at_once=ask.now
    )
    return {**_key_json(made.key), "removed": list(made.removed), "reason": ask.reason}


def _key_json(status: KeyStatus) -> dict[str, Any]:
    return {
        "kid": status.kid,
        "algorithm": status.algorithm,
        "state": status.state,
        "created_at": to_rfc3339(status.created_at * 1000),
        "signs_from": to_rfc3339(status.signs_from * 1000),
        "retires_at": to_rfc3339(status.retires_at * 1000) if status.retires_at else None,
    }
