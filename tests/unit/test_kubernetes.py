"""TokenReview: whose token is taken for whom, and whose for nobody's.

Against a double of the Kubernetes API (see ``tests/token_reviews.py``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.identity.rules import Rule
from tests.issuers import IssuerKey
from tests.loopback import Loopback
from tests.token_reviews import PATH, REVIEWER, TokenReviews
from tests.unit.kubernetes_world import KEY, NOW, SUBJECT, issuer_at, refusal, reviewed, signed
from tests.workload_tokens import CLUSTER, POD_UID, SERVICE_ACCOUNT_UID, kubernetes

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from broker.identity.kubernetes import TokenReviewIssuer

BOUND = {"kubernetes.io/pod/uid": Rule.parse({"match": ".+"})}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{REVIEWER}\n")
    return file


@pytest.fixture
def cluster() -> TokenReviews:
    return TokenReviews(KEY, lambda: NOW)


@pytest.fixture
def server(cluster: TokenReviews) -> Generator[Loopback]:
    with Loopback(cluster) as running:
        yield running


@pytest.fixture
def issuer(server: Loopback, token_file: Path) -> TokenReviewIssuer:
    return issuer_at(server.url, token_file)


# ── a token the API server accepts ───────────────────────────────────────────────────────────────


async def test_a_projected_token_proves_its_service_account(
    server: Loopback, issuer: TokenReviewIssuer
) -> None:
    token = signed()
    identity = await issuer.verify(token)
    assert identity.issuer_name == "cluster"
    assert identity.issuer == CLUSTER
    assert identity.subject == SUBJECT
    assert identity.method == "token-review"
    assert identity.expires_at == NOW + 600
    assert identity.claims["kubernetes.io"] == kubernetes(now=NOW)["kubernetes.io"]
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", PATH)
    assert asked.headers["authorization"] == f"Bearer {REVIEWER}"
    assert json.loads(asked.body) == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["broker"]},
    }
    await issuer.aclose()


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("kubernetes.io/namespace", "agents"),
        ("kubernetes.io/serviceaccount/name", "report-builder"),
        ("kubernetes.io/serviceaccount/uid", SERVICE_ACCOUNT_UID),
        ("kubernetes.io/pod/uid", POD_UID),
        ("kubernetes.io/node/name", "node-1"),
        ("sub", SUBJECT),
    ],
)
async def test_rules_see_what_they_would_see_in_a_verified_token(
    claim: str, value: str, server: Loopback, token_file: Path
) -> None:
    await issuer_at(server.url, token_file, claims={claim: Rule.parse(value)}).verify(signed())
    other = issuer_at(server.url, token_file, claims={claim: Rule.parse("other")})
    detail = await refusal(other, signed())
    assert claim in detail
    assert value not in detail


async def test_what_only_the_review_says_counts_too(server: Loopback, token_file: Path) -> None:
    issuer = issuer_at(server.url, token_file, claims=BOUND)
    server.answer = reviewed()
    bare = kubernetes(now=NOW, sub=None)
    del bare["kubernetes.io"]
    identity = await issuer.verify(KEY.sign(bare))
    assert identity.subject == SUBJECT
    assert identity.claims["sub"] == SUBJECT
    assert identity.claims["kubernetes.io"] == {
        "namespace": "agents",
        "serviceaccount": {"name": "report-builder", "uid": SERVICE_ACCOUNT_UID},
        "pod": {"uid": POD_UID},
    }
    await issuer.verify(KEY.sign({**bare, "kubernetes.io": "agents"}))


async def test_a_token_bound_to_no_pod_can_be_refused(
    server: Loopback, token_file: Path, issuer: TokenReviewIssuer
) -> None:
    token = signed(pod_uid=None)
    await issuer.verify(token)
    bound = issuer_at(server.url, token_file, claims=BOUND)
    await bound.verify(signed())
    assert "kubernetes.io/pod/uid" in await refusal(bound, token)


@pytest.mark.parametrize("uid", [POD_UID, SERVICE_ACCOUNT_UID])
async def test_a_deleted_pod_or_account_is_nobody_from_then_on(
    uid: str, cluster: TokenReviews, server: Loopback, issuer: TokenReviewIssuer
) -> None:
    token = signed()
    await issuer.verify(token)
    cluster.gone.add(uid)
    assert "doesn't accept" in await refusal(issuer, token)
    assert len(server.asked) == 2


# ── refused without asking ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"iss": "https://other.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": ["https://kubernetes.default.svc"]}, "another audience"),
        ({"aud": None}, "aud"),
        ({"exp": NOW - 31}, "expired"),
        ({"exp": None}, "no exp"),
        ({"exp": NOW + 90_000}, "more than"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"iat": NOW + 31}, "future"),
        ({"act": {"sub": "other"}}, "somebody else acts"),
    ],
)
async def test_what_can_be_seen_to_be_wrong_is_not_sent_on(
    changes: dict[str, Any], word: str, server: Loopback, issuer: TokenReviewIssuer
) -> None:
    assert word in await refusal(issuer, signed(**changes))
    assert not server.asked


async def test_garbage_is_not_sent_on(server: Loopback, issuer: TokenReviewIssuer) -> None:
    claims = kubernetes(now=NOW)
    for token in ("", "a.b.c", REVIEWER, signed(pad="x" * 16_384), f"{signed()}="):
        await refusal(issuer, token)
    await refusal(issuer, KEY.sign(claims, typ="at+jwt"))
    await refusal(issuer, IssuerKey.new("EdDSA").sign(claims))
    await refusal(issuer, KEY.sign(claims, jku=f"{server.url}/jwks"))
    assert not server.asked


# ── refused by the API server ────────────────────────────────────────────────────────────────────


async def test_a_forged_token_is_refused(issuer: TokenReviewIssuer) -> None:
    forged = signed(IssuerKey.new("RS256", "cluster-1"))
    assert "doesn't accept" in await refusal(issuer, forged)


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False},
        {"authenticated": None},
        {"authenticated": "true"},
        {"authenticated": 1},
        {"error": "invalid bearer token"},
        {"error": "the webhook timed out", "authenticated": False},
        {"user": {"username": "alice", "uid": "1"}},
        {"user": {"username": "system:node:node-1", "uid": "1"}},
        {"user": {"username": "system:serviceaccount:agents", "uid": "1"}},
        {"user": {"username": f"{SUBJECT}:x", "uid": "1"}},
        {"user": {"username": f"oidc:{SUBJECT}", "uid": "1"}},
    ],
)
async def test_only_an_authenticated_service_account_is_taken(
    status: dict[str, object], server: Loopback, issuer: TokenReviewIssuer
) -> None:
    server.answer = reviewed(**status)
    assert "doesn't accept" in await refusal(issuer, signed())


@pytest.mark.parametrize("audiences", [None, [], ["other"], ["brokers", "Broker"]])
async def test_the_audience_has_to_be_echoed(
    audiences: list[str] | None, server: Loopback, issuer: TokenReviewIssuer
) -> None:
    # An API server that knows nothing of audiences says nothing of them, and accepts any token.
    server.answer = reviewed(audiences=audiences)
    assert "another audience" in await refusal(issuer, signed())


@pytest.mark.parametrize(
    "changes",
    [
        {"account": "other"},
        {"namespace": "other"},
        {"account_uid": "another"},
        {"pod_uid": "another"},
        {"sub": "system:serviceaccount:agents:other"},
    ],
)
async def test_a_review_of_another_workload_is_refused(
    changes: dict[str, Any], server: Loopback, issuer: TokenReviewIssuer
) -> None:
    server.answer = reviewed()
    await issuer.verify(signed())
    assert "another workload" in await refusal(issuer, signed(**changes))
