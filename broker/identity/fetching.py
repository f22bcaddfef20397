"""HTTP to the addresses the configuration names, and to no others.

Whoever answers there may be hostile, or an attacker in its place: an answer is bounded in size and
in time, a redirect is not followed, and no proxy, netrc or CA of the environment has a say.
"""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import httpx2

from broker.errors import ConfigError
from broker.secret import Secret

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
FETCH_TIMEOUT_S: Final = 5.0
MAX_AT_ONCE: Final = 16
"""Requests of one fetcher under way: what callers send in must not become a flood elsewhere."""

_JSON: Final = "application/json"
_NONE: Final[Mapping[str, str]] = {}

MAX_TOKEN_BYTES: Final = 64 * 1024
_BEARER_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1


class FetchError(Exception):
    """What was asked for could not be had; the message holds no secret, nor what was answered."""


class Fetcher:
    """Asks servers over http or https, believing one CA file, or what the system trusts.

    Each request has a connection of its own: they are rare, and so none outlives the CA file or
    the server that it was made for.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        token_file: Path | None = None,
        timeout_s: float = FETCH_TIMEOUT_S,
    ) -> None:
        """``ca_file`` and ``token_file`` are read again when they change, as they rotate.

        ``timeout_s`` bounds a request as a whole, waiting for its turn included.

        Raises:
            ConfigError: ``ca_file`` is no file of CA certificates.
        """
        self._ca_file = ca_file
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._seen: tuple[int, ...] | None = None
        self._trust: ssl.SSLContext | None = None
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        if ca_file is not None:
            try:
                self._current_trust()
            except FetchError as error:
                raise ConfigError(f"{error}: name a file of CA certificates in PEM") from error

    async def get(self, url: str, *, with_token: bool = False) -> bytes:
        """Get a bounded document in bounded time, from that URL and no other.

        ``with_token`` presents the token of ``token_file``, if there is one: only to servers the
        configuration means it for.

        Raises:
            FetchError: it could not be had.
        """
        return await self._request("GET", url, None, (HTTPStatus.OK,), with_token=with_token)

    async def post(self, url: str, document: object) -> bytes:
        """Post a JSON document, with the token of ``token_file``, and return the answer.

        Raises:
            FetchError: there was no answer, or not one of 200 or 201.
        """
        accepted = (HTTPStatus.OK, HTTPStatus.CREATED)
        return await self._request("POST", url, document, accepted, with_token=True)

    async def ask(self, url: str, document: object, headers: Mapping[str, str]) -> bytes:
        """Post a JSON document as ``post`` does, with more headers, and return a JSON answer.

        Raises:
            FetchError: there was no answer, or not one of 200 that says it is JSON.
        """
        accepted = (HTTPStatus.OK,)
        return await self._request(
            "POST", url, document, accepted, with_token=True, headers=headers, only=_JSON
        )

    async def submit(self, url: str, form: str, headers: Mapping[str, str]) -> bytes:
        """Post a form that is written already, with more headers, and return a JSON answer.

        Raises:
            FetchError: there was no answer, or not one of 200 that says it is JSON.
        """
        headers = {**headers, "content-type": "application/x-www-form-urlencoded"}
        accepted = (HTTPStatus.OK,)
        return await self._request(
            "POST", url, form, accepted, with_token=False, headers=headers, only=_JSON
        )

    async def _request(
        self,
        method: str,
        url: str,
        document: object,
        accepted: tuple[HTTPStatus, ...],
        *,
        with_token: bool,
        headers: Mapping[str, str] = _NONE,
        only: str = "",
    ) -> bytes:
        """Make one request; the URL's protection has been checked by ``is_protected``."""
        asked = f"{method} {url}"
        try:
            # The client's own time-outs are per read: a server that drips would never meet them.
            async with asyncio.timeout(self._timeout_s), self._slots:
                trust, token = await asyncio.to_thread(self._prepare, with_token=with_token)
                proof = {"authorization": f"Bearer {token.reveal()}"} if token else {}
                body: dict[str, Any] = {} if document is None else {"json": document}
                if isinstance(document, str):
                    body = {"content": document}
                async with (
                    _client(trust) as http,
                    http.stream(method, url, headers={**headers, **proof}, **body) as response,
                ):
                    status = response.status_code
                    if status not in accepted:
                        moved = ": redirects aren't followed" if response.is_redirect else ""
                        raise FetchError(f"{asked} answered {status}{moved}")
                    kind = response.headers.get("content-type", "").partition(";")[0]
                    if only and kind.strip().lower() != only:
                        raise FetchError(f"{asked} answered something that isn't {only}")
                    return await _bounded(response, asked)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
            raise FetchError(f"{asked} failed: {type(error).__name__}") from error

    def _prepare(self, *, with_token: bool) -> tuple[ssl.SSLContext, Secret | None]:
        """Read what is on disk; off the event loop."""
        file = self._token_file if with_token else None
        return self._current_trust(), None if file is None else _read_token(file)

    def _current_trust(self) -> ssl.SSLContext:
        if self._ca_file is None:
            return _system_trust()
        try:
            seen = fingerprint(self._ca_file.stat())
            if self._trust is None or seen != self._seen:
                # Nothing else is trusted then: with a CA of its own, who is meant is known.
                trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                trust.minimum_version = ssl.TLSVersion.TLSv1_2
                trust.load_verify_locations(self._ca_file)
                self._trust, self._seen = trust, seen
        except OSError as error:  # ssl.SSLError is one
            raise FetchError(f"ca_file {self._ca_file} can't be used") from error
        return self._trust


@functools.cache
def _system_trust() -> ssl.SSLContext:
    """Read the CAs the system trusts: once, since there are many."""
    return httpx2.create_ssl_context(trust_env=False)


def is_protected(address: str, *, loopback_http: bool) -> bool:
    """Say whether what comes from a URL can't have been changed on the way.

    Parsed by the library that fetches, so that both mean the same host.
    """
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL:
        return False
    if not url.host or url.userinfo:
        return False
    return url.scheme == "https" or (
        loopback_http and url.scheme == "http" and _is_loopback(url.host)
    )


def authority(address: str) -> str:
    """Return the host and port of a URL that is protected; no port if it is the scheme's own."""
    return httpx2.URL(address).netloc.decode("ascii")


def fingerprint(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a changed or replaced file from the one seen before."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _client(trust: ssl.SSLContext) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        verify=trust,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(FETCH_TIMEOUT_S),
        headers={"accept": "application/json", "accept-encoding": "identity"},
    )


async def _bounded(response: httpx2.Response, asked: str) -> bytes:
    content = bytearray()
    # Raw: a compressed body, which wasn't asked for, may unfold into one without end.
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_DOCUMENT_BYTES:
            raise FetchError(f"{asked} answered more than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(content)


def _read_token(file: Path) -> Secret:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TOKEN_BYTES)
    except OSError as error:
        raise FetchError(f"token_file {file} can't be read: {error.strerror}") from error
    token = content.decode("ascii", "replace").strip()
    # A header that can't be sent would be repeated in the library's own error.
    if not _BEARER_TOKEN.fullmatch(token):
        raise FetchError(f"token_file {file} holds no bearer token")
    return Secret(token)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
