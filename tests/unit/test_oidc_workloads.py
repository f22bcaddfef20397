"""Who a real platform's token is, by the configurations in docs/identity.md, and who it is not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from broker.config import parse_config
from broker.errors import InvalidToken
from broker.identity.oidc import JwtIssuer
from tests.clocks import ManualClock
from tests.docs.blocks import blocks, laid_over
from tests.issuers import IssuerKey
from tests.unit.oidc_world import Keys
from tests.workload_tokens import github, github_pull_request, gitlab, kubernetes, person

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.config import Config

KEY = IssuerKey.new("RS256")
BLOCKS = blocks("identity.md")
BASE = {
    "broker": {"issuer": "https://broker.example"},
    "redis": {"url": "redis://127.0.0.1"},
}
NOBODY = "nobody"


def config_of(heading: str) -> Config:
    text = tomli_w.dumps(laid_over(BASE, BLOCKS[heading]))
    return parse_config(text, Path("/nowhere/config.toml"), files_may_be_missing=True)


async def who(heading: str, claims: dict[str, Any], key: IssuerKey = KEY) -> str:
    """The name of the principal that a token proves; ``NOBODY``, or why it is refused."""
    config = config_of(heading)
    issuer = JwtIssuer(config.issuers()[0], ManualClock(), Keys(KEY))
    try:
        identity = await issuer.verify(key.sign(claims))
    except InvalidToken as error:
        return error.detail
    principal = config.catalog().principal_of(identity)
    return NOBODY if principal is None else principal.name


def at_noon(make: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Make tokens of the manual clock's time."""
    return partial(make, now=ManualClock().now())


hub, hub_pull, lab, pod, someone = map(
    at_noon, (github, github_pull_request, gitlab, kubernetes, person)
)


# ── GitHub Actions ───────────────────────────────────────────────────────────────────────────────

WORKFLOW = "octo-org/reports/.github/workflows/{}@refs/heads/main"


@pytest.mark.parametrize("immutable", [True, False])
@pytest.mark.parametrize("event", ["push", "schedule", "workflow_dispatch"])
async def test_github_in_both_forms_of_its_subject(immutable: bool, event: str) -> None:
    claims = hub(immutable=immutable, event_name=event)
    assert ("@1296269" in claims["sub"]) is immutable
    assert await who("GitHub Actions", claims) == "nightly-reports"


async def test_a_renamed_repository_stays_the_same() -> None:
    # The workflow's path holds the name, so its rule has to follow; the ids don't change.
    claims = hub(name="renamed", job_workflow_ref=WORKFLOW.format("nightly.yml"))
    assert await who("GitHub Actions", claims) == "nightly-reports"
    assert await who("GitHub Actions", hub(owner="renamed-org", name="renamed")) == NOBODY


@pytest.mark.parametrize(
    "claims",
    [
        hub(repository_id="99999999"),
        hub(name="other", repository_id="1296270"),
        hub(repository_id=1296269),
        hub(ref="refs/heads/feature"),
        hub(ref="refs/heads/main2"),
        hub(ref="refs/tags/main", ref_type="tag"),
        hub(event_name="pull_request_target"),
        hub(event_name="workflow_run"),
        hub(event_name="issue_comment"),
        hub(event_name=None),
        hub(job_workflow_ref=WORKFLOW.format("other.yml")),
        hub(job_workflow_ref=WORKFLOW.format("nightly.yml") + "x"),
        hub(job_workflow_ref=WORKFLOW.format("nightly.yml").replace("main", "feature")),
        hub(job_workflow_ref="evil/x/" + WORKFLOW.format("nightly.yml")),
        hub(job_workflow_ref=None),
        hub_pull(),
        hub_pull(event_name="push"),
        hub_pull(ref="refs/heads/main"),
    ],
)
async def test_other_jobs_on_github_are_nobody(claims: dict[str, Any]) -> None:
    assert await who("GitHub Actions", claims) == NOBODY


@pytest.mark.parametrize(
    ("claims", "claim"),
    [
        # A fork is another owner's; so is a repository made anew under the same name.
        (hub(owner="mallory", owner_id="666", repository_id="31337"), "repository_owner_id"),
        (hub(owner_id="666", repository_id="31337"), "repository_owner_id"),
        (hub(repository_owner_id=None), "repository_owner_id"),
        (hub(runner_environment="self-hosted"), "runner_environment"),
    ],
)
async def test_other_owners_on_github_are_refused(claims: dict[str, Any], claim: str) -> None:
    detail = await who("GitHub Actions", claims)
    assert f"'{claim}'" in detail
    assert "666" not in detail
    assert "self-hosted" not in detail


# ── GitLab CI ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ref", ["main", "release/12"])
async def test_gitlab(ref: str) -> None:
    claims = lab(ref=ref, sub=f"project_path:shop/orders:ref_type:branch:ref:{ref}")
    assert await who("GitLab CI", claims) == "schema-migrations"
    # Moved to another path of the group, it is the same project.
    assert await who("GitLab CI", lab(project_path="shop/sales")) == "schema-migrations"


@pytest.mark.parametrize(
    "claims",
    [
        lab(project_id="21"),
        lab(project_id=20),
        lab(ref_protected="false"),
        lab(ref_protected=True),
        lab(ref_protected=None),
        lab(ref="feature"),
        lab(ref="release/12/x"),
        lab(ref="main", ref_type="tag"),
        lab(pipeline_source="merge_request_event"),
        # A merge request from a fork within the group, running in our project.
        lab(project_id="77", job_project_id="20", pipeline_source="merge_request_event"),
        # Deleted, and made anew under the same path.
        lab(project_id="1234"),
    ],
)
async def test_other_jobs_on_gitlab_are_nobody(claims: dict[str, Any]) -> None:
    assert await who("GitLab CI", claims) == NOBODY


@pytest.mark.parametrize("namespace_id", ["73", None, 72, "072"])
async def test_other_groups_on_gitlab_are_refused(namespace_id: object) -> None:
    assert "'namespace_id'" in await who("GitLab CI", lab(namespace_id=namespace_id))


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────────


async def test_kubernetes() -> None:
    assert await who("Kubernetes", pod()) == "report-builder"
    assert await who("Kubernetes", pod(pod_uid="another-pod")) == "report-builder"


@pytest.mark.parametrize(
    "claims",
    [
        pod(namespace="other"),
        pod(account="other"),
        pod(account_uid="made-anew"),
        # Whoever names an account cleverly doesn't become another.
        pod(namespace="agents:report-builder", account="x"),
        {**pod(), "kubernetes.io": {**pod()["kubernetes.io"], "namespace": "other"}},
    ],
)
async def test_other_accounts_are_nobody(claims: dict[str, Any]) -> None:
    assert await who("Kubernetes", claims) == NOBODY


@pytest.mark.parametrize("uid", [None, "", ["a\n"], {}])
async def test_a_token_bound_to_no_pod_is_refused(uid: object) -> None:
    claims = pod(pod_uid=uid)
    assert "'kubernetes.io/pod/uid'" in await who("Kubernetes", claims)


# ── people ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_person() -> None:
    heading = "People, and any OpenID Connect provider"
    assert await who(heading, someone()) == "alice"
    # The same address, given to somebody else, is somebody else.
    assert await who(heading, someone(sub="110248495921238986421")) == NOBODY
    assert "'hd'" in await who(heading, someone(hd="evil.example"))
    assert "'hd'" in await who(heading, someone(hd=None))
    assert "'email_verified'" in await who(heading, someone(email_verified="true"))


# ── all of them ──────────────────────────────────────────────────────────────────────────────────

KINDS = [
    ("GitHub Actions", hub),
    ("GitLab CI", lab),
    ("Kubernetes", pod),
    ("People, and any OpenID Connect provider", someone),
]


@pytest.mark.parametrize(("heading", "make"), KINDS)
async def test_every_kind_is_held_to_audience_time_and_key(
    heading: str, make: Callable[..., dict[str, Any]]
) -> None:
    for changes, word in (
        ({"aud": "https://elsewhere.example"}, "another audience"),
        ({"aud": ["sts.amazonaws.com"]}, "another audience"),
        ({"exp": ManualClock().now() - 31}, "expired"),
        ({"iss": "https://token.actions.githubusercontent.com.evil.example"}, "another issuer"),
    ):
        assert word in await who(heading, make(**changes))
    assert "no key" in await who(heading, make(), IssuerKey.new("RS256", "other"))
    assert "wrong" in await who(heading, make(), IssuerKey.new("RS256"))


@pytest.mark.parametrize(("heading", "make"), KINDS)
@pytest.mark.parametrize("act", [{"sub": "other"}, {}, None, "other", False])
async def test_a_delegation_proves_nobody(
    heading: str, make: Callable[..., dict[str, Any]], act: object
) -> None:
    claims = {**make(), "act": act}
    assert "somebody else acts" in await who(heading, claims)


@pytest.mark.parametrize(("heading", "make"), KINDS)
async def test_who_may_act_is_no_delegation(
    heading: str, make: Callable[..., dict[str, Any]]
) -> None:
    assert "'" not in await who(heading, make(may_act={"sub": "other"}))
    assert await who(heading, make(may_act={"sub": "other"})) != NOBODY
