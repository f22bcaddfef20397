"""A cluster whose API server is a double (see ``tests/token_reviews.py``), and its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import InvalidToken, Unavailable
from broker.identity.kubernetes import TokenReviewIssuer
from broker.identity.models import IssuerSettings
from tests.clocks import ManualClock
from tests.issuers import Answer, IssuerKey
from tests.token_reviews import REVIEWER, accepted
from tests.workload_tokens import CLUSTER, POD_UID, SERVICE_ACCOUNT_UID, kubernetes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.identity.fetching import Fetcher
    from tests.loopback import Asked

KEY = IssuerKey.new("RS256", "cluster-1")
NOW = ManualClock().now()
SUBJECT = "system:serviceaccount:agents:report-builder"


def signed(key: IssuerKey = KEY, **changes: Any) -> str:
    """A projected token as clusters write it: no ``typ``."""
    changes.setdefault("now", NOW)
    return key.sign(kubernetes(**changes), typ=None)


def issuer_at(
    url: str, token_file: Path, fetcher: Fetcher | None = None, **changes: object
) -> TokenReviewIssuer:
    values: dict[str, Any] = {
        "name": "cluster",
        "issuer": CLUSTER,
        "audience": "broker",
        "algorithms": ("RS256", "ES256"),
        "token_review": url,
        "token_file": token_file,
        **changes,
    }
    return TokenReviewIssuer(IssuerSettings(**values), ManualClock(), fetcher)


async def refusal(issuer: TokenReviewIssuer, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await issuer.verify(token)
    return caught.value.detail


async def unavailable(issuer: TokenReviewIssuer, token: str | None = None) -> str:
    """Nobody is let in; return why."""
    with pytest.raises(Unavailable, match="'cluster'") as caught:
        await issuer.verify(token or signed())
    assert caught.value.retry_after == 10
    assert REVIEWER not in f"{caught.value.detail}{caught.value.__cause__}"
    return str(caught.value.__cause__)


def reviewed(**changes: object) -> Callable[[Asked | None], Answer]:
    """Always the good answer, but for some members of its status."""
    user = {
        "username": SUBJECT,
        "uid": SERVICE_ACCOUNT_UID,
        "extra": {"authentication.kubernetes.io/pod-uid": [POD_UID]},
    }
    status = {"authenticated": True, "user": user, "audiences": ["broker"], **changes}
    status = {name: value for name, value in status.items() if value is not None}
    review = {
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "status": status,
    }
    return lambda _: accepted(review)
