"""A double of a Kubernetes API server's TokenReview API.

There is no Kubernetes here. This stands in for ``POST /apis/authentication.k8s.io/v1/tokenreviews``
as far as its documentation goes: it checks the caller's bearer token, the reviewed token's
signature, times and audience, and that its pod and service account are there, and answers in the
form a real one does. What it can't show is how a given version of Kubernetes behaves beyond that.
"""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any, cast

from cryptography.exceptions import InvalidSignature

from tests.issuers import PRIMITIVES, Answer, IssuerKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.loopback import Asked

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
REVIEWER = "the-brokers-own-token"


class TokenReviews:
    """Which of a cluster's objects are there, and what it says of their tokens."""

    def __init__(self, key: IssuerKey, now: Callable[[], float] = time.time) -> None:
        """``key`` is the cluster's; ``uids`` are of the objects that are gone."""
        self.key = key
        self.now = now
        self.gone: set[str] = set()

    def __call__(self, asked: Asked) -> Answer:
        """Answer a request."""
        if asked.path != PATH or asked.method != "POST":
            return Answer(status=404)
        if asked.headers.get("authorization") != f"Bearer {REVIEWER}":
            return Answer(status=401)
        review = json.loads(asked.body)
        spec = review["spec"]
        return accepted({**review, "status": self._status(spec["token"], spec["audiences"])})

    def _status(self, token: str, wanted: list[str]) -> dict[str, Any]:
        payload = self._verified(token)
        if payload is None:
            return {"user": {}, "error": "invalid bearer token"}
        mine = cast("list[str]", payload["aud"])
        shared = [audience for audience in wanted if audience in mine]
        if not shared:
            return {"user": {}, "error": "token audiences do not match"}
        bound = payload["kubernetes.io"]
        objects = (bound["serviceaccount"], bound.get("pod", {"uid": ""}))
        if self.gone & {item["uid"] for item in objects}:
            return {"user": {}, "error": "service account token has been invalidated"}
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={payload['jti']}"]}
        if "pod" in bound:
            extra["authentication.kubernetes.io/pod-name"] = [bound["pod"]["name"]]
            extra["authentication.kubernetes.io/pod-uid"] = [bound["pod"]["uid"]]
        groups = ["system:serviceaccounts", "system:authenticated"]
        uid = bound["serviceaccount"]["uid"]
        user = {"username": payload["sub"], "uid": uid, "groups": groups, "extra": extra}
        return {"authenticated": True, "user": user, "audiences": shared}

    def _verified(self, token: str) -> dict[str, Any] | None:
        signing_input, _, signature = token.rpartition(".")
        try:
            good = PRIMITIVES[self.key.algorithm].verify(
                signing_input.encode(), self.key.private.public_key(), _decoded(signature)
            )
        except InvalidSignature:
            good = False
        payload: dict[str, Any] = json.loads(_decoded(signing_input.partition(".")[2]))
        return payload if good and payload["exp"] > self.now() else None


def accepted(document: object) -> Answer:
    """The answer of an API server that has made the object it was asked to make."""
    body = json.dumps(document).encode()
    return Answer(body, 201, {"content-type": "application/json"})


def _decoded(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
