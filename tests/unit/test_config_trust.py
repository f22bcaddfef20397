"""``[[identity.trust_domains]]``: what an entry becomes, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.config.load import parse_config
from broker.errors import ConfigError
from broker.identity.models import TrustDomainSettings

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config.load import Config

HEAD = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
"""
ENTRY = """
[[identity.trust_domains]]
name = "prod"
trust_domain = "prod.example.com"
bundle_url = "https://bundle.example"
"""
ISSUER = """
[[identity.issuers]]
name = "ci"
issuer = "https://ci.example"
audience = "broker"
jwks_url = "https://ci.example/jwks"
"""


def principal(subject: str, issuer: str = "prod") -> str:
    return f"""
[[principals]]
name = "agent-1"
role = "agent"
owner = "team@example.com"
identity = {{ issuer = "{issuer}", subject = {subject} }}
"""


def load(tmp_path: Path, text: str) -> Config:
    return parse_config(HEAD + text, tmp_path / "config.toml")


def problem(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return caught.value.detail


def test_an_entry_becomes_settings(tmp_path: Path) -> None:
    for name in ("bundle.json", "ca.pem"):
        (tmp_path / name).write_text("x")
    text = """
[[identity.trust_domains]]
name = "a"
trust_domain = "a.example"
bundle_file = "bundle.json"
[[identity.trust_domains]]
name = "b"
trust_domain = "b.example"
audience = "broker"
bundle_url = "https://b.example/bundle?x=1"
ca_file = "ca.pem"
leeway = "5s"
max_lifetime = "2h"
refresh = "1m"
max_stale = "1h"
[[identity.trust_domains]]
name = "c"
trust_domain = "c.example"
workload_api = "unix:///run/spire/agent/public/api.sock"
"""
    assert load(tmp_path, text).trust_domains() == (
        TrustDomainSettings(
            name="a",
            trust_domain="a.example",
            audience="http://127.0.0.1:8700",
            bundle_file=tmp_path / "bundle.json",
        ),
        TrustDomainSettings(
            name="b",
            trust_domain="b.example",
            audience="broker",
            bundle_url="https://b.example/bundle?x=1",
            ca_file=tmp_path / "ca.pem",
            leeway_s=5,
            max_lifetime_s=7200,
            refresh_s=60,
            max_stale_s=3600,
        ),
        TrustDomainSettings(
            name="c",
            trust_domain="c.example",
            audience="http://127.0.0.1:8700",
            workload_api="unix:///run/spire/agent/public/api.sock",
        ),
    )
    assert load(tmp_path, "").trust_domains() == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "prod.example.com",
            "Prod.example.com",
            "trust_domain: 'Prod.example.com' is not the name",
        ),
        ("prod.example.com", "spiffe://prod", "without spiffe://"),
        ("prod.example.com", "", "is not the name of a trust domain"),
        ('trust_domain = "prod.example.com"', "", "trust_domain: is missing"),
        ("https://bundle.example", "http://bundle.example", "uses http"),
        ("https://bundle.example", "https://u:hunter2@b.example", "user name or password"),
        ('bundle_url = "https://bundle.example"', "", "exactly one of bundle_file, bundle_url and"),
        ("bundle_url", 'workload_api = "unix:///x"\nbundle_url', "exactly one of bundle_file"),
        ("bundle_url", "bundle_file", "bundle_file: there is no file"),
        ("bundle_url", "workload_api", "workload_api: 'https://bundle.example' is not the address"),
        ("https://bundle.example", 'x"\nworkload_api = "tcp://1.2.3.4:1', "not the address"),
        ("bundle_url", "bundle", "bundle: unknown key"),
        ('name = "prod"', 'name = "prod"\nleeway = "6m"', 'write "5m" or less'),
        ('name = "prod"', 'name = "prod"\nrefresh = "25h"', "longer than max_stale"),
        ('name = "prod"', 'name = "prod"\naudience = ""', "audience: "),
        ('name = "prod"', 'name = "Prod"', "is not a name"),
    ],
)
def test_entries_that_cannot_be(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in ENTRY
    said = problem(tmp_path, ENTRY.replace(old, new, 1))
    assert expected in said
    assert "hunter2" not in said


def test_a_ca_file_is_for_fetching(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    for way in ('bundle_file = "x"', 'workload_api = "unix:///x"'):
        entry = ENTRY.replace('bundle_url = "https://bundle.example"', f'{way}\nca_file = "x"')
        assert "has a use with bundle_url only" in problem(tmp_path, entry)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (ISSUER.replace('"ci"', '"prod"'), "has the same name"),
        (ENTRY.replace('"prod"', '"other"'), "has the same trust_domain"),
        (ENTRY.replace("prod.example", "other.example"), "has the same name"),
    ],
)
def test_names_and_trust_domains_are_unique(tmp_path: Path, second: str, expected: str) -> None:
    assert expected in problem(tmp_path, ENTRY + second)


@pytest.mark.parametrize(
    "subject",
    [
        '"spiffe://prod.example.com/agent/x"',
        '["spiffe://prod.example.com/a", "spiffe://prod.example.com/b"]',
        '{ match = "spiffe://prod[.]example[.]com/agent/[a-z]+" }',
    ],
)
def test_a_principal_may_be_of_a_trust_domain(tmp_path: Path, subject: str) -> None:
    found = load(tmp_path, ENTRY + principal(subject)).principals[0].identity.rule()
    assert found is not None
    assert found.issuer_name == "prod"


@pytest.mark.parametrize(
    "subject",
    ["agent/x", "spiffe://other.example/x", "spiffe://prod.example.com", "prod.example.com/x"],
)
def test_a_workload_is_called_by_its_whole_id(tmp_path: Path, subject: str) -> None:
    said = problem(tmp_path, ENTRY + principal(f'"{subject}"'))
    assert f"'{subject}' is not a workload of trust domain prod" in said
    assert 'such as "spiffe://prod.example.com/agent' in said


def test_an_unknown_issuer_is_said_to_be_one(tmp_path: Path) -> None:
    said = problem(tmp_path, ENTRY + ISSUER + principal('"x"', "prd"))
    assert "there is no issuer 'prd'" in said
    assert 'did you mean "prod"?' in said
