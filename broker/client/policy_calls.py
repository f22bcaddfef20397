"""The calls about policies and quotas; see ``calls.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.client.building import one, page, path_to
from broker.client.messages import get, send_json
from broker.client.models import Quota
from broker.client.policy import ExplainedDecision, Policies, ReloadedPolicies, WhoCan

if TYPE_CHECKING:
    from broker.client.messages import Call, PageCall


def get_policies() -> Call[Policies]:
    """Read the policies in force, and those that are only tried out."""
    return one(Policies, get("/v1/policy"))


def reload_policies() -> Call[ReloadedPolicies]:
    """Load the policies now, all or none. Grants that they don't allow any more are revoked."""
    return one(ReloadedPolicies, send_json("POST", "/v1/policy/reload", {}, repeatable=True))


def who_can(capability: str) -> Call[WhoCan]:
    """Read which agents could have a capability, or call a tool, in a plain task."""
    return one(WhoCan, get("/v1/policy/who-can", {"capability": capability}))


def explain_decision(decision_id: str) -> Call[ExplainedDecision]:
    """Read why a decision is what it is, and what would change it by the policies of now."""
    return one(ExplainedDecision, get(path_to("/v1/decisions", decision_id)))


def list_quotas(*, cursor: str | None = None, limit: int | None = None) -> PageCall[Quota]:
    """Read one page of the limits of live credentials and their rate, and what is used of them."""
    return page(Quota, "/v1/quotas", {"cursor": cursor, "limit": limit})
