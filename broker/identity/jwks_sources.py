"""Where an issuer's keys come from: a file, a URL, or OpenID Connect discovery."""

from __future__ import annotations

import asyncio
import json
import os
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import httpx2

from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.identity.models import IssuerSettings

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
FETCH_TIMEOUT_S: Final = 5.0


class KeySourceError(Exception):
    """The keys could not be had; nothing is known about them."""


class KeySource(Protocol):
    """Yields an issuer's JWK Set as it is now."""

    def changed(self) -> bool:
        """Say, cheaply, whether the source is known to hold something new."""
        ...

    async def fetch(self) -> bytes:
        """Return the JWK Set document.

        Raises:
            KeySourceError: it could not be had.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


def key_source(settings: IssuerSettings) -> KeySource:
    """Build the source an issuer's settings name.

    Raises:
        ConfigError: keys would travel unprotected.
    """
    if settings.jwks_file is not None:
        return FileSource(settings.jwks_file)
    address, name = (
        (settings.issuer, "issuer")
        if settings.jwks_url is None
        else (settings.jwks_url, "jwks_url")
    )
    if not _is_protected(address, loopback_http=True):
        raise ConfigError(
            f"identity issuer {settings.name!r}: {name} must be an https URL without user"
            " information (http only to a loopback address)"
        )
    if settings.jwks_url is None:
        return DiscoverySource(settings.issuer)
    return UrlSource(settings.jwks_url)


class FileSource:
    """A JWK Set in a local file, read again when the file is changed or replaced."""

    def __init__(self, path: Path) -> None:
        """``path`` needn't exist yet."""
        self._path = path
        self._seen: tuple[int, ...] | None = None

    def changed(self) -> bool:
        """Compare the file's identity, size and time with those last read."""
        try:
            return _fingerprint(self._path.stat()) != self._seen
        except OSError:
            return True

    async def fetch(self) -> bytes:
        """Read the file, off the event loop."""
        try:
            return await asyncio.to_thread(self._read)
        except OSError as error:
            raise KeySourceError(f"{self._path} can't be read: {error.strerror}") from error

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            # Before the content: a write in between shows as another change, and isn't lost.
            seen = _fingerprint(os.fstat(file.fileno()))
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        self._seen = seen
        if len(content) > MAX_DOCUMENT_BYTES:
            raise KeySourceError(f"{self._path} is larger than {MAX_DOCUMENT_BYTES} bytes")
        return content


class UrlSource:
    """A JWK Set at a fixed URL."""

    def __init__(self, url: str) -> None:
        """``url`` has been checked."""
        self._url = url
        self._http = _http_client()

    def changed(self) -> bool:
        """A server doesn't tell."""
        return False

    async def fetch(self) -> bytes:
        """Get the document."""
        return await _get(self._http, self._url)

    async def aclose(self) -> None:
        """Close the connection pool."""
        await self._http.aclose()


class DiscoverySource(UrlSource):
    """A JWK Set that the issuer's metadata points at (OpenID Connect Discovery 1.0 section 4).

    The metadata is read each time, so that an issuer may move its keys.
    """

    def __init__(self, issuer: str) -> None:
        """``issuer`` has been checked to be https, or http to a loopback address."""
        super().__init__(issuer.removesuffix("/") + "/.well-known/openid-configuration")
        self._issuer = issuer

    async def fetch(self) -> bytes:
        """Get the metadata, check whose it is, and get the keys it names."""
        metadata = await _get(self._http, self._url)
        return await _get(self._http, keys_address(metadata, self._issuer))


def keys_address(metadata: bytes, issuer: str) -> str:
    """Return where an issuer's metadata says its keys are.

    Raises:
        KeySourceError: the metadata is another issuer's, or sends us where keys aren't safe.
    """
    members = _json_object(metadata)
    # OpenID Connect Discovery 1.0 section 4.3: identical, or one issuer could vouch for the keys
    # of another.
    if members.get("issuer") != issuer:
        raise KeySourceError("the discovery document is of another issuer")
    address = members.get("jwks_uri")
    # Only an issuer that is on loopback itself may send us there: http says nothing about who
    # listens.
    local = issuer.startswith("http:")
    if not isinstance(address, str) or not _is_protected(address, loopback_http=local):
        raise KeySourceError("the discovery document's jwks_uri is not an https URL")
    return address


def _http_client() -> httpx2.AsyncClient:
    """Make a client that goes straight to the issuer: no proxy, netrc or CA from the environment.

    Nothing is kept alive between fetches, which are minutes apart.
    """
    return httpx2.AsyncClient(
        verify=True,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(FETCH_TIMEOUT_S),
        limits=httpx2.Limits(max_connections=2, max_keepalive_connections=0),
        headers={"accept": "application/json", "accept-encoding": "identity"},
    )


async def _get(http: httpx2.AsyncClient, url: str) -> bytes:
    """Get a bounded document in bounded time, from that URL and no other."""
    try:
        # The client's own time-outs are per read: a server that drips would never meet them.
        async with asyncio.timeout(FETCH_TIMEOUT_S), http.stream("GET", url) as response:
            if response.status_code != HTTPStatus.OK:
                raise KeySourceError(f"GET {url} answered {response.status_code}")
            content = bytearray()
            # Raw: a compressed body, which wasn't asked for, may unfold into one without end.
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MAX_DOCUMENT_BYTES:
                    raise KeySourceError(f"GET {url} answered more than {MAX_DOCUMENT_BYTES} bytes")
            return bytes(content)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
        raise KeySourceError(f"GET {url} failed: {type(error).__name__}") from error


def _json_object(document: bytes) -> dict[str, Any]:
    try:
        content: Any = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise KeySourceError("the discovery document is not JSON") from error
    if not isinstance(content, dict):
        raise KeySourceError("the discovery document is not a JSON object")
    return cast("dict[str, Any]", content)


def _is_protected(address: str, *, loopback_http: bool) -> bool:
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


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _fingerprint(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
