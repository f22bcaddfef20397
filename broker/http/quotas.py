"""``/v1/quotas``: the limits there are and what is used of them, for operators and auditors."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from broker.http.callers import By, The
from broker.http.openapi import answers
from broker.http.shapes import Answer, Count, Words

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)
_MARK: Final = r"[a-z_]{1,64}\|[a-z0-9][a-z0-9._-]{0,63}"
_LIMIT: Final = "^(max_live|issue_rate)_per_(agent|orchestrator|capability|backend)$"


class Quota(Answer):
    """A limit of what it is named after: live grants, or with a `window` how many in each.

    Of a rate, `used` is what is not there again yet.
    """

    limit: Annotated[str, Field(pattern=_LIMIT)]
    name: Words
    most: Annotated[int, Field(ge=1)]
    window: Words | None
    used: Count


class QuotaPage(Answer):
    """A page of limits, by kind and name; ``next`` is the cursor of the one after it."""

    items: list[Quota]
    next: Annotated[str, Field(pattern=f"^{_MARK}$")] | None


@router.get("/quotas", responses=answers(200, QuotaPage, 400, 403))
async def list_quotas(
    broker: The,
    caller: By,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str, Query(pattern=f"^({_MARK})?$")] = "",
) -> dict[str, Any]:
    """List the limits that are configured, each with what is used of it now."""
    return await broker.pipeline.quotas.standing(caller, limit=limit, cursor=cursor)
