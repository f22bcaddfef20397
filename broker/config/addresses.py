"""URLs, and addresses to listen on.

The text of a URL is never repeated in an error: URLs are where a password is written by mistake.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Final, cast
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Strict

from broker.config.problems import Fault, did_you_mean, shown

# RFC 3986. urlsplit() silently drops line breaks and tabs, so they are refused before.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
MAX_RESOURCES: Final = 20
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_MAX_PORT: Final = 65535
_URL_HINT: Final = 'write an absolute URL, such as "https://broker.example.com"'


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split_url(value: str) -> SplitResult:
    """Split an http or https URL without user name and password.

    Raises:
        Fault: it is no such URL.
    """
    try:
        parts = urlsplit(value) if _URI.fullmatch(value) else None
        host, port = (parts.hostname, parts.port) if parts else (None, None)
    except ValueError:  # a broken port or IPv6 address
        parts = host = port = None
    if parts and "@" in parts.netloc:
        raise Fault("must not hold a user name or password", "remove what stands before the @")
    if parts is None or parts.scheme not in {"http", "https"} or not host or port == 0:
        raise Fault("is not an http or https URL", _URL_HINT)
    if ":" not in host and not _HOST.fullmatch(host):
        raise Fault("has a host that is no host name or address", _URL_HINT)
    return parts


def url(*, query: bool = False, trailing_slash: bool = False) -> AfterValidator:
    """Accept http and https URLs. Whether http will do is for ``refuse_plaintext`` to say."""

    def check(value: str) -> str:
        split_url(value)
        if "#" in value or ("?" in value and not query):
            raise Fault("must not hold a query or a fragment", "remove what follows the path")
        if value.endswith("/") and not trailing_slash:
            raise Fault("must not end with a slash", "remove it: the URL is compared as it is")
        return value

    return AfterValidator(check)


def is_safe_url(value: str) -> bool:
    """Tell whether a URL is https, or http that stays on this machine."""
    parts = split_url(value)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def refuse_plaintext(value: str, otherwise: str = "") -> str:
    """Accept what ``is_safe_url`` does; ``otherwise`` names another way out."""
    if not is_safe_url(value):
        raise Fault(
            "uses http, which anyone on the way can read and change",
            f"use https{otherwise}; http is for 127.0.0.1, [::1] and localhost",
        )
    return value


IssuerUrl = Annotated[str, url(), AfterValidator(refuse_plaintext)]
OtherIssuerUrl = Annotated[str, url(trailing_slash=True)]  # compared with `iss`, slash and all
KeysUrl = Annotated[str, url(query=True, trailing_slash=True), AfterValidator(refuse_plaintext)]
ServerUrl = Annotated[str, url()]


def _resource(value: str) -> str:
    """Accept what RFC 8707 calls a resource: any absolute URI, without fragment."""
    if not _URI.fullmatch(value) or set("#@") & set(value):
        raise Fault(
            "is not an absolute URI without fragment and user name",
            'such as "https://orders.example.com"',
        )
    return value


ResourceUri = Annotated[str, AfterValidator(_resource)]


def _listed(value: object) -> object:
    listed = cast("list[object]", value) if isinstance(value, list) else [value]
    if not 0 < len(listed) <= MAX_RESOURCES or not all(isinstance(uri, str) for uri in listed):
        raise Fault(
            f"is not a URI, nor a list of 1 to {MAX_RESOURCES} of them",
            'such as "https://orders.example.com"',
        )
    return listed


Resources = Annotated[tuple[ResourceUri, ...], Strict(strict=False), BeforeValidator(_listed)]
"""One resource, or a list of them."""

_REDIS_OPTIONS: Final = ("db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_REDIS_PATHS: Final = {"redis": r"(/[0-9]*)?", "sentinel": r"/[\w.-]+(/[0-9]*)?", "cluster": r"/?"}
"""What follows the address, by the kind of the URL: a database, or the name of a master."""
_REDIS_SUCH: Final = (
    'such as "rediss://redis.example:6379/0", "unix:///run/valkey/valkey.sock?db=0", '
    '"redis+sentinel://s1:26379,s2:26379/mymaster/0" or "redis+cluster://n1:6379,n2:6379"'
)


def _redis_url(value: str) -> str:
    """Accept redis-py's schemes, Sentinels and clusters. URL options could change anything."""
    try:
        parts = urlsplit(value)
        options = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:
        parts, options = urlsplit(""), list[str]()
    if "@" in value or {"password", "username"} & set(options):
        raise Fault(
            "must not hold a user name or password",
            "put the password into a file and name that with password_file; "
            "the user name goes into username",
        )
    is_socket = parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/")
    well_formed = _URI.fullmatch(value) and "#" not in value and "://" in value
    if not well_formed or not (is_socket or _are_redis_servers(parts)):
        raise Fault("is not a Redis URL", _REDIS_SUCH)
    if unknown := set(options) - set(_REDIS_OPTIONS):
        raise Fault(
            f"has an option that can't be set here: {shown(min(unknown))}",
            did_you_mean(min(unknown), _REDIS_OPTIONS),
        )
    if "+cluster" in parts.scheme and "db" in options:
        raise Fault("names a database, and a cluster has only one", "remove db")
    return value


def _are_redis_servers(parts: SplitResult) -> bool:
    """Tell whether a URL names servers: one, or some of the Sentinels or of a cluster's nodes."""
    scheme, plus, kind = parts.scheme.partition("+")
    kind = kind if plus else "redis"
    if scheme not in {"redis", "rediss"} or (plus and kind == "redis"):
        return False
    hosts = parts.netloc.split(",") if plus else [parts.netloc]
    return (
        kind in _REDIS_PATHS
        and re.fullmatch(_REDIS_PATHS[kind], parts.path) is not None
        and all(map(_is_host, hosts))
    )


def _is_host(text: str) -> bool:
    try:
        one = urlsplit(f"//{text}")
        return bool(one.hostname) and "," not in text and one.port != 0
    except ValueError:
        return False


RedisUrl = Annotated[str, AfterValidator(_redis_url)]


def split_listen(value: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 address loses its brackets.

    Raises:
        Fault: it is no host and port.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", value)
    try:
        host = str(IPv6Address(match[1])) if match and match[1] else match[2] if match else ""
    except ValueError:
        host = ""
    if not match or not host or not 1 <= int(match[3]) <= _MAX_PORT:
        raise Fault(
            f"{shown(value)} is not an address to listen on",
            'write host:port, such as "127.0.0.1:8700" or "[::1]:8700"',
        )
    return host, int(match[3])


def _listen(value: str) -> str:
    split_listen(value)
    return value


Listen = Annotated[str, AfterValidator(_listen)]
