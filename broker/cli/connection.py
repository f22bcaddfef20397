"""The options that every client command has, and the client they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Group, Parameter

from broker.cli.refusals import UsageError
from broker.durations import parse_duration

if TYPE_CHECKING:
    from broker.client import AsyncClient, Client, Page

T = TypeVar("T")
_PAGE_SIZE: Final = 100


@Parameter(name="*", group=Group("Connection", sort_key=30))
@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where the broker is, who asks, and how the answer is printed."""

    server: Annotated[
        str | None,
        Parameter(
            env_var="BROKER_URL",
            help="The broker's URL, http://127.0.0.1:8700 unless set.",
            metavar="URL",
        ),
    ] = None
    token_file: Annotated[
        str | None,
        Parameter(
            env_var="BROKER_IDENTITY_TOKEN_FILE",
            help="A file with your workload JWT; without it other sources are looked for.",
            metavar="FILE",
        ),
    ] = None
    ca_file: Annotated[
        str | None,
        Parameter(
            env_var="BROKER_CA_FILE",
            help="Trust the authorities in this file, and not the system's.",
            metavar="FILE",
        ),
    ] = None
    client_cert: Annotated[
        str | None,
        Parameter(
            env_var="BROKER_CLIENT_CERT",
            help="Show this certificate (mutual TLS).",
            metavar="FILE",
        ),
    ] = None
    client_key: Annotated[
        str | None,
        Parameter(
            env_var="BROKER_CLIENT_KEY",
            help="The certificate's key, if it is in another file.",
            metavar="FILE",
        ),
    ] = None
    dpop: Annotated[
        bool,
        Parameter(
            env_var="BROKER_DPOP",
            negative="",
            show_default=False,
            help="Bind the access token to a key that is made for this one command (DPoP).",
        ),
    ] = False
    dpop_key: Annotated[
        str | None,
        Parameter(
            env_var="BROKER_DPOP_KEY",
            help="Bind it to the P-256 key in this file.",
            metavar="FILE",
        ),
    ] = None
    as_task: Annotated[
        str | None,
        Parameter(
            env_var="BROKER_TASK_ID",
            help="Act under this task; an agent must, and does under the TASK it names.",
            metavar="TASK",
        ),
    ] = None
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON document.")
    ] = False

    @property
    def where(self) -> str:
        """The broker's URL, to show it."""
        from broker.client.environment import DEFAULT_URL

        return self.server or DEFAULT_URL

    def client(self) -> Client:
        """Make the client; nothing is sent yet."""
        return self._client(self.as_task)

    def sealed_client(self) -> AsyncClient:
        """Make a client that sees no credential."""
        from broker.client import AsyncClient, token_file

        identity = token_file(self.token_file) if self.token_file else None
        return AsyncClient(self.server, identity, task_id=self.as_task, sealed=True)

    def ask(self, about: str | None, call: Callable[[Client], T]) -> T:
        """Ask the broker something about a task; an agent acts under that task unless told.

        Only the broker knows who is an agent: whoever has to name a task is refused before
        anything is done, and asks again.
        """
        from broker.client import Denied

        try:
            with self.client() as broker:
                return call(broker)
        except Denied as error:
            if error.code != "invalid_authorization_details" or self.as_task or not about:
                raise
        with self._client(about) as broker:
            return call(broker)

    def _client(self, task_id: str | None) -> Client:
        from broker.client import Client, Tls, token_file

        identity = token_file(self.token_file) if self.token_file else None
        return Client(
            self.server,
            identity,
            task_id=task_id,
            tls=Tls(self.ca_file, self.client_cert, self.client_key),
            dpop=self.dpop_key or self.dpop,
        )


DEFAULT: Final = Connection()


@Parameter(name="*", group=Group("Paging", sort_key=20))
@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """How much of a list is read."""

    limit: Annotated[int, Parameter(help="Show at most this many.", metavar="N")] = 50
    cursor: Annotated[
        str | None, Parameter(help="Go on from a list's `next`.", metavar="CURSOR")
    ] = None

    def collect(self, fetch: Callable[[str | None, int], Page[T]]) -> Page[T]:
        """Read pages with ``fetch(cursor, size)`` until there are enough, or no more."""
        if self.limit < 1:
            raise UsageError("--limit must be at least 1")
        items: list[T] = []
        cursor = self.cursor
        while True:
            page = fetch(cursor, min(self.limit - len(items), _PAGE_SIZE))
            items += page.items
            if page.next is None or len(items) >= self.limit or page.next == cursor:
                return type(page)(tuple(items), page.next)
            cursor = page.next


FIRST: Final = Paging()


def duration(_type: object, text: str) -> None:
    """Check a duration on the command line, before anything is sent."""
    if text:
        parse_duration(text)
