"""The transports of both clients: httpx2's, with two things more.

TLS files are read again when they change. And there is a limit for a whole answer: httpx2's own are
for each step, and one that comes a byte at a time would go on for ever.
"""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

import httpx2

from broker.client.errors import InvalidRequest
from broker.client.transport import WITHIN
from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from broker.client.tls import Tls

T = TypeVar("T", bound=httpx2.BaseTransport | httpx2.AsyncBaseTransport)
_CLOCK: Final = SystemClock()


class _Renewed(Generic[T]):
    """What speaks TLS by the files as they are now; connections begun before are left to end.

    A token may be bound to the certificate of its connection (RFC 8705), so old and new ones are
    never mixed.
    """

    def __init__(self, tls: Tls, make: Callable[[Tls], T]) -> None:
        self._tls, self._make = tls, make
        self._stamp = tls.stamp()
        self.now = make(tls)
        self._last: T | None = None
        self._lock = threading.Lock()

    def renew(self) -> T | None:
        """Look at the files; return what can be closed: what was in use before the last change."""
        if not self._tls or self._tls.stamp() == self._stamp:
            return None
        with self._lock:
            stamp = self._tls.stamp()
            if stamp == self._stamp:  # another thread has done it
                return None
            # Halfway through a renewal they don't fit together: what was read last goes on then.
            with suppress(InvalidRequest):
                made = self._make(self._tls)
                gone, self._last, self.now, self._stamp = self._last, self.now, made, stamp
                return gone
        return None

    def both(self) -> list[T]:
        return [one for one in (self.now, self._last) if one is not None]


def _blocking(tls: Tls) -> httpx2.BaseTransport:
    return httpx2.HTTPTransport(verify=tls.context() if tls else True, trust_env=False)


def _asynchronous(tls: Tls) -> httpx2.AsyncBaseTransport:
    return httpx2.AsyncHTTPTransport(verify=tls.context() if tls else True, trust_env=False)


class Connections(httpx2.BaseTransport):
    """The blocking client's."""

    def __init__(self, tls: Tls, given: httpx2.BaseTransport | None) -> None:
        """``given`` takes the place of connections of our own, and of ``tls``."""
        self._renewed = _Renewed(tls, _blocking if given is None else lambda _: given)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and begin to read its answer."""
        until = _until(request)
        if (gone := self._renewed.renew()) is not None:
            gone.close()
        with _tls_told():
            response = self._renewed.now.handle_request(request)
        response.stream = _Limited(cast("httpx2.SyncByteStream", response.stream), until)
        return response

    def close(self) -> None:
        """Close the connections."""
        for one in self._renewed.both():
            one.close()


class AsyncConnections(httpx2.AsyncBaseTransport):
    """The asynchronous client's."""

    def __init__(self, tls: Tls, given: httpx2.AsyncBaseTransport | None) -> None:
        """As ``Connections``."""
        self._renewed = _Renewed(tls, _asynchronous if given is None else lambda _: given)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and begin to read its answer."""
        until = _until(request)
        if (gone := self._renewed.renew()) is not None:
            await gone.aclose()
        with _tls_told():
            response = await self._renewed.now.handle_async_request(request)
        response.stream = _AsyncLimited(cast("httpx2.AsyncByteStream", response.stream), until)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        for one in self._renewed.both():
            await one.aclose()


def _until(request: httpx2.Request) -> float | None:
    within: float | None = request.extensions.get(WITHIN)
    return None if within is None else _CLOCK.monotonic() + within


@contextmanager
def _tls_told() -> Generator[None]:
    """Turn an alert into an error of httpx2, which lets it through where it comes while reading.

    By TLS 1.3 a server says only after the handshake that it doesn't want our certificate.
    """
    try:
        yield
    except ssl.SSLError as error:
        raise httpx2.ReadError(f"TLS: {error.reason or 'it failed'}") from error


def _check(until: float | None) -> None:
    if until is not None and _CLOCK.monotonic() >= until:
        raise httpx2.ReadTimeout("the answer took too long")


class _Limited(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, until: float | None) -> None:
        self._stream, self._until = stream, until

    def __iter__(self) -> Iterator[bytes]:
        with _tls_told():
            for part in self._stream:
                yield part
                _check(self._until)

    def close(self) -> None:
        self._stream.close()


class _AsyncLimited(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, until: float | None) -> None:
        self._stream, self._until = stream, until

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _tls_told():
            async for part in self._stream:
                yield part
                _check(self._until)

    async def aclose(self) -> None:
        await self._stream.aclose()
