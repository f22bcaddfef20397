"""The calls about how grants end; see ``calls.py``."""

from __future__ import annotations

from typing import Any

from broker.client.building import one, path_to
from broker.client.messages import Call, Response, get, send_json
from broker.client.models import Grant, Receipt


def get_receipt(grant_id: str) -> Call[Receipt]:
    """Read the signed receipt of a grant that has ended; ``Conflict`` while it hasn't."""
    return one(Receipt, get(path_to("/v1/grants", grant_id, "receipt")))


def retry_grant(grant_id: str, *, reason: str | None = None) -> Call[Grant]:
    """Have the next attempt to revoke a grant made now; for operators."""
    path = path_to("/v1/grants", grant_id, "retry")
    return one(Grant, send_json("POST", path, {"reason": reason}, repeatable=True))


def abandon_grant(grant_id: str, reason: str) -> Call[Grant]:
    """State that no more is done to revoke a grant, which may live on; for operators."""
    path = path_to("/v1/grants", grant_id, "abandon")
    return one(Grant, send_json("POST", path, {"reason": reason}))


def get_key_set() -> Call[dict[str, Any]]:
    """Read the public keys that the broker signs with, as a JWK Set."""
    return Call(get("/.well-known/jwks.json"), Response.mapping)
