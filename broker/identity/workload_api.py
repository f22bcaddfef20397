"""A trust domain's bundle from the SPIFFE Workload API, which an agent serves on this machine.

The agent is asked again, as any other source is, rather than listened to: it answers within
milliseconds, nothing has to be kept open, and an agent that was restarted is simply asked again.
What it says is put together as one SPIFFE bundle, so that there is one reader of bundles.

Of the ``spiffe`` package only the messages are used: its client fails as a whole when one trust
domain's CAs are gone, and they, being revoked, would go on serving.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from spiffe._proto import workload_pb2, workload_pb2_grpc

from broker.identity.bundles import JWT_USE, MALFORMED, X509_USE
from broker.identity.fetching import FETCH_TIMEOUT_S
from broker.identity.jwk import open_key_set
from broker.identity.jwks import KeysWithdrawn
from broker.identity.jwks_sources import KeySourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REFRESH_S: Final = 5
"""How soon the agent is asked again: it costs little, and is how soon a revocation is seen."""

# SPIFFE Workload Endpoint section 4: without it the agent refuses, so that no other program can be
# tricked into asking.
_METADATA: Final = (("workload.spiffe.io", "true"),)
_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
# Workload API sections 5.2.2 and 6.2.2: denied means that what we had is no longer for us. An agent
# may have one of the two kinds of SVID switched off.
_WITHDRAWN: Final = ("PERMISSION_DENIED", "UNIMPLEMENTED")
_DER_SEQUENCE: Final = 0x30
_DER_LONG_FORM: Final = 0x80


class WorkloadApiSource:
    """Asks the agent behind a unix socket for the bundle of one trust domain, its own or another.

    The bundle of a federated trust domain is there if the agent was told to hand it to us.
    """

    def __init__(self, address: str, trust_domain: str) -> None:
        """``address`` is ``unix:///path``; nobody needs to listen there yet."""
        self._address = address
        self._trust_domain = trust_domain

    def changed(self) -> bool:
        """An agent that isn't asked doesn't tell."""
        return False

    async def fetch(self) -> bytes:
        """Ask for both kinds of keys, in a thread: the library's own event loop is not ours."""
        # A channel for each time: an old one that failed would wait ever longer to connect again.
        channel: Any = grpc.insecure_channel(self._address, options=_OPTIONS)
        try:
            return await asyncio.to_thread(self._ask, channel)
        finally:
            # If we were cancelled, this ends the calls that the thread waits for.
            channel.close()

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _ask(self, channel: object) -> bytes:
        stub: Any = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        jwt = self._first(stub.FetchJWTBundles, workload_pb2.JWTBundlesRequest())
        x509_ = self._first(stub.FetchX509Bundles, workload_pb2.X509BundlesRequest())
        if jwt is None and x509_ is None:
            raise KeysWithdrawn(
                f"the Workload API at {self._address} has no bundle of {self._trust_domain} for us"
            )
        try:
            keys = [*_jwt_entries(jwt), *_x509_entries(x509_ or b"")]
        except ValueError as error:
            raise KeySourceError(
                f"the Workload API at {self._address} sent no bundle: {error}"
            ) from error
        return json.dumps({"keys": keys, "spiffe_refresh_hint": REFRESH_S}).encode()

    def _first(self, call: Any, request: object) -> bytes | None:  # noqa: ANN401  untyped library
        """Return the trust domain's part of the first answer of a stream; each one is complete.

        None means that there is none for us, which is an answer too.
        """
        stream = call(request, timeout=FETCH_TIMEOUT_S, metadata=_METADATA)
        try:
            message: Any = next(stream, None)
        except grpc.RpcError as error:
            status: str = cast("Any", error).code().name
            if status in _WITHDRAWN:
                return None
            raise KeySourceError(
                f"the Workload API at {self._address} answered {status}"
            ) from error
        finally:
            stream.cancel()
        bundles: Mapping[str, bytes] = message.bundles if message is not None else {}
        # Section 4.5: a message without what it must have is to be discarded.
        if not bundles:
            raise KeySourceError(f"the Workload API at {self._address} sent no bundles at all")
        return bundles.get(f"spiffe://{self._trust_domain}")


def _jwt_entries(document: bytes | None) -> Iterator[dict[str, Any]]:
    """Yield the keys of a JWT bundle, which needn't say what they are for: all are for JWT-SVIDs.

    Section 6.2.2. One that says otherwise is left out.
    """
    entries: list[Any] = [] if document is None else open_key_set(document)["keys"]
    for entry in entries:
        if isinstance(entry, dict):
            members = cast("dict[str, Any]", entry)
            if members.get("use", JWT_USE) in (JWT_USE, "sig"):
                yield {**members, "use": JWT_USE}


def _x509_entries(certificates: bytes) -> Iterator[dict[str, Any]]:
    for der in split_der(certificates):
        yield {"kty": _key_type(der), "use": X509_USE, "x5c": [b64encode(der).decode("ascii")]}


def split_der(joined: bytes) -> Iterator[bytes]:
    """Yield the DER certificates that stand one after the other, whatever is in them.

    Raises:
        ValueError: they don't.
    """
    start = 0
    while start < len(joined):
        head = joined[start : start + 6]
        short = len(head) > 1 and head[1] < _DER_LONG_FORM
        size_bytes = 0 if short or len(head) < 2 else head[1] & 0x7F  # noqa: PLR2004  tag and length
        size = head[1] if short else int.from_bytes(head[2 : 2 + size_bytes], "big")
        end = start + 2 + size_bytes + size
        if head[0] != _DER_SEQUENCE or size_bytes > 4 or end > len(joined):  # noqa: PLR2004
            raise ValueError("not a sequence of DER certificates")
        yield joined[start:end]
        start = end


def _key_type(der: bytes) -> str | None:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (*MALFORMED, UnsupportedAlgorithm):
        return None
    return "RSA" if isinstance(key, RSAPublicKey) else "EC"
