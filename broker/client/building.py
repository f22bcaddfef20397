"""How calls are put together, and their arguments checked before anything is sent."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast, overload
from urllib.parse import quote

from broker.client.answers import from_response
from broker.client.decoding import decode
from broker.client.errors import InvalidRequest, UnexpectedAnswer
from broker.client.messages import Call, Page, PageCall, Request, Response, get
from broker.durations import format_duration, parse_duration
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import DataclassInstance

    M = TypeVar("M", bound=DataclassInstance)

Duration = str | timedelta
_MAX_KEY: Final = 255


def one(model: type[M], request: Request) -> Call[M]:
    """Make a call that answers with one thing."""
    return Call(request, lambda response: decode(model, response.json()))


def issued(model: type[M], request: Request) -> Call[M]:
    """Make a call that answers with one thing, or that a human has to approve first."""
    return Call(request, partial(_read_issued, model))


def _read_issued(model: type[M], response: Response) -> M:
    if response.status == 202:  # noqa: PLR2004  Accepted: approval is needed
        raise from_response(response)
    return decode(model, response.json())


def page(
    model: type[M], path: str, query: Mapping[str, object], *, cursor_name: str = "cursor"
) -> PageCall[M]:
    """Make a call that answers with a page of a list."""
    read = partial(_read_page, model)
    return PageCall(get(path, query), read, path=path, query=query, cursor_name=cursor_name)


def _read_page(model: type[M], response: Response) -> Page[M]:
    document = response.mapping()
    items, cursor = document.get("items"), document.get("next")
    if not isinstance(items, list) or not isinstance(cursor, str | None):
        raise UnexpectedAnswer("The broker's answer isn't a list with a cursor")
    return Page(tuple(decode(model, item) for item in cast("list[object]", items)), cursor or None)


@overload
def plain(value: Secret | str) -> str: ...
@overload
def plain(value: Secret | str | None) -> str | None: ...
def plain(value: Secret | str | None) -> str | None:
    """Return the text itself, to send it."""
    return value.reveal() if isinstance(value, Secret) else value


def keyed(request: Request, key: str | None, *, once: bool = False) -> Request:
    """Add the key by which the broker knows a request that is sent again.

    ``once`` says that it doesn't give the same answer twice, as for a credential.
    """
    if key is not None and not (key.isascii() and key.isprintable() and 0 < len(key) <= _MAX_KEY):
        raise InvalidRequest(f"An idempotency key is 1 to {_MAX_KEY} printable ASCII characters")
    request = replace(request, own_key=once and key is None)
    return request.with_headers(idempotency_key=key or new_key())


def new_key() -> str:
    """Make up an idempotency key."""
    return str(uuid.uuid4())


@overload
def duration(value: Duration) -> str: ...
@overload
def duration(value: Duration | None) -> str | None: ...
def duration(value: Duration | None) -> str | None:
    """Return a duration as the broker takes it."""
    if value is None:
        return None
    try:
        if isinstance(value, timedelta):
            value = format_duration(value // timedelta(milliseconds=1))
        parse_duration(value)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    return value


def seconds(value: Duration) -> float:
    """Return a duration in seconds."""
    return parse_duration(duration(value)) / 1000


def selected(selector: Mapping[str, str | bool]) -> dict[str, str | bool]:
    """Return a selector that says something, and one thing only."""
    if len(selector) != 1 or not all(selector.values()):
        raise InvalidRequest("A selector has exactly one member, and it isn't empty")
    return dict(selector)


def path_to(collection: str, identifier: str, *rest: str) -> str:
    """Return the path of one thing of a collection, or of something below it."""
    # Dots and slashes in an id would lead to another path.
    if not identifier or identifier in {".", ".."}:
        raise InvalidRequest(f"{identifier!r} is not an id")
    return "/".join((collection, quote(identifier, safe="", errors="replace"), *rest))
