"""``docs/delegation.md``: its request and policy are such, and the command asks for the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from broker.cli.limits import TaskLimits
from broker.delegation import OUTSIDE
from broker.policy.cedar import CedarPolicies, Schema, Source
from broker.policy.folder import default_sources
from broker.refusals import LIMITED
from broker.wire import OpenTask

TEXT = (Path(__file__).parents[2] / "docs/delegation.md").read_text("utf-8")


def request() -> dict[str, Any]:
    found = re.search(r"(?s)POST /v1/tasks\n(.*?)```", TEXT)
    assert found is not None
    return json.loads(found[1])


def test_the_request_is_one_and_the_command_asks_for_the_same() -> None:
    asked = OpenTask.model_validate(request())
    options = {
        name.replace("-", "_"): tuple(re.findall(rf"--{name} (\S+)", TEXT))
        for name in ("data-class", "effect", "parameter", "delegate-to", "budget")
    }
    assert asked.limits is not None
    assert TaskLimits(**options).document() == request()["limits"]


def test_the_policy_keeps_what_it_says() -> None:
    (text,) = re.findall(r"(?ms)^```cedar\n(.*?)^```", TEXT)
    policies = CedarPolicies([*default_sources(), Source("page", text)], Schema())
    (fact,) = [fact for fact in policies.facts.values() if fact.source == "page"]
    assert fact.obligations.as_json() == {"keep_budget": True}


def test_every_reason_is_told_of() -> None:
    assert {*OUTSIDE, "budget_exhausted"} == set(LIMITED)
    for reason in (*LIMITED, "more_than_parent", "delegate_not_named"):
        assert f"`{reason}`" in TEXT, reason
