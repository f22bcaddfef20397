"""Where an issuer's keys come from: a file, a URL, or OpenID Connect discovery."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, Protocol, cast

from broker.errors import ConfigError
from broker.identity.fetching import (
    MAX_DOCUMENT_BYTES,
    Fetcher,
    FetchError,
    authority,
    fingerprint,
    is_protected,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from broker.identity.models import IssuerSettings


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
        ConfigError: keys would travel unprotected, or ``ca_file`` can't be used.
    """
    if settings.jwks_file is not None:
        return FileSource(settings.jwks_file)
    address, name = (
        (settings.issuer, "issuer")
        if settings.jwks_url is None
        else (settings.jwks_url, "jwks_url")
    )
    if not is_protected(address, loopback_http=True):
        raise ConfigError(
            f"identity issuer {settings.name!r}: {name} must be an https URL without user"
            " information (http only to a loopback address)"
        )
    fetcher = Fetcher(ca_file=settings.ca_file, token_file=settings.token_file)
    if settings.jwks_url is None:
        return DiscoverySource(settings.issuer, fetcher, settings.jwks_hosts)
    return UrlSource(settings.jwks_url, fetcher)


class FileSource:
    """A JWK Set in a local file, read again when the file is changed or replaced."""

    def __init__(self, path: Path) -> None:
        """``path`` needn't exist yet."""
        self._path = path
        self._seen: tuple[int, ...] | None = None

    def changed(self) -> bool:
        """Compare the file's identity, size and time with those last read."""
        try:
            return fingerprint(self._path.stat()) != self._seen
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
            seen = fingerprint(os.fstat(file.fileno()))
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        self._seen = seen
        if len(content) > MAX_DOCUMENT_BYTES:
            raise KeySourceError(f"{self._path} is larger than {MAX_DOCUMENT_BYTES} bytes")
        return content


class UrlSource:
    """A JWK Set at a fixed URL."""

    def __init__(self, url: str, fetcher: Fetcher | None = None) -> None:
        """``url`` has been checked; without a ``fetcher`` the system's CAs are trusted."""
        self._url = url
        self._fetcher = fetcher or Fetcher()

    def changed(self) -> bool:
        """A server doesn't tell."""
        return False

    async def fetch(self) -> bytes:
        """Get the document."""
        return await self._get(self._url)

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _get(self, url: str) -> bytes:
        try:
            # With the token: these are the servers that the configuration gave it for.
            return await self._fetcher.get(url, with_token=True)
        except FetchError as error:
            raise KeySourceError(str(error)) from error


class DiscoverySource(UrlSource):
    """A JWK Set that the issuer's metadata points at (OpenID Connect Discovery 1.0 section 4).

    The metadata is read each time, so that an issuer may move its keys.
    """

    def __init__(
        self, issuer: str, fetcher: Fetcher | None = None, hosts: Collection[str] = ()
    ) -> None:
        """``issuer`` has been checked to be https, or http to a loopback address.

        ``hosts`` are those, beside the issuer's own, that its keys may be on.
        """
        super().__init__(issuer.removesuffix("/") + "/.well-known/openid-configuration", fetcher)
        self._issuer = issuer
        self._hosts = hosts

    async def fetch(self) -> bytes:
        """Get the metadata, check whose it is, and get the keys it names."""
        metadata = await self._get(self._url)
        return await self._get(keys_address(metadata, self._issuer, self._hosts))


def keys_address(metadata: bytes, issuer: str, hosts: Collection[str] = ()) -> str:
    """Return where an issuer's metadata says its keys are.

    Raises:
        KeySourceError: the metadata is another issuer's, or sends us where keys aren't safe, or
            where nobody said that they are: it must not choose which servers we talk to.
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
    if not isinstance(address, str) or not is_protected(address, loopback_http=local):
        raise KeySourceError("the discovery document's jwks_uri is not an https URL")
    named = authority(address)
    if named != authority(issuer) and named not in hosts:
        raise KeySourceError(
            "the discovery document's jwks_uri is on another host than the issuer"
            f": {named[:100]!r} is not listed in jwks_hosts"
        )
    return address


def _json_object(document: bytes) -> dict[str, Any]:
    try:
        content: Any = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise KeySourceError("the discovery document is not JSON") from error
    if not isinstance(content, dict):
        raise KeySourceError("the discovery document is not a JSON object")
    return cast("dict[str, Any]", content)
