"""The chart, rendered by Helm itself, against Kubernetes' schemas and what a cluster insists on."""

from __future__ import annotations

import importlib
import os
import tomllib
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from broker.config import parse_config
from tests.deploy.alerting import DEPLOY, SPECS

CHART: Final = DEPLOY / "helm/broker"
OLDEST, NEWEST = "1.27.0", "1.37.0"
FULL: Final[dict[str, Any]] = {
    "image": {"digest": f"sha256:{'a' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "secretName": "broker-secrets",
    "policies": {"own.cedar": "forbid (principal, action, resource) when { context.risk > 90 };\n"},
    "serviceAccount": {"annotations": {"example.com/team": "security"}},
    "service": {"annotations": {"example.com/lb": "internal"}},
    "state": {"storageClassName": "shared"},
    "autoscaling": {"enabled": True},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"team": "agents"}}}]},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "podAnnotations": {"example.com/scrape": "true"},
}
LEAST: Final[dict[str, Any]] = {
    "replicas": 1,
    "state": {"accessModes": ["ReadWriteOnce"]},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
}
CASES: Final = {"default": {}, "full": FULL, "least": LEAST}
Objects = dict[tuple[str, str], dict[str, Any]]


def the_helm() -> Any:
    """Helm's own code, where there is a wheel of it."""
    try:
        return importlib.import_module("helm_python")
    except ImportError:
        assert not os.environ.get("CI")
        pytest.skip("there is no Helm for this machine")


def render(values: dict[str, Any], name: str = "live") -> Objects:
    """What Helm makes of the chart, by kind and name."""
    helm = the_helm()
    with helm.Chart.load(str(CHART)) as chart:
        made = chart.render(values, name=name, namespace="agents")
    texts = [text for file, text in made.items() if file.endswith(".yaml")]
    documents = [d for text in texts for d in yaml.safe_load_all(text) if d is not None]
    found = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    assert len(found) == len(documents)
    return found


def pod(objects: Objects) -> dict[str, Any]:
    return objects["Deployment", "live"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("case", CASES)
def test_what_it_renders_is_by_kubernetes_schemas(case: str, version: str) -> None:
    objects = render(CASES[case])
    for made in objects.values():
        kubernetes_validate.validate(made, version, strict=True)


def test_a_wrong_object_would_be_noticed() -> None:
    made = render({})["Deployment", "live"]
    made["spec"]["replicaz"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(made, NEWEST, strict=True)


def test_helm_finds_nothing_to_say() -> None:
    helm = the_helm()
    found = helm.lint(str(CHART))
    assert found["total_charts_linted"] == 1
    assert not found["errors"]
    assert [m["error"] for m in found["messages"]] == ["icon is recommended"]


def test_all_that_there_is_to_render_is_rendered() -> None:
    kinds = {kind for kind, _ in render(FULL)}
    assert kinds == {
        *("ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "Deployment", "Service"),
        *("PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"),
    }


@pytest.mark.parametrize("case", CASES)
def test_a_pod_is_what_the_restricted_standard_wants(case: str) -> None:
    """Pod Security Standards, "restricted", and nothing to write but its own folders."""
    spec = pod(render(CASES[case]))
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    allowed = {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim"}
    assert {kind for v in spec["volumes"] for kind in v.keys() - {"name"}} <= allowed
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/var/lib/broker", "/tmp"}  # noqa: S108  a folder of the pod's own
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    assert container["resources"]["limits"]["memory"]


def test_its_token_is_for_vault_alone_and_short() -> None:
    (volume,) = [v for v in pod(render({}))["volumes"] if v["name"] == "identity"]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "vault"
    assert source["serviceAccountToken"]["expirationSeconds"] <= 3600
    assert render({})["ServiceAccount", "live"]["automountServiceAccountToken"] is False


def test_no_secret_is_in_its_values_or_what_it_renders() -> None:
    assert "Secret" not in {kind for kind, _ in render(FULL)}
    (container,) = pod(render(FULL))["containers"]
    assert "env" not in container
    (volume,) = [v for v in pod(render(FULL))["volumes"] if v["name"] == "secrets"]
    assert volume["secret"] == {"secretName": "broker-secrets", "defaultMode": 0o440}


def test_the_configuration_in_it_is_one() -> None:
    """With the files where the chart puts them."""
    for case in CASES.values():
        objects = render(case)
        text = objects["ConfigMap", "live"]["data"]["config.toml"]
        document = tomllib.loads(text)
        mounts = [m["mountPath"] for m in pod(render(FULL))["containers"][0]["volumeMounts"]]
        for file in (document["redis"]["password_file"], document["vault"]["jwt_file"]):
            assert any(file.startswith(f"{mount}/") for mount in mounts)
        assert parse_config(text, CHART / "config.toml", files_may_be_missing=True)


def test_replicas_follow_a_backlog_that_the_broker_shows() -> None:
    objects = render(FULL)
    assert "replicas" not in objects["Deployment", "live"]["spec"]
    scaler = objects["HorizontalPodAutoscaler", "live"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "live"
    named = {m[m["type"].lower()]["metric"]["name"] for m in scaler["metrics"]}
    assert named == {"broker_due_items", "broker_work_in_flight"}
    assert named <= set(SPECS)


def test_selectors_meet_their_pods_and_no_other_releases() -> None:
    objects, other = render(FULL), render(FULL, name="other")
    labels = objects["Deployment", "live"]["spec"]["template"]["metadata"]["labels"]
    for found in (
        objects["Deployment", "live"]["spec"]["selector"]["matchLabels"],
        objects["Service", "live"]["spec"]["selector"],
        objects["PodDisruptionBudget", "live"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy", "live"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert found.items() <= labels.items()
        others = other["Deployment", "other"]["spec"]["template"]["metadata"]["labels"]
        assert not found.items() <= others.items()


def test_another_configuration_starts_other_pods() -> None:
    def sum_of(values: dict[str, Any]) -> str:
        template = render(values)["Deployment", "live"]["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"]

    changed = {"config": "[broker]\n"}
    assert sum_of({}) == sum_of(FULL)
    assert sum_of({}) != sum_of(changed)


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 3},
        {"replicas": 0},
        {"image": {"digest": "latest"}},
        {"config": ""},
        {"policies": {"../x": "permit"}},
        {"redisPassword": "hunter2"},
        {"state": {"accessModes": ["ReadWriteOnce"]}},
        {"serviceAccount": {"expirationSeconds": 60}},
    ],
    ids=lambda values: next(iter(values)),
)
def test_values_that_cant_be_meant_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(the_helm().HelmError):
        render(values)
