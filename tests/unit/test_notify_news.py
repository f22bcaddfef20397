"""What an event is to people: which there are, what they say, and that nothing else is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.notify.news import FORMS, Kind, Severity, news_of
from broker.notify.templates import body, for_programs, for_slack, title
from tests.audit_bench import BEGIN_MS, SOURCE
from tests.notify_world import APPROVAL, ELEVATION, GLASS, REQUESTED, TASK, event

CANARY = "hvs.canary-CAESIJ9x"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ELSEWHERE = (
    *("request", "arguments", "parameters", "credential", "password", "token"),
    *("question", "digest", "dsn", "lease_id", "destination", "context"),
)
MEMBERS = (*REQUESTED, *GLASS, "reason", "findings", "error", "path", "attempts", "channels")


def every_form(kind: str, data: dict[str, Any]) -> str:
    news = news_of(event(kind, data), issuer=SOURCE)
    assert news is not None
    return json.dumps(
        [for_programs(news, "c"), for_slack(news), title(news), body(news)], ensure_ascii=False
    )


def test_a_request_says_who_wants_what_for_what_until_when_and_what_to_do() -> None:
    news = news_of(event("approval.requested", REQUESTED), issuer=SOURCE)

    assert news is not None
    assert (news.kind, news.severity) == (Kind.APPROVAL, Severity.WARNING)
    assert title(news) == "Approval wanted: deployer → deploy-prod (privileged)"
    assert body(news).split("\n") == [
        "Agent: deployer",
        "Action: issue_grant",
        "Capability: deploy-prod",
        "Power: privileged",
        "Asked by: ci",
        "Needs: 2 of security, 1 of any",
        "Groups: security",
        "Until: 2027-01-15T09:00:00.000Z",
        f"Approval: {APPROVAL}",
        f"Task: {TASK}",
        "Purpose: \u201crelease 7\u201d",
        "Intent: \u201cdeploy build 7\u201d",
        f"broker approval approve {APPROVAL} --reason …",
        f"broker approval deny {APPROVAL} --reason …",
        f"{SOURCE}/console/approvals/{APPROVAL}",
    ]
    assert news.over_at == BEGIN_MS + 3_600_000
    assert news.groups == {"security"}


@pytest.mark.parametrize(
    ("kind", "data", "said", "link"),
    [
        ("approval.escalated", {**REQUESTED, "groups": ["leads"]},
         "Still no answer, now up to leads: deployer → deploy-prod (privileged)",
         f"approvals/{APPROVAL}"),
        ("approval.approved", {"approval": APPROVAL}, f"Approved: {APPROVAL}",
         f"approvals/{APPROVAL}"),
        ("approval.denied", {**REQUESTED, "reason": "not on a Friday"},
         "Denied: deployer → deploy-prod (privileged)", f"approvals/{APPROVAL}"),
        ("approval.expired", REQUESTED,
         "Approval expired: deployer → deploy-prod (privileged)", f"approvals/{APPROVAL}"),
        ("glass.broken", GLASS, "Glass broken, without approval: deployer → deploy-prod",
         f"reviews/{ELEVATION}"),
        ("review.opened", {"elevation": ELEVATION, "by": "incident-bot"},
         "Review wanted: incident-bot", f"reviews/{ELEVATION}"),
        ("review.closed", {"elevation": ELEVATION, "by": "alice", "findings": "fine"},
         "Review closed: alice", f"reviews/{ELEVATION}"),
        ("rotation.failed", {"elevation": ELEVATION, "path": "kv/deploy", "error": "refused"},
         f"Not rotated after break-glass: {ELEVATION}", f"reviews/{ELEVATION}"),
        ("grant.stuck", {"attempts": 6, "error": "backend_unavailable"},
         f"Can't be revoked: {TASK}", f"tasks/{TASK}"),
        ("grant.intercepted", {"agent": "ci", "capability": "orders-read", "power": "read"},
         "Credential intercepted on its way: ci → orders-read (read)", f"tasks/{TASK}"),
        ("decision", {"effect": "allow", "action": "call_tool", "tool": "mail.send"},
         "Allowed: ci → mail.send", f"tasks/{TASK}"),
    ],
)  # fmt: skip
def test_each_type_has_its_title_and_its_place_in_the_console(
    kind: str, data: dict[str, Any], said: str, link: str
) -> None:
    news = news_of(event(kind, data), issuer=SOURCE)

    assert news is not None
    assert title(news) == said
    assert news.link == f"{SOURCE}/console/{link}"


@pytest.mark.parametrize("kind", ["task.opened", "approval.voted", "approval.used", "x", ""])
def test_other_events_are_no_news(kind: str) -> None:
    assert news_of(event(kind, REQUESTED), issuer=SOURCE) is None


def test_a_decision_that_needs_approval_is_told_by_the_request_for_it() -> None:
    data = {"effect": "needs_approval", "obligations": {"notify": ["security"]}}
    assert news_of(event("decision", data), issuer=SOURCE) is None


def test_who_a_policy_tells_is_in_its_decision() -> None:
    data = {"effect": "allow", "obligations": {"notify": ["security", "watch"]}}
    news = news_of(event("decision", data), issuer=SOURCE)
    assert news is not None
    assert news.channels == {"security", "watch"}


@pytest.mark.parametrize("kind", FORMS)
def test_nothing_but_what_is_listed_gets_into_a_message(kind: str) -> None:
    extra = dict.fromkeys(ELSEWHERE, CANARY)
    nested = {"request": {"arguments": {"password": CANARY}}, "obligations": {"x": CANARY}}
    assert CANARY not in every_form(kind, {**REQUESTED, **GLASS, **extra, **nested})


@pytest.mark.parametrize("kind", FORMS)
def test_without_details_nothing_that_callers_wrote_is_told(kind: str) -> None:
    said = dict.fromkeys(("purpose", "intent", "reason", "findings"), "written by a caller")
    news = news_of(event(kind, {**REQUESTED, **said, "error": "written by"}), issuer=SOURCE)
    assert news is not None
    bare = news.bare()
    text = json.dumps([for_programs(bare, "c"), for_slack(bare), body(bare)])
    assert "written by" not in text
    assert "written by" in every_form(kind, {**REQUESTED, **said})


@given(
    st.sampled_from(sorted(FORMS)),
    st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=5), JSON, max_size=12),
)
def test_whatever_an_event_holds_there_is_a_message_of_it(kind: str, data: dict[str, Any]) -> None:
    found = {"type": f"broker.{kind}", "id": "1-00-0", "data": data}
    news = news_of(found, issuer=SOURCE)
    if news is None:
        assert data["effect"] == "needs_approval"
        return
    for line in (title(news), *body(news).split("\n")):
        assert line.isprintable() or "\u3164" in line
        assert line.encode()
    assert news.link.startswith(f"{SOURCE}/console")
    assert json.loads(json.dumps(for_programs(news, "c")))["type"] == kind


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_an_event_without_data_is_news_all_the_same(data: Any) -> None:
    news = news_of({"type": "broker.glass.broken", "data": data}, issuer=SOURCE)
    assert news is not None
    assert title(news) == "Glass broken, without approval: \u201c?\u201d"


@pytest.mark.parametrize("hostile", ["apr_x/../..", "apr_1?next=//evil", "javascript:1", "apr_é"])
def test_what_is_no_id_stands_in_no_link_and_no_command(hostile: str) -> None:
    news = news_of(event("approval.requested", {"approval": hostile}), issuer=SOURCE)
    assert news is not None
    assert news.link == f"{SOURCE}/console/tasks/{TASK}"
    assert news.todo[0] == "broker approval approve ID --reason …"


def test_what_an_operator_gave_up_is_told_and_a_static_secrets_end_is_not() -> None:
    about = {"agent": "clerk", "capability": "orders", "statement": "jo: scrapped"}
    told = news_of({**event("grant.abandoned", about), "principal": "jo"}, issuer=SOURCE)

    assert told is not None
    assert (told.kind, told.severity) == (Kind.STUCK, Severity.WARNING)
    assert title(told) == "Given up, may still be alive: clerk → orders"
    assert ("Statement", "jo: scrapped") in told.said
    by_itself = {**event("grant.abandoned", about), "principal": "broker"}
    assert news_of(by_itself, issuer=SOURCE) is None
