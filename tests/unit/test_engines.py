"""What the table of secrets engines says, and which parameters it lets through."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.catalog import Capability, Power, Revocability
from broker.client.credential import Credential
from broker.engines import ENGINES, GENERIC, NAMES, engine_of, mount_of
from broker.secret import REDACTED
from tests import certificates

CSR = certificates.csr(certificates.new_key(), "a.b")
KEY = certificates.ssh_line(ed25519.Ed25519PrivateKey.generate())


def capability(path: str, **fields: Any) -> Capability:
    return Capability("x", Power.READ, "vault", 1, 1, path=path, **fields)


@pytest.mark.parametrize(
    ("path", "named", "engine", "leased", "revocability"),
    [
        ("database/creds/orders", "", "database", True, "instant"),
        ("team/db/creds/orders", "database", "database", True, "instant"),
        ("rabbitmq/creds/queue", "", "rabbitmq", True, "instant"),
        ("pki/issue/agents", "", "pki", True, "instant"),
        ("pki/issuer/next/sign/agents", "", "pki", True, "instant"),
        ("ssh/sign/agents", "", "ssh", False, "ttl_only"),
        ("kubernetes/creds/jobs", "", "kubernetes", True, "ttl_only"),
        ("kv/data/team/key", "", "kv", False, "never"),
        ("secret/data/key", "kv", "kv", False, "never"),
        ("aws/creds/deploy", "", "aws", True, "instant"),
        ("aws/sts/deploy", "", "aws", True, "ttl_only"),
        ("gcp/roleset/reader/token", "", "gcp", False, "ttl_only"),
        ("gcp/static-account/reader/key", "", "gcp", True, "instant"),
        ("azure/creds/reader", "", "azure", True, "instant"),
        ("ldap/creds/reader", "", "ldap", True, "instant"),
        ("ldap/creds/team/reader", "", "ldap", True, "instant"),
        ("something/else", "", "", True, "instant"),
    ],
)
def test_a_path_has_its_row(
    path: str, named: str, engine: str, leased: bool, revocability: str
) -> None:
    row = engine_of(path, named)

    assert row is not None
    assert (row.name, row.leased, row.revocability) == (engine, leased, Revocability(revocability))


@pytest.mark.parametrize(
    ("path", "named", "mount"),
    [
        ("pki/sign/a", "", "pki"),
        ("pki/issuer/sign/sign/a", "", "pki"),
        ("team/issue/issue/a", "pki", "team/issue"),
        ("ssh/sign/a", "", "ssh"),
        ("kv/team/data/data/x", "kv", "kv/team"),
    ],
)
def test_a_mount_is_what_stands_before_a_kinds_path(path: str, named: str, mount: str) -> None:
    row = engine_of(path, named)

    assert row is not None
    assert mount_of(path, row) == mount


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("database/config/orders", ""),
        ("pki/root/generate", ""),
        ("pki/issue/a/b", ""),
        ("kv/report", ""),
        ("kv/metadata/report", ""),
        ("x/creds/y", "pki"),
        ("database", ""),
    ],
)
def test_an_engine_gives_nothing_at_other_paths(path: str, named: str) -> None:
    assert engine_of(path, named) is None


SECRETS = frozenset(
    {
        *("password", "private_key", "secret_key", "token", "service_account_token"),
        *("client_secret", "private_key_data", "security_token", "session_token"),
    }
)


def test_no_row_calls_a_secret_public() -> None:
    for engine in (*ENGINES, GENERIC):
        assert not engine.public & SECRETS
        assert engine.required <= engine.parameters.keys()


@pytest.mark.parametrize(
    ("path", "asked", "wrong"),
    [
        ("pki/issue/a", {"common_name": "web.example.com"}, []),
        ("pki/issue/a", {"common_name": "a.b", "alt_names": ["c.d", "*.e.f"]}, []),
        ("pki/issue/a", {}, ["common_name"]),
        ("pki/issue/a", {"common_name": "a.b", "alt_names": "c.d,e.f"}, ["alt_names"]),
        ("pki/issue/a", {"common_name": "a.b", "alt_names": []}, ["alt_names"]),
        ("pki/issue/a", {"common_name": "a.b", "uri_sans": ["spiffe://a/b", "spiffe://a/c-d"]}, []),
        (
            "pki/issue/a",
            {"common_name": "a.b", "uri_sans": "spiffe://a/b,spiffe://c"},
            ["uri_sans"],
        ),
        ("pki/issue/a", {"common_name": ["a.b"]}, ["common_name"]),
        ("pki/issue/a", {"common_name": "a.b\n"}, ["common_name"]),
        ("pki/issue/a", {"common_name": "a.b", "ttl": "100h"}, ["ttl"]),
        ("pki/issue/a", {"common_name": "a.b", "csr": CSR}, ["csr"]),
        ("pki/sign/a", {"common_name": "a.b", "csr": CSR}, []),
        ("pki/sign/a", {"common_name": "a.b"}, ["csr"]),
        ("pki/sign/a", {"common_name": "a.b", "csr": "-----BEGIN"}, ["csr"]),
        ("pki/sign/a", {"common_name": "a.b", "csr": 5}, ["csr"]),
        ("ssh/sign/a", {"public_key": KEY}, []),
        ("ssh/sign/a", {"public_key": "ssh-ed25519 AAAA\nssh-rsa AAAA"}, ["public_key"]),
        ("ssh/sign/a", {"valid_principals": "x"}, ["public_key"]),
        ("kubernetes/creds/a", {"kubernetes_namespace": "jobs"}, []),
        (
            "kubernetes/creds/a",
            {"kubernetes_namespace": "../kube-system"},
            ["kubernetes_namespace"],
        ),
        ("aws/sts/a", {"role_arn": "arn:aws:iam::123456789012:role/x"}, []),
        ("aws/sts/a", {"role_arn": "arn:aws:iam::1:user/x"}, ["role_arn"]),
        ("database/creds/a", {"username": "root"}, ["username"]),
        ("something/else", {"x": "y"}, ["x"]),
    ],
)
def test_parameters_are_looked_at_before_vault_is_asked(
    path: str, asked: dict[str, Any], wrong: list[str]
) -> None:
    engine = engine_of(path)
    assert engine is not None

    assert [name for name, _ in engine.faults(capability(path), asked)] == wrong


def test_what_the_capability_sets_nobody_can_ask_to_be_another() -> None:
    engine = engine_of("kubernetes/creds/a")
    assert engine is not None
    fixed = capability("kubernetes/creds/a", parameters={"kubernetes_namespace": "jobs"})

    assert engine.faults(fixed, {}) == []
    assert [name for name, _ in engine.faults(fixed, {"kubernetes_namespace": "jobs"})] == [
        "kubernetes_namespace"
    ]
    assert engine.body(fixed, {}, 900) == {"kubernetes_namespace": "jobs", "ttl": "900s"}


@pytest.mark.parametrize("name", NAMES)
def test_the_client_hides_all_of_a_type_but_what_its_rows_call_public(name: str) -> None:
    rows = [engine for engine in ENGINES if engine.name == name]
    public = frozenset[str]().union(*(engine.public for engine in rows))
    others = frozenset[str]().union(*(engine.public for engine in ENGINES)) | SECRETS
    document = dict.fromkeys(others, "canary") | {"type": name}

    shown = Credential(document).redacted()

    assert {member for member, value in shown.items() if value != REDACTED} == public | {"type"}


@pytest.mark.parametrize(
    ("path", "ttl_s", "sent"),
    [
        ("kubernetes/creds/a", 60, "600s"),
        ("kubernetes/creds/a", 601, "601s"),
        ("aws/sts/a", 60, "900s"),
        ("pki/issue/a", 60, "60s"),
        ("aws/creds/a", 60, None),
    ],
)
def test_a_target_is_asked_for_no_shorter_time_than_it_gives(
    path: str, ttl_s: int, sent: str | None
) -> None:
    engine = engine_of(path)
    assert engine is not None

    assert engine.body(capability(path), {}, ttl_s).get("ttl") == sent


@pytest.mark.parametrize(
    ("path", "claimed", "doubted"),
    [
        ("aws/sts/a", "instant", True),
        ("aws/sts/a", "ttl_only", False),
        ("aws/sts/a", "never", False),
        ("kv/data/a", "ttl_only", True),
        ("kv/data/a", "never", False),
        ("database/creds/a", "instant", False),
        ("something/else", "instant", False),
    ],
)
def test_a_claim_is_doubted_that_is_better_than_the_row(
    path: str, claimed: str, doubted: bool
) -> None:
    engine = engine_of(path)
    assert engine is not None

    assert bool(engine.doubt(Revocability(claimed))) is doubted
