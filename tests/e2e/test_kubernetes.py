"""Service account tokens of Kubernetes: a real OpenBao, and a double of the cluster behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.admin import Admin
from tests.http.consenting import give_rights
from tests.http.test_canary import read_all
from tests.kubernetes_api import ENGINE, LEAST_S, KubernetesApi
from tests.loopback import Loopback, private_tls
from tests.vault_mounts import with_capabilities
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

NAMESPACE: Final = {"kubernetes_namespace": "jobs"}
CAPABILITIES: Final[list[dict[str, Any]]] = [
    {"name": "shared-account", "path": "kubernetes/creds/shared"},
    {"name": "own-account", "path": "kubernetes/creds/own", "revocability": "instant"},
    {"name": "own-role", "path": "kubernetes/creds/ruled", "revocability": "instant"},
    {"name": "fixed", "path": "kubernetes/creds/shared", "parameters": NAMESPACE},
]
RULES: Final = '{"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}'
IMPATIENT: Final = {"backoff": "10ms", "max_backoff": "20ms"}


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[tuple[KubernetesApi, Loopback, str]]:
    """A cluster with one account, where it is, and who vouches for it."""
    api = KubernetesApi()
    api.objects.add(("serviceaccounts", "jobs", "shared"))
    tls, ca_file = private_tls(tmp_path)
    with Loopback(api, tls) as server:
        yield api, server, ca_file.read_text("utf-8")


@pytest.fixture
async def world(
    engines: tuple[DevStack, Config], cluster: tuple[KubernetesApi, Loopback, str]
) -> AsyncGenerator[World]:
    stack = engines[0]
    config = with_capabilities(stack, CAPABILITIES, revocation=IMPATIENT)
    await give_rights(stack, config)
    admin, (_, server, ca) = Admin(stack), cluster
    await admin.vault("POST", "sys/mounts/kubernetes", {"type": "kubernetes"})
    where = {"kubernetes_host": server.url, "kubernetes_ca_cert": ca, "service_account_jwt": ENGINE}
    await admin.vault("POST", "kubernetes/config", {**where, "disable_local_ca_jwt": True})
    roles: dict[str, dict[str, Any]] = {
        "shared": {"service_account_name": "shared"},
        "own": {"kubernetes_role_name": "pod-reader"},
        "ruled": {"generated_role_rules": RULES},
    }
    for name, role in roles.items():
        body = {"allowed_kubernetes_namespaces": ["jobs"], **role}
        await admin.vault("POST", f"kubernetes/roles/{name}", body)
    made = World(stack.issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()
    await admin.vault("DELETE", "sys/mounts/kubernetes")


@pytest.fixture
def kubernetes(cluster: tuple[KubernetesApi, Loopback, str]) -> KubernetesApi:
    return cluster[0]


def bearer(granted: dict[str, Any]) -> str:
    return granted["credential"]["service_account_token"]


async def test_a_token_of_an_account_that_stays_is_revoking_until_its_own_end(
    world: World, kubernetes: KubernetesApi
) -> None:
    task = await world.open(capabilities=["shared-account"])
    granted = await world.grant(task, "shared-account", parameters=NAMESPACE, ttl="12m")
    token = bearer(granted)

    assert granted["credential"] == {
        "type": "kubernetes",
        "service_account_name": "shared",
        "service_account_namespace": "jobs",
        "service_account_token": token,
    }
    assert kubernetes.works(token)
    [asked_s] = kubernetes.asked_s
    assert 715 <= asked_s <= 720
    assert (await world.complete(task))["grants"] == {"revoked": 0, "revoking": 1, "abandoned": 0}
    shown = await world.show_grant(granted["grant_id"])
    assert kubernetes.works(token), "that is what the record says"
    assert (shown["state"], shown["ended_at"]) == ("revoking", None)
    assert shown["next_attempt_at"] >= shown["ends_by_itself_at"] >= shown["expires_at"]


async def test_an_account_made_for_a_grant_goes_with_it_and_its_token_works_no_more(
    world: World, kubernetes: KubernetesApi
) -> None:
    task = await world.open(capabilities=["own-account"])
    granted = await world.grant(task, "own-account", parameters=NAMESPACE, ttl="1m")
    name, token = granted["credential"]["service_account_name"], bearer(granted)
    other = await world.grant(task, "own-account", parameters=NAMESPACE)

    assert kubernetes.asked_s == [LEAST_S, LEAST_S], "the cluster gives nothing shorter"
    assert {("serviceaccounts", "jobs", name), ("rolebindings", "jobs", name)} < kubernetes.objects
    [row] = [
        grant
        for grant in await world.app.pipeline.queries.grants_of(task["task_id"])
        if grant.id == granted["grant_id"]
    ]
    assert row.account == name
    await world.call("operator", "DELETE", f"/v1/grants/{row.id}")
    assert (await world.show_grant(row.id))["state"] == "revoked"
    assert kubernetes.deleted == ["rolebindings", "serviceaccounts"]
    assert not kubernetes.works(token)
    assert kubernetes.works(bearer(other))
    assert (await world.complete(task))["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert kubernetes.objects == {("serviceaccounts", "jobs", "shared")}


async def test_a_cluster_that_fails_half_way_is_asked_again_until_the_account_is_gone(
    world: World, kubernetes: KubernetesApi
) -> None:
    task = await world.open(capabilities=["own-account"])
    granted = await world.grant(task, "own-account", parameters=NAMESPACE)

    kubernetes.failing = {"serviceaccounts"}
    assert (await world.complete(task))["grants"] == {"revoked": 0, "revoking": 1, "abandoned": 0}
    assert kubernetes.deleted == ["rolebindings"]
    assert kubernetes.works(bearer(granted))
    shown = await world.show_grant(granted["grant_id"])
    assert shown["state"] == "revoking"
    assert shown["error"]
    kubernetes.failing.clear()

    async def dead() -> bool:
        await world.sweep()
        return (await world.show_grant(granted["grant_id"]))["state"] == "revoked"

    await wait_until(dead, "the grant is confirmed dead")
    assert kubernetes.deleted == ["rolebindings", "serviceaccounts"]
    assert not kubernetes.works(bearer(granted))


WRONG: Final[list[tuple[str, dict[str, str], str]]] = [
    ("shared-account", {}, "kubernetes_namespace"),
    ("shared-account", {"kubernetes_namespace": "Jobs"}, "kubernetes_namespace"),
    ("shared-account", {"kubernetes_namespace": "a/../b"}, "kubernetes_namespace"),
    ("shared-account", {**NAMESPACE, "ttl": "100h"}, "ttl"),
    ("shared-account", {**NAMESPACE, "cluster_role_binding": "true"}, "cluster_role_binding"),
    ("fixed", NAMESPACE, "kubernetes_namespace"),
]


async def test_what_it_cannot_be_asked_for_reaches_neither_ledger_nor_vault(
    world: World, kubernetes: KubernetesApi
) -> None:
    task = await world.open(capabilities=["shared-account", "fixed"])
    path = f"/v1/tasks/{task['task_id']}/grants"

    for capability, parameters, field in WRONG:
        ask = {"capability": capability, "parameters": parameters}
        answer = await world.call("orchestrator", "POST", path, ask)
        refused = answer.json()
        assert (answer.status_code, refused["code"]) == (400, "invalid_request"), parameters
        assert refused["field"] == f"parameters.{field}", parameters

    assert await world.app.pipeline.queries.grants_of(task["task_id"], dead=True) == []
    assert kubernetes.asked_s == []


async def test_a_namespace_is_fixed_by_the_capability_or_bounded_by_the_role(
    world: World, kubernetes: KubernetesApi
) -> None:
    task = await world.open(capabilities=["shared-account", "fixed"])
    granted = await world.grant(task, "fixed")
    assert granted["credential"]["service_account_namespace"] == "jobs"

    path = f"/v1/tasks/{task['task_id']}/grants"
    ask = {"capability": "shared-account", "parameters": {"kubernetes_namespace": "kube-system"}}
    answer = await world.call("orchestrator", "POST", path, ask)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert len(kubernetes.asked_s) == 1, "OpenBao's role doesn't allow it"


async def test_what_was_made_with_a_role_of_its_own_is_gone_and_its_token_in_no_other_place(
    world: World, kubernetes: KubernetesApi, capfd: pytest.CaptureFixture[str]
) -> None:
    task = await world.open(capabilities=["own-role"])
    granted = await world.grant(task, "own-role", parameters=NAMESPACE)
    assert kubernetes.works(bearer(granted))
    assert (await world.complete(task))["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert kubernetes.objects == {("serviceaccounts", "jobs", "shared")}
    assert sorted(kubernetes.deleted) == ["rolebindings", "roles", "serviceaccounts"]

    rows = await read_all(world.app.connection.client)
    printed = capfd.readouterr()
    shown = [await world.show_grant(granted["grant_id"]), await world.events(task["task_id"])]
    text = b"".join(row for _, row in rows).decode() + printed.out + printed.err + repr(shown)
    assert granted["credential"]["service_account_name"] in text, "what isn't secret is found"
    assert bearer(granted).rpartition(".")[2] not in text
