"""What a request carries beside its body by which its sender proves that it holds a key.

A client certificate comes from our own TLS, or from a proxy that ended TLS for us, in the headers
of RFC 9440. Those are believed from the configured addresses only: from anybody else they aren't
even read. No other header about the connection (``Forwarded``, ``X-Forwarded-…``, ``Host``) is
believed from anybody.
"""

from __future__ import annotations

import re
import ssl
from base64 import b64decode, b64encode
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from cryptography import x509

from broker.errors import InvalidRequest
from broker.identity.models import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from fastapi import Request
    from starlette.datastructures import Address

    Proxies = Sequence[IPv4Network | IPv6Network]

CLIENT_CERT: Final = "client-cert"
CLIENT_CERT_CHAIN: Final = "client-cert-chain"
MAX_CERTIFICATES: Final = 8
MAX_HEADER_CHARS: Final = 64 * 1024
_BINARY: Final = re.compile(r":([A-Za-z0-9+/]+={0,2}):")
_IN_PATHS: Final = "/%:@!$&'()*+,;=-._~"


def transport_of(request: Request) -> Transport:
    """Return a request's method, its URL under the broker's public address, and its proofs.

    Raises:
        InvalidRequest: a trusted proxy sent headers about a certificate that can't be read.
    """
    state = request.app.state
    return Transport(
        method=request.method,
        url=_origin(state.broker.access.issuer) + _path(request),
        dpop=tuple(request.headers.getlist("dpop")),
        certificates=_certificates(request, state.trusted_proxies),
    )


def _origin(issuer: str) -> str:
    parts = urlsplit(issuer)
    return f"{parts.scheme}://{parts.netloc}"


def _path(request: Request) -> str:
    """Return the path as it was sent. ``request.url`` won't do: it is made of the Host header."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return quote(raw, safe=_IN_PATHS)


def _certificates(request: Request, proxies: Proxies) -> tuple[bytes, ...]:
    """Return the client's certificate chain in DER, its own first; empty without one.

    A proxy's own certificate is never taken for that of the client behind it.
    """
    if is_proxy(request.client, proxies):
        return forwarded(
            request.headers.getlist(CLIENT_CERT), request.headers.getlist(CLIENT_CERT_CHAIN)
        )
    # The TLS extension of ASGI: a list of certificates in PEM.
    tls: dict[str, Any] = request.scope.get("extensions", {}).get("tls", {})
    return tuple(map(ssl.PEM_cert_to_DER_cert, tls.get("client_cert_chain", ())))


def is_proxy(peer: Address | None, proxies: Proxies) -> bool:
    """Say whether the other end of the socket is a trusted proxy; without an address it isn't."""
    if peer is None:
        return False
    try:
        address = ip_address(peer.host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped  # a socket for both families shows IPv4 like this
    return any(address in network for network in proxies)


def forwarded(own: Sequence[str], others: Sequence[str]) -> tuple[bytes, ...]:
    """Read the values of ``Client-Cert`` and ``Client-Cert-Chain`` (RFC 9440 section 2).

    Raises:
        InvalidRequest: not exactly as the RFC writes them, or one of them twice.
    """
    if len(own) > 1 or len(others) > 1:
        raise InvalidRequest("Client-Cert and Client-Cert-Chain: once each, from the proxy alone")
    if sum(map(len, (*own, *others))) > MAX_HEADER_CHARS:
        raise InvalidRequest(f"Client-Cert: more than {MAX_HEADER_CHARS} characters")
    if others and not own:
        # Section 2.3: the chain is never sent without the certificate.
        raise InvalidRequest("Client-Cert-Chain without Client-Cert")
    if not own:
        return ()
    items = [own[0], *(others[0].split(",") if others else ())]
    if len(items) > MAX_CERTIFICATES:
        raise InvalidRequest(f"Client-Cert-Chain: more than {MAX_CERTIFICATES} certificates")
    return tuple(map(_certificate, items))


def _certificate(item: str) -> bytes:
    """Read one certificate in DER from a byte sequence (RFC 8941 section 3.3.5)."""
    match = _BINARY.fullmatch(item.strip(" \t"))
    try:
        der = b64decode(match[1], validate=True) if match else b""
        x509.load_der_x509_certificate(der)
        if match and b64encode(der).decode() == match[1]:
            return der
    except ValueError:
        pass
    raise InvalidRequest("Client-Cert: each certificate is DER in base64 between colons (RFC 9440)")
