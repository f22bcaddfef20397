"""The OpenAPI document with what only a test can know: which names exist, and that it is complete.

A client must expect members that a later version adds, so the document leaves answers open. What
comes back today is what is documented, so here they are closed.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, Final

from broker.http.approval_shapes import APPROVAL_ID, ELEVATION_ID
from broker.http.shapes import GRANT_ID, RANDOM, TASK_ID
from tests.http.parties import exchange_form

if TYPE_CHECKING:
    from schemathesis import Case

    from tests.http.served import Served

AGENTS: Final = ["report-writer", "order-clerk"]
CAPABILITIES: Final = ["orders-read", "orders-api"]
DECISION_ID: Final = f"^dec_{RANDOM}$"
NAME: Final = "^[a-z0-9][a-z0-9._-]{0,63}$"

_NULL: Final = {"type": "null"}
_SHORT: Final = {"type": "string", "pattern": "^[1-9][0-9]{0,2}[smh]$"}
_DURATION: Final = {"anyOf": [_SHORT, _NULL]}
_DAY: Final = {"type": "string", "pattern": "^20[5-8][0-9]-0[1-9]-1[0-9]$"}
_AGENT: Final = {"enum": AGENTS}
_CAPABILITY: Final = {"enum": CAPABILITIES}

_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "OpenTask": {
        "agent": _AGENT,
        "capabilities": {"type": "array", "items": _CAPABILITY, "minItems": 1, "maxItems": 50},
        "ttl": _DURATION,
        "heartbeat": _DURATION,
        "parent_task_id": _NULL,
        "on_behalf_of": _NULL,
    },
    "AskLimits": {"parameters": _NULL},
    "RequestGrant": {
        "capability": _CAPABILITY,
        "ttl": _DURATION,
        "parameters": {"enum": [None, {}]},
        "wrap_ttl": _DURATION,
    },
    "RenewGrant": {"ttl": _DURATION},
    "RotateGrant": {"overlap": _DURATION, "ttl": _DURATION, "wrap_ttl": _DURATION},
    "Elevate": {"capability": {"enum": ["deploy"]}, "ttl": _DURATION, "heartbeat": _DURATION},
    "BreakGlass": {"capability": {"enum": ["deploy"]}, "ttl": _DURATION},
    "Selector": {"agent": _AGENT, "capability": _CAPABILITY},
    "Concerned": {"agent": _AGENT},
    "ReportSignal": {"ttl": _DURATION},
    "ReportExecution": {"duration": _DURATION},
    "AddPrincipal": {
        "capabilities": {"type": "array", "items": _CAPABILITY},
        "resource": _NULL,
        "review_by": {"anyOf": [_DAY, _NULL]},
    },
    "Review": {"next": _DAY},
    # Of the others' engines nothing is to be ended, and no ledger here is in quarantine.
    "Reconcile": {"backend": {"enum": ["token"]}, "release": {"enum": [False]}},
}
_PROOF: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "issuer": {"enum": ["dev"]},
        "subject": {"type": "string", "pattern": "^agent/[a-z0-9]{8,12}$"},
    },
    "required": ["issuer", "subject"],
    "additionalProperties": False,
}


def sharpened(document: dict[str, Any]) -> dict[str, Any]:
    """A copy whose answers are closed and whose requests name what there is."""
    sharp = copy.deepcopy(document)
    schemas: dict[str, dict[str, Any]] = sharp["components"]["schemas"]
    for schema in schemas.values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    for name, members in _KNOWN.items():
        properties = schemas[name]["properties"]
        assert set(members) <= set(properties)
        properties.update(members)
    schemas["ProvedBy"] = _PROOF
    for parameter in sharp["paths"]["/v1/policy/who-can"]["get"]["parameters"]:
        if parameter["name"] == "capability":
            parameter["schema"] = _CAPABILITY
    for parameter in sharp["paths"]["/v1/reports/unused-power"]["get"]["parameters"]:
        if parameter["name"] == "since":
            parameter["schema"] = _SHORT
    return sharp


def aim(served: Served, case: Case[Any]) -> None:
    """Put the names of what exists in place of well-formed ones of nothing."""
    ids = case.path_parameters
    if re.match(TASK_ID, str(ids.get("task_id"))):
        ids["task_id"] = served.task()
    if re.match(GRANT_ID, str(ids.get("grant_id"))):
        ids["grant_id"] = served.grant()["grant_id"]
    if re.match(APPROVAL_ID, str(ids.get("approval_id"))):
        waits = case.operation.definition.raw["operationId"] == "show_approval"
        ids["approval_id"] = served.decided() if waits else served.approval()
    if re.match(ELEVATION_ID, str(ids.get("elevation_id"))):
        ids["task_id"], ids["elevation_id"] = served.elevation()
    if re.match(DECISION_ID, str(ids.get("decision_id"))):
        ids["decision_id"] = served.decision()[1]
    if re.match(NAME, str(ids.get("name"))):
        ids["name"] = served.principal()["name"]
    if isinstance(case.body, dict) and case.meta and case.meta.generation.mode.is_positive:
        operation = case.operation.definition.raw["operationId"]
        if operation == "report_execution":
            ids["task_id"], case.body["decision_id"] = served.decision()
        _aim_body(served, operation, case.body)


def _aim_body(served: Served, operation: str, body: dict[str, Any]) -> None:
    match operation:
        case "token" if "subject_token" in body:
            body.clear()
            body.update(exchange_form(served.world, "orchestrator"))
        case "introspect":
            body["token"] = served.grant()["credential"]["access_token"]
        case "revoke":
            body["token"] = served.run(served.world.token("orchestrator"))
        case "thaw" if "grant_id" not in body["selector"]:
            served.call("operator", "POST", "/v1/freezes", body)
        case "clear_signal" if body["selector"].get("agent"):
            served.call("operator", "POST", "/v1/signals", {**body, "risk": 1})
        case "report_signal":
            body |= {"selector": {"agent": "report-writer"}, "risk": 1, "verdict": None}
        case "retire_owner":
            body["owner"] = served.principal()["owner"]
        case "reinstate_owner":
            body["owner"] = served.principal()["owner"]
            ask = {"owner": body["owner"], "reason": "moved on"}
            served.call("operator", "POST", "/v1/owners/retire", ask)
        case _:
            pass
