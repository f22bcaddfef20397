"""Slack's form: what is in the text, what in the blocks, and what nothing in them can do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from broker.notify.news import news_of
from broker.notify.templates import escaped, for_programs, for_slack, title
from tests.audit_bench import SOURCE
from tests.notify_world import APPROVAL, REQUESTED, event

if TYPE_CHECKING:
    from broker.notify.news import News

EVIL = "<!channel> *bold* <https://evil.example|Approve> & `x` @here\nUntil: tomorrow"


def news(**data: Any) -> News:
    found = news_of(event("approval.requested", {**REQUESTED, **data}), issuer=SOURCE)
    assert found is not None
    return found


def texts(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Every text object of the blocks."""
    found: list[dict[str, Any]] = []
    for block in payload["blocks"]:
        found += block.get("fields", [])
        found += [block["text"]] if "text" in block else []
    return found


def test_the_text_alone_says_all_of_it_for_those_who_know_no_blocks() -> None:
    text = for_slack(news())["text"]
    for part in ("Approval wanted", "deployer", "deploy-prod", "`release 7`", APPROVAL):
        assert part in text
    assert f"{SOURCE}/console/approvals/{APPROVAL}" in text


def test_only_our_own_link_is_a_link_and_nobody_is_mentioned() -> None:
    payload = for_slack(news(purpose=EVIL, intent=EVIL, agent=EVIL, requester="<@U1>"))

    links = re.findall(r"<[^>]*>", json.dumps(payload))
    assert links == [f"<{SOURCE}/console/approvals/{APPROVAL}|Open in the console>"]
    assert "<" not in payload["text"]
    assert "evil.example" in payload["text"]
    assert "://evil" not in json.dumps(payload)
    assert not re.search(r"@(here|channel|U1)", json.dumps(payload))
    # What agents wrote can't begin a line of its own.
    assert "\nUntil: tomorrow" not in payload["text"]


def test_what_isnt_ours_is_plain_text() -> None:
    payload = for_slack(news(purpose=EVIL))
    *others, ending = texts(payload)
    assert {text["type"] for text in others} == {"plain_text"}
    assert ending["type"] == "mrkdwn"
    assert "bold" not in ending["text"]


def test_an_ampersand_is_escaped() -> None:
    assert "`a &amp; b &amp;lt;`" in for_slack(news(purpose="a & b &lt;"))["text"]


@given(st.text(min_size=1, max_size=5000), st.lists(st.text(max_size=200), max_size=40))
def test_slack_takes_it_however_long_it_is(text: str, groups: list[str]) -> None:
    payload = for_slack(
        news(purpose=text, intent=text, reason=text, agent=text, capability=text, groups=groups)
    )

    assert len(payload["blocks"]) <= 50
    assert 0 < len(payload["text"]) <= 40_000
    for block in payload["blocks"]:
        assert len(block.get("fields", [])) <= 10
    for found in texts(payload):
        assert 0 < len(found["text"]) <= 3000
    for block in payload["blocks"]:
        for field in block.get("fields", []):
            assert len(field["text"]) <= 2000
    header = payload["blocks"][0]
    assert header["type"] == "header"
    assert len(header["text"]["text"]) <= 150


def test_what_is_late_says_so() -> None:
    late = replace(news(), late_s=7260)
    assert title(late).endswith("(late: 2h1m ago)")
    long = title(replace(late, title="x" * 500))
    assert len(long) == 150
    assert long.endswith("… (late: 2h1m ago)")
    assert for_programs(late, "security")["late"] is True


def test_programs_get_all_of_it_by_name() -> None:
    found = for_programs(news(purpose="<b>&"), "security")
    assert found["type"] == "approval.requested"
    assert found["channel"] == "security"
    assert found["timestamp"] == "2027-01-15T08:00:00.000Z"
    assert found["data"]["purpose"] == "<b>&"
    assert found["data"]["needs"] == {"security": 2, "": 1}
    assert found["data"]["expires_at"] == "2027-01-15T09:00:00.000Z"


def test_slacks_own_syntax_is_escaped_wherever_it_came_from() -> None:
    assert escaped("<!channel> & <@U1>") == "&lt;!channel&gt; &amp; &lt;@U1&gt;"
    payload = for_slack(replace(news(), title="<!channel>", facts=(("Agent", "<@U1>"),)))
    assert payload["text"].startswith("&lt;!channel&gt;\nAgent: &lt;@U1&gt;")
