"""OCSF: every kind of event is what the schema says, by the schema's own text."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs
import ocsf_json_schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.ocsf import VERSION, ocsf_event
from broker.audit.record import cloud_event
from broker.events import Event

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMAS: Final[Any] = ocsf_json_schema  # it has hardly any types
NEWEST: Final = "1.8.0"
GRANT: Final[Mapping[str, Any]] = {"capability": "orders-read", "agent": "report-writer"}
KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "task.opened": {"agent": "report-writer", "owner": "you@example.com", "purpose": "a report"},
    "task.refused": {"agent": "report-writer", "reason": "frozen"},
    "task.ended": {"state": "completed", "reason": "completed"},
    "task.closed": {"time_to_dead_ms": 12},
    "decision": {"effect": "allow", "reasons": [], "action": "issue_grant"},
    "grant.reserved": GRANT,
    "grant.refused": {**GRANT, "reason": "quota"},
    "grant.activated": {**GRANT, "expires_at": 1},
    "grant.failed": {"error": "no"},
    "grant.late": {"lease": "database/creds/x"},
    "grant.revoking": {"from": "active", "reason": "task_completed"},
    "grant.revoked": {"evidence": "gone", "attempts": 0},
    "grant.stuck": {"attempts": 6, "error": "no"},
    "grant.intercepted": {**GRANT, "how": "spent"},
    "grant.renewed": {"capability": "orders-read", "expires_at": 1},
    "token.issued": {"client_id": "report-writer", "scope": "a b", "jti": "jti_1"},
    "token.refused": {"client_id": "report-writer", "mark": "suspended:x"},
    "token.revoked": {},
    "freeze.set": {"selector": "agent:x", "reason": "why"},
    "freeze.cleared": {"selector": "agent:x", "reason": "why"},
    "handle.expect": {"handle": "h", "backend": "vault"},
    "principal.added": {"name": "x", "owner": "o"},
    "principal.suspended": {"name": "x", "reason": "r"},
    "principal.reviewed": {"name": "x"},
    "owner.retired": {"owner": "o@example.com"},
    "key.rotated": {"kid": "k"},
    "revocation": {"id": "rev_1", "selector": "all", "reason": "r"},
    "call.refused": {"tool": "mail.send", "reason": "changed"},
    "execution": {"outcome": "failed", "duration_ms": 3},
    "execution.missing": {"decision": "dec_1"},
    "signal.set": {"selector": "agent:x", "risk": 90},
    "audit.gap": {"shard": 3, "missed": 2, "why": "deleted", "added": 9},
    "audit.malformed": {"fields": 1, "sha256": "0"},
    "something.new": {"whatever": [1, {"a": None}]},
}


@functools.cache
def validator(version: str, class_uid: int) -> jsonschema_rs.Validator:
    schemas = SCHEMAS.OcsfJsonSchemaEmbedded(SCHEMAS.get_ocsf_schema(version))
    name = schemas.lookup_class_name_from_uid(class_uid)
    return jsonschema_rs.validator_for(schemas.get_class_schema(name))


def assert_valid(event: Mapping[str, Any], version: str) -> None:
    found = [
        f"{'/'.join(map(str, error.instance_path))}: {error.message[:200]}"
        for error in validator(version, event["class_uid"]).iter_errors(event)
    ]
    assert found == []


def made(kind: str, data: Mapping[str, Any], **more: str) -> dict[str, Any]:
    event = Event(
        "1800000000123-03-0",
        1_800_000_000_123,
        kind,
        more.get("task", "tsk_1"),
        more.get("grant", "grt_1"),
        more.get("principal", "operator"),
        dict(data),
        chain="tsk_0",
        decision="dec_1",
        trace="00-1-2-01",
    )
    return ocsf_event(cloud_event(event, source="https://broker.example.com"))


@pytest.mark.parametrize("version", [VERSION, NEWEST])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_valid(kind: str, version: str) -> None:
    assert_valid(made(kind, KINDS[kind]), version)
    assert_valid(made(kind, {}, task="", grant="", principal=""), version)


def test_the_validator_refuses_what_is_no_such_event() -> None:
    event = made("task.opened", KINDS["task.opened"])
    changes: list[dict[str, Any]] = [
        {"activity_id": 77},
        {"entity": {}},
        {"unheard_of": 1},
        {"time": "now"},
    ]
    for change in changes:
        with pytest.raises(AssertionError):
            assert_valid({**event, **change}, VERSION)


@pytest.mark.parametrize(
    ("kind", "class_uid", "activity", "status"),
    [
        ("grant.activated", 3003, 1, 1),
        ("grant.refused", 3003, 99, 2),
        ("token.issued", 3003, 1, 1),
        ("task.opened", 3004, 1, 1),
        ("task.closed", 3004, 4, 1),
        ("principal.suspended", 3004, 12, 1),
        ("freeze.set", 3004, 1, 1),
        ("decision", 6003, 2, 1),
        ("execution", 6003, 99, 2),
        ("audit.gap", 6003, 99, 2),
        ("something.new", 6003, 99, 1),
    ],
)
def test_kinds_go_to_their_classes(kind: str, class_uid: int, activity: int, status: int) -> None:
    event = made(kind, KINDS[kind])

    assert (event["class_uid"], event["activity_id"]) == (class_uid, activity)
    assert event["type_uid"] == class_uid * 100 + activity
    assert event["status_id"] == status


def test_a_denial_is_a_failure() -> None:
    assert made("decision", {"effect": "deny"})["status_id"] == 2


def test_what_ocsf_has_no_place_for_is_kept() -> None:
    event = made("grant.activated", KINDS["grant.activated"])

    assert event["time"] == 1_800_000_000_123
    assert event["metadata"]["uid"] == "1800000000123-03-0"
    assert event["metadata"]["correlation_uid"] == "tsk_0"
    assert event["session"] == {"uid": "grt_1"}
    assert event["user"] == {"name": "report-writer"}
    assert event["actor"]["user"] == {"name": "operator"}
    assert event["privileges"] == ["orders-read"]
    unmapped = event["unmapped"]
    assert unmapped["data"] == dict(KINDS["grant.activated"])
    assert (unmapped["decision"], unmapped["traceparent"]) == ("dec_1", "00-1-2-01")


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    data=st.dictionaries(
        st.sampled_from(
            ["name", "owner", "capability", "agent", "scope", "reason", "effect", "jti"]
        )
        | st.text(),
        JSON,
        max_size=5,
    ),
)
def test_whatever_an_event_holds_it_is_valid(kind: str, data: dict[str, Any]) -> None:
    event = made(kind, data)

    assert_valid(event, VERSION)
    json.dumps(event)
