"""TLS for the server: certificates that rotate under it, and clients' certificates asked for.

A listener has one ``SSLContext`` for all its life. Here that one only hands each handshake on to
the context of the moment, which is made anew when a file or a client authority changes; connections
that are open stay as they are.

The handshake proves that a client holds its certificate's key, and keeps out certificates of
unknown authorities. Whose certificate it is, and whether its authority is still trusted, is asked
again at each request by ``identity/``: an open or resumed connection outlives any change here.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import TYPE_CHECKING, Any, Final

from broker.errors import ConfigError
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

log = get_logger("tls")
REFRESH_S: Final = 2.0
"""How late a change of files or authorities is noticed."""
_FIRST_S: Final = 5.0
_NOT_OURS: Final = 0o027
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption (RFC 9325 section 4.2)."""

Marks = tuple[tuple[int, int, int], ...]


class ServerTls:
    """The server's certificate and key, and whose client certificates are let in."""

    def __init__(
        self,
        cert_file: Path,
        key_file: Path,
        *,
        authorities: Callable[[], Awaitable[tuple[bytes, ...]]] | None = None,
    ) -> None:
        """``authorities`` yields CAs in DER, now; None: clients aren't asked for certificates.

        Raises:
            ConfigError: the files can't be used; says why.
        """
        self._cert_file = cert_file
        self._key_file = key_file
        self._ask = authorities
        self._authorities: frozenset[bytes] = frozenset()
        self._complaints: dict[str, str] = {}
        self._marks, self._current = self._build(self._authorities)
        self.context = self._new_context()
        self.context.sni_callback = self._hand_on

    async def start(self) -> None:
        """Learn the authorities before the first handshake, if they can be had soon."""
        try:
            await asyncio.wait_for(self.refresh(), _FIRST_S)
        except TimeoutError:
            log.warning("client certificates are refused until their authorities can be had")

    async def keep(self) -> None:
        """Follow what changes, for ever."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Take over changed files and authorities; what can't be used leaves the old ones."""
        authorities = await self._asked()
        try:
            if authorities == self._authorities and self._look() == self._marks:
                return
            self._marks, self._current = self._build(authorities)
        except ConfigError as error:
            self._complain("the server's certificate is not reloaded", error.detail)
            return
        self._authorities = authorities
        self._complaints.clear()
        log.info("the server's TLS settings are reloaded", authorities=len(authorities))

    async def _asked(self) -> frozenset[bytes]:
        if self._ask is None:
            return frozenset()
        try:
            return frozenset(await self._ask())
        except Exception as error:  # noqa: BLE001  whatever it is, serving goes on
            self._complain("the authorities of client certificates stay", type(error).__name__)
            return self._authorities

    def _hand_on(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext
    ) -> None:
        # Called for each handshake, also of a client that sends no server name (RFC 6066).
        connection.context = self._current

    def _look(self) -> Marks:
        try:
            states = [path.stat() for path in (self._cert_file, self._key_file)]
        except OSError as error:
            raise ConfigError(f"{error.filename} can't be read: {error.strerror}") from error
        return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)

    def _build(self, authorities: frozenset[bytes]) -> tuple[Marks, ssl.SSLContext]:
        # Looked at before they are read: a change in between is noticed the next time.
        marks = self._look()
        _check_private(self._key_file)
        context = self._new_context()
        try:
            context.load_cert_chain(self._cert_file, self._key_file, password=_no_password)
        except ssl.SSLError as error:
            reason = _REASONS.get(error.reason or "", "they can't be used")
            raise ConfigError(
                f"tls: {self._cert_file} with key {self._key_file}: {reason}"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"tls: {self._cert_file} or {self._key_file} can't be read: {error.strerror}"
            ) from error
        for authority in authorities:
            try:
                context.load_verify_locations(cadata=authority)
            except (ssl.SSLError, ValueError):
                self._complain("an authority of client certificates can't be used", "not a CA")
        return marks, context

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        # A ticket would let a client come back without showing its certificate again.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        if self._ask is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            # A trust domain's authority needn't be self-signed (X509-SVID section 5).
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _complain(self, about: str, problem: str) -> None:
        if self._complaints.get(about) != problem:
            log.warning(about, problem=problem)
            self._complaints[about] = problem


_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key is not the certificate's",
    "NO_START_LINE": "one of them is not in PEM",
    "PEM_LIB": "one of them is not in PEM",
}


def client_chain(connection: Any) -> tuple[bytes, ...]:  # noqa: ANN401  any event loop's TLS object
    """Return the certificates a client has sent, in DER, its own first; empty without one.

    Its own was verified in the handshake; the others are as they came.
    """
    if connection is None:
        return ()
    leaf: bytes | None = connection.getpeercert(binary_form=True)
    if leaf is None:
        return ()
    # Public since Python 3.13, and DER already there.
    public = getattr(connection, "get_unverified_chain", None)
    if public is not None:
        sent = [bytes(certificate) for certificate in public()]
    else:
        inner: Any = getattr(connection, "_sslobj", None)
        chain: Any = inner.get_unverified_chain() if inner is not None else None
        sent = [certificate.public_bytes(_DER) for certificate in chain or ()]
    return (leaf, *(certificate for certificate in sent if certificate != leaf))


_DER: Final = 2
"""``_ssl.ENCODING_DER``."""


def _no_password() -> str:
    # Without this OpenSSL would ask for one at the terminal.
    raise ConfigError("tls: the key is encrypted: give one that isn't, in a file only for us")


def _check_private(path: Path) -> None:
    """Refuse a key that others can read. A group may, as where secrets are mounted."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  follows links, as mounted secrets are
    except OSError as error:
        raise ConfigError(f"tls: {path} can't be read: {error.strerror}") from error
    if mode & _NOT_OURS:
        raise ConfigError(
            f"tls: {path} is open to other users (mode {mode & 0o777:o}): run chmod 600 {path}"
        )
