"""What real platforms say in the tokens they give to workloads.

The shapes are those of each platform's documentation, as of 2026; the values are invented. Keys and
signatures are the tests'.
"""

from __future__ import annotations

import time
from typing import Any

AUDIENCE = "https://broker.example.com"
GITHUB = "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.com"
CLUSTER = "https://kubernetes.default.svc.cluster.local"
GOOGLE = "https://accounts.google.com"
SERVICE_ACCOUNT_UID = "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"
POD_UID = "7d0d5e38-8a35-4dd8-9a41-5f6b7cf0d2a1"

Claims = dict[str, Any]


def github(
    *,
    now: float | None = None,
    owner: str = "octo-org",
    owner_id: str = "65174",
    name: str = "reports",
    repository_id: str = "1296269",
    immutable: bool = True,
    **changes: object,
) -> Claims:
    """The token of a scheduled job on the main branch; a change to None leaves a claim out.

    ``immutable`` gives ``sub`` the form with ids, which repositories have that are new, renamed or
    moved since July 2026.
    """
    start = _start(now)
    repository = f"{owner}/{name}"
    subject = f"{owner}@{owner_id}/{name}@{repository_id}" if immutable else repository
    workflow = f"{repository}/.github/workflows/nightly.yml@refs/heads/main"
    return _changed(
        {
            "jti": "2a3c1a52-7c3f-4c3d-9d39-1d3f0b1e8a11",
            "sub": f"repo:{subject}:ref:refs/heads/main",
            "aud": AUDIENCE,
            "ref": "refs/heads/main",
            "sha": "9f2b6a1c0d4e8f7a6b5c4d3e2f1a0b9c8d7e6f5a",
            "repository": repository,
            "repository_owner": owner,
            "repository_owner_id": owner_id,
            "run_id": "19280000001",
            "run_number": "412",
            "run_attempt": "1",
            "repository_visibility": "private",
            "repository_id": repository_id,
            "actor_id": "583231",
            "actor": "octocat",
            "workflow": "nightly",
            "head_ref": "",
            "base_ref": "",
            "event_name": "schedule",
            "ref_protected": "true",
            "ref_type": "branch",
            "workflow_ref": workflow,
            "workflow_sha": "9f2b6a1c0d4e8f7a6b5c4d3e2f1a0b9c8d7e6f5a",
            "job_workflow_ref": workflow,
            "job_workflow_sha": "9f2b6a1c0d4e8f7a6b5c4d3e2f1a0b9c8d7e6f5a",
            "runner_environment": "github-hosted",
            "check_run_id": "55210000001",
            "iss": GITHUB,
            "nbf": start - 300,
            "iat": start,
            "exp": start + 300,
        },
        changes,
    )


def github_pull_request(**changes: object) -> Claims:
    """The token of a pull request's job: it carries the id of the repository it is sent to."""
    pull = {
        "sub": "repo:octo-org@65174/reports@1296269:pull_request",
        "ref": "refs/pull/7/merge",
        "head_ref": "patch-1",
        "base_ref": "main",
        "event_name": "pull_request",
        "ref_protected": "false",
        "workflow_ref": "octo-org/reports/.github/workflows/nightly.yml@refs/pull/7/merge",
        "job_workflow_ref": "octo-org/reports/.github/workflows/nightly.yml@refs/pull/7/merge",
    }
    return github(**{**pull, **changes})  # pyright: ignore[reportArgumentType]


def gitlab(*, now: float | None = None, **changes: object) -> Claims:
    """The token of a job on a protected branch. Nearly every value is a text, ids too."""
    start = _start(now)
    return _changed(
        {
            "namespace_id": "72",
            "namespace_path": "shop",
            "project_id": "20",
            "project_path": "shop/orders",
            "job_project_id": "20",
            "job_project_path": "shop/orders",
            "job_namespace_id": "72",
            "job_namespace_path": "shop",
            "user_id": "1",
            "user_login": "sample-user",
            "user_email": "sample-user@example.com",
            "user_access_level": "maintainer",
            "pipeline_id": "574",
            "pipeline_source": "push",
            "job_id": "302",
            "ref": "main",
            "ref_type": "branch",
            "ref_path": "refs/heads/main",
            "ref_protected": "true",
            "runner_id": 1,
            "runner_environment": "gitlab-hosted",
            "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "project_visibility": "private",
            "ci_config_ref_uri": "gitlab.com/shop/orders//.gitlab-ci.yml@refs/heads/main",
            "ci_config_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "jti": "ac6d4e1c-6f3e-4d1f-8d53-6c1a0c0c2b90",
            "iat": start,
            "nbf": start - 5,
            "exp": start + 3600,
            "iss": GITLAB,
            "sub": "project_path:shop/orders:ref_type:branch:ref:main",
            "aud": AUDIENCE,
        },
        changes,
    )


def kubernetes(
    *,
    now: float | None = None,
    namespace: str = "agents",
    account: str = "report-builder",
    account_uid: str = SERVICE_ACCOUNT_UID,
    pod_uid: str | None = POD_UID,
    **changes: object,
) -> Claims:
    """A projected service account's token; without ``pod_uid`` it is bound to no pod."""
    start = _start(now)
    pod = {
        "node": {"name": "node-1", "uid": "52c81fbd-d2e9-4c7a-b45f-89df2615076b"},
        "pod": {"name": f"{account}-6f7d9", "uid": pod_uid},
    }
    return _changed(
        {
            "aud": ["broker"],
            "exp": start + 600,
            "iat": start,
            "iss": CLUSTER,
            "jti": "0bd6c0f5-3c6b-4a4e-8fb0-7b6d2c1d2c55",
            "kubernetes.io": {
                "namespace": namespace,
                **({} if pod_uid is None else pod),
                "serviceaccount": {"name": account, "uid": account_uid},
            },
            "nbf": start,
            "sub": f"system:serviceaccount:{namespace}:{account}",
        },
        changes,
    )


def person(*, now: float | None = None, **changes: object) -> Claims:
    """An ID token of a person."""
    start = _start(now)
    client = "4711-broker.apps.googleusercontent.com"
    return _changed(
        {
            "iss": GOOGLE,
            "azp": client,
            "aud": client,
            "sub": "110248495921238986420",
            "hd": "example.com",
            "email": "alice@example.com",
            "email_verified": True,
            "at_hash": "6n8ZqJx1nQ2m0rTz5wY3aA",
            "iat": start,
            "exp": start + 3600,
        },
        changes,
    )


def _start(now: float | None) -> int:
    return int(time.time() if now is None else now)


def _changed(claims: Claims, changes: dict[str, object]) -> Claims:
    return {name: v for name, v in {**claims, **changes}.items() if v is not None}
