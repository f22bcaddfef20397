"""Posting to whoever wants to be told, signed if there is a secret.

The signature is that of Standard Webhooks. The files of the secrets and the CA are read again each
time, as they rotate. Redirects aren't followed: a secret goes to the configured address only.
No error holds the URL, which may be a secret itself.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import hashlib
import hmac
import re
import ssl
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httpx2

from broker.audit.sinks import SinkError
from broker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from broker.clock import Clock
    from broker.secret import Secret

_SECRET: Final = "whsec_"
_SECRET_BYTES: Final = range(24, 65)
_MAX_ANSWER: Final = 64 << 10
_TOKEN: Final = re.compile(r"[!-~]{1,16384}")

Stamp = tuple[int, int, int, int]


_REFUSED: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
"""What says that this body won't be taken, however often it is sent."""


class Poster:
    """Posts bodies to one URL."""

    def __init__(
        self,
        url: Callable[[], str],
        clock: Clock,
        *,
        timeout_s: float = 10.0,
        ca_file: Path | None = None,
        token: Callable[[], Secret] | None = None,
        secret: Callable[[], Secret] | None = None,
    ) -> None:
        """``url``, ``token`` and ``secret`` may read files; ``timeout_s`` bounds a whole delivery.

        Raises:
            ConfigError: a file can't be used.
        """
        self._url = url
        self._clock = clock
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._token = token
        self._secret = secret
        self._http: httpx2.AsyncClient | None = None
        self._seen: Stamp | None = None
        if ca_file is not None:
            _trust(ca_file)
        url()
        self._headers(b"", ())

    async def post(self, body: bytes, *, media_type: str, ids: Sequence[str]) -> None:
        """Post a body; ``ids`` say what is in it, so that a repetition can be told.

        Raises:
            SinkError: the answer isn't a 2xx, or there is none.
        """
        try:
            url = await asyncio.to_thread(self._url)
            headers = await asyncio.to_thread(self._headers, body, ids)
            headers["content-type"] = media_type
            http = await self._client()
            # The client's own time-outs are per read: a server that drips would never meet them.
            async with asyncio.timeout(self._timeout_s):
                async with http.stream("POST", url, content=body, headers=headers) as response:
                    await _read_some(response)
        except ConfigError as error:
            raise SinkError(error.detail) from error
        except TimeoutError as error:
            await self.close()
            raise SinkError(f"no answer within {self._timeout_s:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            # Not chained: what it says, or holds, may be the URL.
            raise SinkError(f"no answer: {type(error).__name__}") from None
        self._judge(response)

    async def close(self) -> None:
        """Close the connection."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def _judge(self, response: httpx2.Response) -> None:
        status = response.status_code
        if response.is_success:
            return
        moved = ", and redirects aren't followed" if response.is_redirect else ""
        raise SinkError(
            f"it answered {status}{moved}",
            wait_s=self._wait(response.headers.get("retry-after", "")),
            too_large=status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            refused=status in _REFUSED,
        )

    def _wait(self, value: str) -> float:
        """Read Retry-After (RFC 9110 section 10.2.3): seconds, or a date."""
        if re.fullmatch(r"[0-9]{1,9}", value):
            return float(value)
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - self._clock.now())
        except (ValueError, OverflowError):
            return 0.0

    def _headers(self, body: bytes, ids: Sequence[str]) -> dict[str, str]:
        """Return the headers of a delivery; off the event loop, since files are read."""
        headers: dict[str, str] = {}
        if self._token is not None:
            token = self._token().reveal()
            # A header that can't be sent would be repeated in the library's own error.
            if _TOKEN.fullmatch(token) is None:
                raise ConfigError("token_file of the webhook holds no bearer token")
            headers["authorization"] = f"Bearer {token}"
        if self._secret is not None:
            key = _key(self._secret())
            # The same for the same events, so that a repeated delivery is known as one.
            message = "msg_" + hashlib.sha256("\n".join(ids).encode()).hexdigest()[:32]
            moment = str(int(self._clock.now()))
            signed = f"{message}.{moment}.".encode() + body
            made = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
            headers |= {
                "webhook-id": message,
                "webhook-timestamp": moment,
                "webhook-signature": f"v1,{made}",
            }
        return headers

    async def _client(self) -> httpx2.AsyncClient:
        """Return the client; a CA file that has changed makes another."""
        if self._ca_file is not None:
            stamp = await asyncio.to_thread(_stamp, self._ca_file)
            if stamp != self._seen:
                await self.close()
                self._seen = stamp
        if self._http is None:
            self._http = httpx2.AsyncClient(
                verify=await asyncio.to_thread(_trust, self._ca_file),
                trust_env=False,
                follow_redirects=False,
                timeout=httpx2.Timeout(self._timeout_s),
                headers={"accept-encoding": "identity", "user-agent": "broker"},
            )
        return self._http


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return what is trusted.

    Raises:
        ConfigError: the file holds no CA.
    """
    if ca_file is None:
        return _system_trust()
    try:
        # Nothing else is trusted then: with a CA of its own, who is meant is known.
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.minimum_version = ssl.TLSVersion.TLSv1_2
        trust.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"ca_file {ca_file} can't be used: name a file of CA certificates in PEM"
        ) from error
    return trust


@functools.cache
def _system_trust() -> ssl.SSLContext:
    """Read the CAs the system trusts: once, since there are many."""
    return httpx2.create_ssl_context(trust_env=False)


def _key(secret: Secret) -> bytes:
    text = secret.reveal().strip()
    try:
        key = base64.b64decode(text.removeprefix(_SECRET), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_SECRET) or len(key) not in _SECRET_BYTES:
        raise ConfigError(
            "secret_file of the webhook holds no signing secret: it is whsec_ and 24 to 64 bytes "
            "in base64"
        )
    return key


def _stamp(path: Path) -> Stamp | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


async def _read_some(response: httpx2.Response) -> None:
    """Read the answer to its end, so that the connection can be used again, unless it has none."""
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > _MAX_ANSWER:
            break
