"""What a browser sends back: forms, and whether they are ours."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from broker.errors import AccessDenied, InvalidRequest
from broker.http.problems import invalid_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

CSRF: Final = "csrf"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 50
_WITHIN: Final = re.compile(r"(/[A-Za-z0-9._~:-]+)*/?(\?[A-Za-z0-9._~%=&+:|-]*)?")
_MAX_WAY: Final = 1000
Asked = TypeVar("Asked", bound=BaseModel)


def check_origin(request: Request, origin: str) -> None:
    """Refuse what another site has a browser send.

    Browsers say where a request comes from, and no script can change it: ``Sec-Fetch-Site``, and
    ``Origin`` with every POST (Fetch, sections 3.2 and 3.3). Nothing said is a no.

    Raises:
        AccessDenied: it comes from elsewhere, or nobody knows.
    """
    site, named = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site not in (None, "same-origin") or named not in (None, origin) or (site or named) is None:
        raise AccessDenied(f"This was not sent by a page of the console at {origin}.")


def check_token(form: dict[str, str], expected: str) -> None:
    """Refuse a form without the token of its session.

    Raises:
        AccessDenied: it has none, or another's.
    """
    given = form.get(CSRF, "").encode("utf-8", "replace")
    if not hmac.compare_digest(given, expected.encode()):
        raise AccessDenied("The form is not of this session: open its page again.")


async def read_form(request: Request) -> dict[str, str]:
    """Read a form whose fields are each there once.

    Raises:
        InvalidRequest: it is no such form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise InvalidRequest("Send a form.")
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        raise InvalidRequest("The form is malformed.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise InvalidRequest("A field of the form is there twice.")
    return form


def read_as(model: type[Asked], values: Mapping[str, Any]) -> Asked:
    """Read what a form says as one of the API's requests.

    Raises:
        InvalidRequest: it can't be asked for. The detail names each field that is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False)
        found = [{**item, "loc": ("form", *item["loc"])} for item in items]
        raise invalid_request(found) from None


def way_back(asked: str, base: str) -> str:
    """Return where to go after signing in: a page of the console, whatever was asked for.

    ``base`` is the console's own path. A way out of it, or one that a browser may read as another
    host, leads to the first page.
    """
    inside = asked.removeprefix(base) if asked.startswith(base) else None
    if inside is None or len(asked) > _MAX_WAY or not _WITHIN.fullmatch(inside):
        return f"{base}/"
    if inside and inside[0] not in "/?":
        return f"{base}/"
    return asked if not {".", ".."} & set(inside.partition("?")[0].split("/")) else f"{base}/"
