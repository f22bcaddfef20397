"""What goes over the wire about a grant that exists.

Opening, renewing and rotating it, and what operators do about one that can't be ended.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from broker.wire import Delivery, Duration, Request, Text

WrappingToken = Annotated[str, Field(pattern="^[A-Za-z0-9._=-]{8,4096}$")]


class UnwrapGrant(Request):
    """``POST /v1/grants/{id}/unwrap``: the wrapping token that the credential came in."""

    token: WrappingToken


class RenewGrant(Request):
    """``POST /v1/grants/{id}/renew``: for so long from now, else for as long as usual."""

    ttl: Duration | None = None


class RotateGrant(Request):
    """``POST /v1/grants/{id}/rotate``: the old one lives on for ``overlap``, if it would have."""

    overlap: Duration | None = None
    ttl: Duration | None = None
    delivery: Delivery = "inline"
    wrap_ttl: Duration | None = None


class RetryGrant(Request):
    """``POST /v1/grants/{id}/retry``."""

    reason: Text | None = None


class AbandonGrant(Request):
    """``POST /v1/grants/{id}/abandon``: a statement that goes on record."""

    reason: Text
