"""``[[identity.issuers]]``: how tokens are verified, and what they must say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from broker.config import parse_config
from broker.config.problems import UNNAMED
from broker.errors import ConfigError
from broker.identity.models import IssuerSettings
from broker.identity.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = Path("/nowhere/config.toml")
BASE = {"name": "ci", "issuer": "https://ci.example", "audience": "broker"}
REVIEW = {"token_review": "https://k8s.example:6443", "token_file": "token"}
MESSAGE_OF_NONE = "needs exactly one of jwks_url, jwks_file, discovery = true and token_review"


def settings(**entry: object) -> IssuerSettings:
    """An issuer's settings; the files it names needn't be there."""
    document = {
        "broker": {"issuer": "https://broker.example"},
        "redis": {"url": "redis://127.0.0.1"},
        "identity": {"issuers": [{**BASE, **entry}]},
    }
    text = tomli_w.dumps(document)
    return parse_config(text, PATH, files_may_be_missing=True).issuers()[0]


def problem(**entry: object) -> str:
    """The one problem of an entry: key, reason and what to write instead."""
    with pytest.raises(ConfigError) as caught:
        settings(**entry)
    (found,) = problems(caught.value)
    return f"{found['key'].rpartition('.')[2]}: {found['reason']} | {found['suggestion']}"


def problems(error: ConfigError) -> list[dict[str, Any]]:
    found: Any = error.extra["problems"]
    return found


# ── what is read ─────────────────────────────────────────────────────────────────────────────────


def test_an_entry_without_the_new_keys_is_as_before() -> None:
    read = settings(jwks_url="https://ci.example/jwks")
    assert read == IssuerSettings(
        name="ci",
        issuer="https://ci.example",
        audience="broker",
        algorithms=("ES256", "RS256"),
        jwks_url="https://ci.example/jwks",
    )
    assert (read.claims, read.jwks_hosts) == ({}, ())
    assert read.ca_file is read.token_file is read.token_review is None


def test_discovery_with_everything() -> None:
    read = settings(
        discovery=True,
        jwks_hosts=["keys.example", "10.0.0.10:6443", "[::1]:6443"],
        ca_file="ca.pem",
        token_file="/run/token",
        claims={"owner_id": "1", "kubernetes.io/pod/uid": {"match": ".+"}, "ref": ["a", "b"]},
    )
    assert read.jwks_hosts == ("keys.example", "10.0.0.10:6443", "[::1]:6443")
    assert (read.ca_file, read.token_file) == (PATH.parent / "ca.pem", Path("/run/token"))
    assert read.claims == {
        "owner_id": Rule.parse("1"),
        "kubernetes.io/pod/uid": Rule.parse({"match": ".+"}),
        "ref": Rule.parse(["a", "b"]),
    }


def test_token_review() -> None:
    read = settings(**REVIEW, ca_file="ca.pem")
    assert read.token_review == "https://k8s.example:6443"
    assert read.token_file == PATH.parent / "token"


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {**REVIEW, "discovery": True},
        {**REVIEW, "jwks_url": "https://ci.example/jwks"},
        {**REVIEW, "jwks_file": "jwks.json"},
        {"jwks_url": "https://ci.example/jwks", "jwks_file": "jwks.json"},
    ],
)
def test_there_is_exactly_one_way_to_verify_tokens(entry: Mapping[str, object]) -> None:
    assert problem(**entry).startswith(f"discovery: {MESSAGE_OF_NONE}")


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"token_review": "https://k8s.example"}, "token_file: is needed with token_review"),
        ({**REVIEW, "token_review": "http://k8s.example"}, "token_review: uses http"),
        ({**REVIEW, "token_review": "https://a@k8s.example"}, "token_review: must not hold a user"),
        ({**REVIEW, "token_review": "https://k8s.example/"}, "token_review: must not end"),
        (
            {**REVIEW, "token_review": "https://k8s.example?x"},
            "token_review: must not hold",
        ),
        ({**REVIEW, "token_review": True}, "token_review: must be a string"),
        ({**REVIEW, "jwks_hosts": ["a"]}, "jwks_hosts: has no use with token_review"),
        ({"jwks_file": "f", "ca_file": "ca"}, "ca_file: has no use with jwks_file"),
        ({"jwks_file": "f", "token_file": "t"}, "token_file: has no use with jwks_file"),
        ({"jwks_file": "f", "jwks_hosts": ["a"]}, "jwks_hosts: has no use with jwks_file"),
        (
            {"jwks_url": "https://ci.example/j", "jwks_hosts": ["a"]},
            "jwks_hosts: has no use with jwks_url | remove it: it goes with discovery",
        ),
        ({"discovery": True, "jwks_hosts": "a"}, "jwks_hosts: must be an array"),
        ({"discovery": True, "jwks_hosts": [1]}, "jwks_hosts[0]: must be a string"),
        ({"discovery": True, "ca_file": ""}, "ca_file: is empty"),
        ({"discovery": True, "claims": {}}, "claims: names no claim"),
        ({"discovery": True, "claims": "a"}, "claims: names no claim"),
        ({"discovery": True, "claims": {"a": ""}}, "claims: is not a rule"),
        ({"discovery": True, "claims": {"a": 1.5}}, "claims: is not a rule"),
        ({"discovery": True, "claims": {"a": {"match": "("}}}, "claims: is not a rule"),
        ({"discovery": True, "claims": {"a": {"b": "c"}}}, "claims: is not a rule"),
    ],
)
def test_the_problem_and_the_way_out_are_named(entry: Mapping[str, object], found: str) -> None:
    assert problem(**entry).startswith(found)


@pytest.mark.parametrize(
    "host",
    ["", "https://keys.example", "keys.example/", "KEYS.example", "a b", "a:0", "a:x", "*.a", "@a"],
)
def test_a_host_is_a_host(host: str) -> None:
    assert f"jwks_hosts[0]: {host!r} is not a host" in problem(discovery=True, jwks_hosts=[host])


def test_the_suggestion_for_a_missing_token_file_can_be_pasted() -> None:
    found = problem(token_review="https://k8s.example")
    assert 'add token_file = "/var/run/secrets/kubernetes.io/serviceaccount/token"' in found


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text("ab:/", max_size=4) | st.just("https://a.example"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=3,
)
KEYS = ["token_review", "ca_file", "token_file", "jwks_hosts", "claims", "discovery", "jwks_url"]


@given(entry=st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_entry_is_read_or_refused_in_words(entry: dict[str, Any]) -> None:
    try:
        settings(**entry)
    except ConfigError as error:
        for found in problems(error):
            assert found["reason"] not in {"", UNNAMED}, found


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "exactly one"),
        ({"discovery": True, "token_review": "https://k8s.example"}, "exactly one"),
        ({"token_review": "https://k8s.example"}, "token_file"),
    ],
)
def test_settings_made_in_code_are_held_to_the_same(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        IssuerSettings(
            name="ci", issuer="https://a", audience="b", algorithms=("ES256",), **changes
        )
