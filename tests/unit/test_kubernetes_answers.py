"""TokenReview: API servers that don't say, and what they are asked with.

Against a double of the Kubernetes API (see ``tests/token_reviews.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError
from broker.identity.fetching import MAX_AT_ONCE, MAX_DOCUMENT_BYTES, Fetcher
from broker.identity.kubernetes import BadReview, read_review
from tests.issuers import Answer
from tests.loopback import Loopback, private_tls
from tests.token_reviews import PATH, REVIEWER, TokenReviews
from tests.unit.kubernetes_world import (
    KEY,
    NOW,
    SUBJECT,
    issuer_at,
    reviewed,
    signed,
    unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from broker.identity.kubernetes import TokenReviewIssuer


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


def put(file: Path, content: str | bytes | None) -> None:
    """Replace a file, or remove it."""
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


# ── an API server that doesn't say ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [202, 204, 400, 401, 403, 404, 409, 429, 500, 503])
async def test_any_other_status_lets_nobody_in(
    status: int, server: Loopback, issuer: TokenReviewIssuer
) -> None:
    server.answer = lambda _: Answer(reviewed()(None).body, status)
    assert f"answered {status}" in await unavailable(issuer)


async def test_both_statuses_of_success_are_taken(
    server: Loopback, issuer: TokenReviewIssuer
) -> None:
    server.answer = lambda _: Answer(reviewed()(None).body, 200)
    await issuer.verify(signed())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    status: int, server: Loopback, issuer: TokenReviewIssuer
) -> None:
    with Loopback(server.answer) as elsewhere:
        location = {"location": f"{elsewhere.url}{PATH}"}
        server.answer = lambda _: Answer(status=status, headers=location)
        assert "redirects aren't followed" in await unavailable(issuer)
        assert not elsewhere.asked


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"kind":"Status","apiVersion":"v1","status":"Failure","code":403}',
        reviewed()(None).body.replace(b'"TokenReview"', b'"SelfSubjectReview"'),
        reviewed()(None).body.replace(b"k8s.io/v1", b"k8s.io/v1beta1"),
        b'{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1"}',
        b'{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":[]}',
    ],
    ids=range(12),
)
async def test_an_answer_that_is_no_review_lets_nobody_in(
    body: bytes, server: Loopback, issuer: TokenReviewIssuer
) -> None:
    server.answer = lambda _: Answer(body, 201)
    await unavailable(issuer)


@pytest.mark.parametrize(
    "status",
    [
        {"user": None},
        {"user": []},
        {"user": {"username": None, "uid": "1"}},
        {"user": {"username": SUBJECT}},
        {"user": {"username": SUBJECT, "uid": ""}},
        {"user": {"username": SUBJECT, "uid": "x" * 513}},
        {"user": {"username": SUBJECT, "uid": "1", "extra": []}},
        *(
            {"user": {"username": SUBJECT, "uid": "1", "extra": {f"{name}-uid": value}}}
            for name in ("authentication.kubernetes.io/pod",)
            for value in ("x", [], ["a", "b"], [1], ["\u202e"])
        ),
        {"audiences": "broker"},
        {"audiences": [1]},
    ],
    ids=range(14),
)
async def test_a_review_of_the_wrong_shape_lets_nobody_in(
    status: dict[str, object], server: Loopback, issuer: TokenReviewIssuer
) -> None:
    server.answer = reviewed(**status)
    await unavailable(issuer)


async def test_a_huge_answer_is_not_read_to_its_end(
    server: Loopback, issuer: TokenReviewIssuer
) -> None:
    padding = b" " * MAX_DOCUMENT_BYTES
    server.answer = lambda _: Answer(reviewed()(None).body + padding, 201)
    assert "more than" in await unavailable(issuer)


async def test_a_server_that_hangs_is_given_up(server: Loopback, token_file: Path) -> None:
    server.open.clear()
    impatient = Fetcher(token_file=token_file, timeout_s=0.05)
    async with asyncio.timeout(3):
        assert "TimeoutError" in await unavailable(issuer_at(server.url, token_file, impatient))


async def test_a_server_that_is_down_lets_nobody_in(server: Loopback, token_file: Path) -> None:
    with Loopback(server.answer) as other:
        pass
    assert "failed: ConnectError" in await unavailable(issuer_at(other.url, token_file))


async def test_a_flood_of_tokens_is_no_flood_at_the_api_server(
    server: Loopback, issuer: TokenReviewIssuer
) -> None:
    server.open.clear()
    callers = [asyncio.create_task(issuer.verify(signed())) for _ in range(40)]
    for _ in range(MAX_AT_ONCE):
        assert await asyncio.to_thread(server.arrived.acquire, timeout=10)
    assert len(server.asked) == MAX_AT_ONCE
    server.open.set()
    await asyncio.gather(*callers)
    assert len(server.asked) == 40


# ── the broker's own token, and the server's CA ──────────────────────────────────────────────────


async def test_the_brokers_own_token_is_read_anew_each_time(
    token_file: Path, issuer: TokenReviewIssuer
) -> None:
    put(token_file, "expired")
    assert "answered 401" in await unavailable(issuer)
    put(token_file, REVIEWER)
    await issuer.verify(signed())


@pytest.mark.parametrize("content", [b"", b"two words", b"a\nb", b"\xff", b"a" * 70_000])
async def test_a_token_file_without_a_token_lets_nobody_in(
    content: bytes, server: Loopback, token_file: Path, issuer: TokenReviewIssuer
) -> None:
    put(token_file, content)
    cause = await unavailable(issuer)
    if len(content) < 70_000:
        assert "holds no bearer token" in cause
        assert not server.asked
    put(token_file, None)
    assert "can't be read" in await unavailable(issuer)


async def test_only_the_ca_of_the_cluster_is_trusted(
    tmp_path: Path, token_file: Path, cluster: TokenReviews
) -> None:
    (tmp_path / "other").mkdir()
    tls, ca_file = private_tls(tmp_path)
    _, other_ca = private_tls(tmp_path / "other")
    with Loopback(cluster, tls) as server:
        await issuer_at(server.url, token_file, ca_file=ca_file).verify(signed())
        for trusted in (None, other_ca):
            issuer = issuer_at(server.url, token_file, ca_file=trusted)
            assert "ConnectError" in await unavailable(issuer)
        # The other CA takes over, as when a cluster rotates its own.
        issuer = issuer_at(server.url, token_file, ca_file=ca_file)
        await issuer.verify(signed())
        other_ca.replace(ca_file)
        assert "ConnectError" in await unavailable(issuer)
        put(ca_file, None)
        assert "ca_file" in await unavailable(issuer)
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    "url", ["http://kubernetes.default.svc", "https://user@k8s.example", "k8s.example", ""]
)
def test_tokens_are_never_sent_over_an_unprotected_channel(url: str, token_file: Path) -> None:
    with pytest.raises(ConfigError, match="token_review must be an https URL"):
        issuer_at(url, token_file)


def test_a_ca_file_that_is_none_is_found_at_the_start(tmp_path: Path, token_file: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    for content in (None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        if content is not None:
            ca_file.write_bytes(content)
        with pytest.raises(ConfigError, match="ca_file"):
            issuer_at("https://k8s.example", token_file, ca_file=ca_file)


# ── any answer at all ────────────────────────────────────────────────────────────────────────────

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
MEMBERS = ["authenticated", "error", "user", "audiences"]


@given(status=st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=3), user=JSON)
def test_no_answer_is_misread(status: dict[str, Any], user: Any) -> None:
    good = json.loads(reviewed()(None).body)
    changes: list[dict[str, Any]] = [status, {"user": user}]
    for changed in ({**good["status"], **change} for change in changes):
        with contextlib.suppress(BadReview):
            review = read_review(json.dumps({**good, "status": changed}).encode())
            if review is not None:
                assert changed["authenticated"] is True
                assert not changed.get("error")
                assert review.username == SUBJECT == changed["user"]["username"]


@given(body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_noise_is_no_review(body: bytes) -> None:
    with pytest.raises(BadReview):
        read_review(body)
