"""Where a call goes: one strict reading, so that what was allowed is what is called.

Readers of URLs differ in what they forgive (user information, backslashes, percent signs, odd
numbers for addresses), and an allow-list that reads one host while the caller reaches another is
none. So nothing is forgiven: what isn't plain is refused. That goes for the rest of a URL too,
where a reader might find a host in it: an ``@`` with no slash before it, or the options of a
database's URL, which can name another server.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

_SCHEMES: Final = {
    "https": 443,
    "http": 80,
    "wss": 443,
    "ws": 80,
    "postgresql": 5432,
    "postgres": 5432,
    "smtp": 25,
    "smtps": 465,
    "ssh": 22,
}
_WEB: Final = ("", "https", "http", "wss", "ws")
_URL: Final = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]{0,30})://)?"
    r"(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<rest>[/?#][\x21-\x5b\x5d-\x7e]*)?"
)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_IPV4_WITHIN: Final = (0, 0xFFFF)
"""The first 96 bits of addresses that are IPv4's: ``::127.0.0.1`` and ``::ffff:127.0.0.1``."""
_LOOPBACK: Final = 1
MAX_LENGTH: Final = 2048
_MAX_PORT: Final = 65_535


def destination(text: str) -> dict[str, Any]:
    """Read ``https://api.example.com:8443/path`` or ``api.example.com`` for a question's context.

    Hosts are compared in lower case; names that aren't ASCII are written in punycode.

    Raises:
        ValueError: it is neither.
    """
    # Before anything is lowered: of some letters that aren't ASCII the small ones are.
    plain = len(text) <= MAX_LENGTH and text.isascii()
    match = _URL.fullmatch(_lower_authority(text)) if plain else None
    if match is None:
        raise ValueError("not a plain URL or host")
    scheme, host, rest = match["scheme"] or "", match["host"], match["rest"] or ""
    if not _is_plain(rest, scheme) or (not scheme and host in _WEB):
        raise ValueError("not to be read in one way only")
    if match["port"] is None:
        port = _SCHEMES.get(scheme, 0)
    else:
        port = int(match["port"])
        if port > _MAX_PORT:
            raise ValueError("not a port")
    try:
        address = _address(host)
    except ValueError:
        raise ValueError("not an address in its plain form") from None
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


def _is_plain(rest: str, scheme: str) -> bool:
    """Say whether what follows the authority can't be taken for a part of it, or for another."""
    if scheme not in _WEB:
        return "?" not in rest and "@" not in rest
    return rest.startswith("/") or "@" not in rest


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
        address = IPv6Address(host[1:-1])
        if int(address) > _LOOPBACK and (int(address) >> 32) in _IPV4_WITHIN:
            raise ValueError("an IPv4 address in another form")
        return str(address)
    last = host.rpartition(".")[2]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        return str(ip_address(host))
    return None
