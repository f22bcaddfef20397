"""What the core and the two transports say to each other: no I/O in here.

The core is a generator that yields a ``Request`` and is sent back a ``Response``; a transport that
got none throws ``ConnectionFailed`` into it. So retries and the token exchange are written once,
for blocking and asynchronous callers alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import urlencode

from broker.client.errors import UnexpectedAnswer

if TYPE_CHECKING:
    from broker.client.session import Session
    from broker.secret import Secret

T = TypeVar("T")
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``path`` starts with a slash and is below the broker's URL.

    ``repeatable`` says that sending it twice does no more than sending it once, so it is sent
    again when the answer was lost. ``own_key`` is that its idempotency key was made up here, and
    that an answer with the key is given once: after a refusal another key is as good.
    ``delay`` is how long the transport waits before sending, ``patience`` how much longer than
    usual the answer may take, and ``within`` how long sending and answer may take in all, None for
    as long as they go on: all in seconds.
    ``work`` is done here, in place of sending anything, and may take its time.
    Headers and content may hold tokens, so they stay out of the representation.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    content: bytes = field(default=b"", repr=False)
    repeatable: bool = False
    own_key: bool = False
    delay: float = 0.0
    patience: float = 0.0
    within: float | None = None
    work: Callable[[], Response] | None = field(default=None, repr=False)

    def with_headers(self, **headers: str) -> Request:
        """Return the same request with these headers too; underscores become dashes."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **more})


def get(path: str, query: Mapping[str, object] | None = None) -> Request:
    """Make a GET; members of ``query`` that are None are left out."""
    return Request("GET", _with_query(path, query or {}), repeatable=True)


def send_json(
    method: str, path: str, document: Mapping[str, Any], *, repeatable: bool = False
) -> Request:
    """Make a request with a JSON body; members that are None are left out."""
    body = {name: value for name, value in document.items() if value is not None}
    content = json.dumps(body, separators=(",", ":")).encode()
    return Request(method, path, {"content-type": "application/json"}, content, repeatable)


def send_form(path: str, form: Mapping[str, str], *, repeatable: bool = False) -> Request:
    """Make a POST with a form, as the OAuth endpoints take it."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return Request("POST", path, headers, urlencode(form).encode(), repeatable)


def ask_here(work: Callable[[], Secret]) -> Request:
    """Make a request that is answered on this machine, or by somebody who isn't the broker."""
    return Request(
        "", "", repeatable=True, work=lambda: Response(200, {}, work().reveal().encode())
    )


def _with_query(path: str, query: Mapping[str, object]) -> str:
    pairs = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(pairs, errors='replace')}" if pairs else path


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer; header names are in lower case. The body may hold a credential."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    content: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        """Whether the broker did what was asked."""
        return self.status in range(200, 300)

    @property
    def retry_after(self) -> int | None:
        """Seconds to wait before trying again, if the broker said so as a number."""
        text = self.headers.get("retry-after", "").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004  30 years

    def json(self) -> Any:  # noqa: ANN401  whatever JSON came
        """Return the body, or ``{}`` if there is none.

        Raises:
            UnexpectedAnswer: the body isn't JSON.
        """
        if not self.content:
            return {}
        try:
            return json.loads(self.content)
        except ValueError:
            # `from None`: the decoder's error carries the whole body, which may hold a secret.
            raise UnexpectedAnswer(
                f"HTTP {self.status} whose body isn't JSON: is this the broker's address?",
                status=self.status,
            ) from None

    def mapping(self) -> dict[str, Any]:
        """Return the body if it is a JSON object, and ``{}`` if it is anything else."""
        try:
            document = self.json()
        except UnexpectedAnswer:
            return {}
        return cast("dict[str, Any]", document) if isinstance(document, dict) else {}


Flow = Generator[Request, Response, T]
"""A conversation that ends with a ``T``. See the module's text."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of the API: what to send, and how to read the answer."""

    request: Request
    read: Callable[[Response], T]


@dataclass(frozen=True, slots=True)
class Conversation(Generic[T]):
    """Calls that follow from each other and end with a ``T``."""

    hold: Callable[[Session], Flow[T]]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. ``next`` is the cursor of the following part, None at the end."""

    items: tuple[T, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class PageCall(Call[Page[T]]):
    """A call for one page of a list; ``turn`` makes the call for another page of it."""

    path: str = ""
    query: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    cursor_name: str = "cursor"

    def turn(self, cursor: str) -> PageCall[T]:
        """Return the call for the page that ``cursor`` names.

        Raises:
            UnexpectedAnswer: it is the page just read, so this would never end.
        """
        if self.query.get(self.cursor_name) == cursor:
            raise UnexpectedAnswer("The broker gave the same cursor twice: the list has no end")
        query = {**self.query, self.cursor_name: cursor}
        return replace(self, request=get(self.path, query), query=query)
