"""Where a call goes: one strict reading, so that what was allowed is what is called.

Readers of URLs differ in what they forgive (user information, backslashes, percent signs, odd
numbers for addresses), and an allow-list that reads one host while the caller reaches another is
none. So nothing is forgiven: what isn't plain is refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

_SCHEMES: Final = {
    "https": 443,
    "http": 80,
    "postgresql": 5432,
    "smtp": 25,
    "smtps": 465,
    "ssh": 22,
}
_URL: Final = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]{0,30})://)?"
    r"(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?#][\x21-\x5b\x5d-\x7e]*)?"
)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
MAX_LENGTH: Final = 2048
_MAX_PORT: Final = 65_535


def destination(text: str) -> dict[str, Any]:
    """Read ``https://api.example.com:8443/path`` or ``api.example.com`` for a question's context.

    Hosts are compared in lower case; names that aren't ASCII are written in punycode.

    Raises:
        ValueError: it is neither.
    """
    match = _URL.fullmatch(_lower_authority(text)) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise ValueError("not a plain URL or host")
    scheme, host = match["scheme"] or "", match["host"]
    if match["port"] is None:
        port = _SCHEMES.get(scheme, 0)
    else:
        port = int(match["port"])
        if not 0 < port <= _MAX_PORT:
            raise ValueError("not a port")
    address = _address(host)
    if address is None and not all(map(_LABEL.fullmatch, host.split("."))):
        raise ValueError("not a host name")
    labels = host.split(".")
    within = [address] if address else [".".join(labels[i:]) for i in range(len(labels))]
    return {
        "host": address or host,
        "within": within,
        "scheme": scheme,
        "port": port,
        "ip": address is not None,
    }


def _lower_authority(text: str) -> str:
    """Lower the scheme and the host, which mean the same in either case (RFC 3986 6.2.2.1)."""
    head, found, rest = text.partition("://")
    if not found:
        head, rest = "", text
    cut = min((i for i in map(rest.find, "/?#") if i >= 0), default=len(rest))
    return head.lower() + found + rest[:cut].lower() + rest[cut:]


def _address(host: str) -> str | None:
    """Return a host's address in its one form, or None for a name.

    A host whose last part is a number is an address to some readers (0x7f.1, 127.1), so it has to
    be one to all.
    """
    if host.startswith("["):
        return str(IPv6Address(host[1:-1]))
    last = host.rpartition(".")[2]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        return str(ip_address(host))
    return None
