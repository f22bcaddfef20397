"""*Policy*: what is in force, why something was decided, and what would be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Query
from starlette.responses import Response

from broker.console.forms import read_as
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.errors import InvalidRequest, RequestError
from broker.http.problems import status_of
from broker.identity.models import Role
from broker.policing import Policing
from broker.wire_previews import DryRun

if TYPE_CHECKING:
    from broker.catalog import Catalog
    from broker.dry_runs import DryRuns

pages = Pages()
_OBJECTS: Final = ("parameters", "arguments")
_FIELDS: Final = ("capability", "task_id", "agent", "ttl", *_OBJECTS, "destination", "effects")
_MOST: Final = 4096
_OF_TASKS: Final = ("ttl", *_OBJECTS, "destination", "effects", "intent")


@pages.get("/policy", Right.READ)
async def policy(visit: Here) -> Response:
    """Show the policies in force, and those that are tried out."""
    policing: Policing = visit.console.oversight.policing
    return visit.page(
        "policy.html",
        title="Policy",
        found=await policing.show(visit.caller),
        texts=await policing.texts(visit.caller),
        capabilities=_names(visit)["capabilities"],
    )


@pages.get("/policy/who-can", Right.READ)
async def who_can(visit: Here, capability: Annotated[str, Query(max_length=64)] = "") -> Response:
    """Say which agents could have a capability, in a plain task."""
    policing = visit.console.oversight.policing
    found = await policing.who_can(visit.caller, capability) if capability else None
    names = _names(visit)
    return visit.page(
        "who_can.html",
        title="Who can",
        found=found,
        agents=names["agents"],
        capabilities=names["capabilities"],
    )


@pages.get("/policy/decisions", Right.AUDIT)
async def decision(
    visit: Here, decision_id: Annotated[str, Query(alias="id", max_length=64)] = ""
) -> Response:
    """Say why something was decided, and what would change it by now."""
    asked = decision_id.strip()
    policing = visit.console.oversight.policing
    found = await policing.explain(visit.caller, asked) if asked else None
    return visit.page("decision.html", title="A decision", found=found, asked=asked)


@pages.get("/policy/dry-run", Right.READ)
async def ask(
    visit: Here,
    capability: Annotated[str, Query(max_length=64)] = "",
    agent: Annotated[str, Query(max_length=64)] = "",
    task: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Show the form of a dry run."""
    said = {"capability": capability, "agent": agent, "task_id": task}
    return _page(visit, said)


@pages.post("/policy/dry-run", Right.READ)
async def dry_run(visit: Here) -> Response:
    """Say what would be decided; nothing is issued, asked for or logged."""
    said = {name: visit.field(name, _MOST) for name in (*_FIELDS, "intent")}
    runs: DryRuns = visit.console.parts.dry_runs
    try:
        found = await runs.run(visit.caller, _request(said))
    except RequestError as error:
        return _page(visit, said, problem=error.detail or error.title, status=status_of(error))
    return _page(visit, said, found=found)


def _page(
    visit: Here,
    said: dict[str, str],
    *,
    found: dict[str, Any] | None = None,
    problem: str = "",
    status: int = 200,
) -> Response:
    empty = dict.fromkeys((*_FIELDS, "intent"), "")
    return visit.page(
        "dry_run.html",
        title="Dry run",
        status=status,
        said={**empty, **said},
        found=found,
        problem=problem,
        **_names(visit),
    )


def _names(visit: Here) -> dict[str, list[str]]:
    catalog: Catalog = visit.console.broker.pipeline.catalog
    agents = (p.name for p in catalog.principals.values() if p.role is Role.AGENT)
    return {"capabilities": sorted(catalog.capabilities), "agents": sorted(agents)}


def _request(said: dict[str, str]) -> DryRun:
    """Read the form's fields, all of them texts.

    Raises:
        InvalidRequest: they make no request.
    """
    if bool(said["task_id"]) == bool(said["agent"]):
        raise InvalidRequest("Name a task or an agent, and not both.")
    if said["agent"] and (given := [name for name in _OF_TASKS if said[name]]):
        raise InvalidRequest(f"{', '.join(given)}: what is asked for in particular needs a task.")
    values: dict[str, Any] = {name: value for name, value in said.items() if value}
    for name in _OBJECTS:
        if name in values:
            values[name] = _object(name, values[name])
    if "effects" in values:
        values["effects"] = values["effects"].replace(",", " ").split()
    return read_as(DryRun, values)


def _object(field: str, text: str) -> Any:  # noqa: ANN401  the model says whether it will do
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest(f'{field}: write a JSON object, such as {{"id": 7}}') from None
