"""Tokens as real platforms make them, at the token endpoint of a running broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.blocks import DocumentedWorld, blocks, documented
from tests.http.parties import assert_oauth_error
from tests.issuers import Answer, IssuerKey, jwks
from tests.loopback import Asked, Loopback
from tests.token_reviews import REVIEWER, TokenReviews
from tests.workload_tokens import POD_UID, github, github_pull_request, gitlab, kubernetes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

KEY = IssuerKey.new("RS256")
BLOCKS = blocks("identity.md")
UNKNOWN = "no principal"


@pytest.fixture
def keys(tmp_path: Path) -> str:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(KEY))
    return str(file)


@pytest.fixture
def cluster() -> TokenReviews:
    return TokenReviews(KEY)


@pytest.fixture
def server(cluster: TokenReviews) -> Generator[Loopback]:
    with Loopback(cluster) as running:
        yield running


@pytest.fixture
async def reviewing(
    engines: tuple[DevStack, Config], server: Loopback, tmp_path: Path
) -> AsyncGenerator[DocumentedWorld]:
    """A broker that asks the cluster about each token."""
    token_file = tmp_path / "token"
    token_file.write_text(REVIEWER)
    places = {"token_review": server.url, "token_file": str(token_file)}
    async with documented(engines[0], BLOCKS["Kubernetes TokenReview"], **places) as world:
        yield world


async def refusal(world: DocumentedWorld, token: str) -> str:
    return assert_oauth_error(await world.redeem(token), "invalid_request")


async def test_jobs_of_others_on_github_get_nothing(
    engines: tuple[DevStack, Config], keys: str
) -> None:
    async with documented(engines[0], BLOCKS["GitHub Actions"], jwks_file=keys) as world:
        assert (await world.redeem(KEY.sign(github()))).status_code == 200
        for claims, word in (
            (github(owner="mallory", owner_id="666", repository_id="31337"), "repository_owner_id"),
            (github(owner_id="666", repository_id="31337"), "repository_owner_id"),
            (github(repository_id="99999999"), UNKNOWN),
            (github_pull_request(), UNKNOWN),
            (github(event_name="pull_request_target"), UNKNOWN),
            (github(ref="refs/heads/feature"), UNKNOWN),
            (github(act={"sub": "other"}), "somebody else acts"),
            (github(aud="https://github.com/octo-org"), "another audience"),
        ):
            told = await refusal(world, KEY.sign(claims))
            assert word in told
            assert "666" not in told


async def test_jobs_of_others_on_gitlab_get_nothing(
    engines: tuple[DevStack, Config], keys: str
) -> None:
    async with documented(engines[0], BLOCKS["GitLab CI"], jwks_file=keys) as world:
        assert (await world.redeem(KEY.sign(gitlab()))).status_code == 200
        for claims, word in (
            (gitlab(namespace_id="73"), "namespace_id"),
            (gitlab(project_id="21"), UNKNOWN),
            (gitlab(ref_protected="false"), UNKNOWN),
            (gitlab(project_id="77", pipeline_source="merge_request_event"), UNKNOWN),
        ):
            assert word in await refusal(world, KEY.sign(claims))


async def test_other_pods_get_nothing(engines: tuple[DevStack, Config], keys: str) -> None:
    async with documented(engines[0], BLOCKS["Kubernetes"], jwks_file=keys) as world:
        assert (await world.redeem(KEY.sign(kubernetes(), typ=None))).status_code == 200
        for claims, word in (
            (kubernetes(pod_uid=None), "kubernetes.io/pod/uid"),
            (kubernetes(namespace="other"), UNKNOWN),
            (kubernetes(account_uid="made-anew"), UNKNOWN),
            (kubernetes(aud=["https://kubernetes.default.svc"]), "another audience"),
        ):
            assert word in await refusal(world, KEY.sign(claims, typ=None))


async def test_a_deleted_pod_gets_no_further_token(
    reviewing: DocumentedWorld, cluster: TokenReviews
) -> None:
    token = KEY.sign(kubernetes(), typ=None)
    assert (await reviewing.redeem(token)).status_code == 200
    cluster.gone.add(POD_UID)
    assert "doesn't accept" in await refusal(reviewing, token)


async def test_pods_that_are_not_the_principals_get_nothing_by_review(
    reviewing: DocumentedWorld,
) -> None:
    for claims, word in (
        (kubernetes(pod_uid=None), "kubernetes.io/pod/uid"),
        (kubernetes(account="other"), UNKNOWN),
        (kubernetes(account_uid="made-anew"), UNKNOWN),
    ):
        assert word in await refusal(reviewing, KEY.sign(claims, typ=None))


@pytest.mark.parametrize(
    "answer",
    [Answer(status=403), Answer(status=500), Answer(b"<html>", 201), Answer(status=307)],
    ids=["forbidden", "error", "nonsense", "redirect"],
)
async def test_an_api_server_that_does_not_say_lets_nobody_in(
    answer: Answer,
    reviewing: DocumentedWorld,
    server: Loopback,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answer = lambda _: answer
    token = KEY.sign(kubernetes(), typ=None)
    told = await reviewing.redeem(token)
    assert told.status_code == 503
    assert told.json()["error"] == "temporarily_unavailable"
    assert int(told.headers["retry-after"]) > 0
    logged = capsys.readouterr().err
    assert "token_not_reviewed" in logged
    for secret in (token, token.rpartition(".")[2], REVIEWER):
        assert secret not in logged + told.text


async def test_discovery_cannot_lead_the_broker_elsewhere(
    engines: tuple[DevStack, Config],
) -> None:
    with Loopback(lambda _: Answer(jwks(KEY))) as internal, Loopback(lambda _: Answer()) as issuer:
        metadata = {"issuer": issuer.url, "jwks_uri": f"{internal.url}/jwks"}
        issuer.answer = document(metadata)
        places: dict[str, Any] = {"issuer": issuer.url, "discovery": True}
        async with documented(engines[0], BLOCKS["GitHub Actions"], **places) as world:
            answer = await world.redeem(KEY.sign(github(iss=issuer.url)))
            assert answer.status_code == 503
            assert internal.url not in answer.text
            assert not internal.asked


def document(content: object) -> Any:
    """Answer any request with a JSON document."""

    def answer(_: Asked) -> Answer:
        return Answer(json.dumps(content).encode())

    return answer
