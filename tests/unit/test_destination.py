"""Where a call goes is read in one way, or not at all (pitfall 27).

``urllib``, ``httpx`` and ``requests`` stand for the clients that a tool may use: whatever is taken
here, each of them reaches the same host and port.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx2
import pytest
import requests
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from broker.policy.destination import MAX_LENGTH, destination

if TYPE_CHECKING:
    from typing import Any

READ: Final[list[tuple[str, str, int, bool]]] = [
    ("https://api.example.com/v1/x?y=z#f", "api.example.com", 443, False),
    ("http://API.Example.COM", "api.example.com", 80, False),
    ("HTTPS://example.com:8443/", "example.com", 8443, False),
    ("api.example.com", "api.example.com", 0, False),
    ("api.example.com:8443", "api.example.com", 8443, False),
    ("localhost:8080", "localhost", 8080, False),
    ("localhost/path", "localhost", 0, False),
    ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, False),
    ("https://example.com/a@b", "example.com", 443, False),
    ("https://example.com/?to=a@b.example&next=https://other.example/", "example.com", 443, False),
    ("https://example.com//other.example", "example.com", 443, False),
    ("https://example.com?x=1", "example.com", 443, False),
    ("https://127.0.0.1/", "127.0.0.1", 443, True),
    ("10.0.0.1:53", "10.0.0.1", 53, True),
    ("https://[2001:DB8::1]:444/", "2001:db8::1", 444, True),
    ("https://[2001:db8:0:0:0:0:0:1]/", "2001:db8::1", 443, True),
    ("https://[::1]/", "::1", 443, True),
    ("postgresql://db.internal/orders", "db.internal", 5432, False),
    ("postgres:5432", "postgres", 5432, False),
    ("smtp://mail.example.com", "mail.example.com", 25, False),
    ("wss://example.com/socket", "example.com", 443, False),
    ("custom+x.y://example.com/", "example.com", 0, False),
]


@pytest.mark.parametrize(("text", "host", "port", "ip"), READ, ids=[row[0] for row in READ])
def test_what_is_plain_is_read(text: str, host: str, port: int, *, ip: bool) -> None:
    found = destination(text)

    assert (found["host"], found["port"], found["ip"]) == (host, port, ip)
    assert found["within"][0] == host


def test_a_host_is_within_itself_and_the_domains_above_it() -> None:
    found = destination("https://a.b.example.com")["within"]
    assert found == ["a.b.example.com", "b.example.com", "example.com", "com"]
    assert "example.com" not in destination("https://evilexample.com")["within"]
    assert "example.com" not in destination("https://example.com.evil.example")["within"]
    assert destination("https://10.0.0.1")["within"] == ["10.0.0.1"]


GOOD: Final = "good.example"
EVIL: Final = "evil.example"
HOSTILE: Final[dict[str, list[str]]] = {
    "user information": [
        f"https://{GOOD}@{EVIL}/",
        f"https://{GOOD}:x@{EVIL}/",
        f"https://{GOOD}%40{EVIL}/",
        f"https://@{EVIL}/",
        f"https://a@{GOOD}@{EVIL}/",
        f"https://{EVIL}:80@{GOOD}:80@{EVIL}/",
        f"{GOOD}@{EVIL}",
        f"user:password@{GOOD}",
    ],
    "an @ where some still look for a host": [
        f"https://{GOOD}?@{EVIL}/",
        f"https://{GOOD}#@{EVIL}/",
        f"https://{GOOD}?x#@{EVIL}/",
        f"ssh://{GOOD}/x@{EVIL}",
    ],
    "backslashes": [
        f"https://{GOOD}\\@{EVIL}/",
        f"https://{GOOD}\\.{EVIL}/",
        f"https:\\\\{GOOD}/",
        f"https://{GOOD}/\\{EVIL}",
        f"\\\\{GOOD}\\share",
    ],
    "slashes": [
        f"//{GOOD}/",
        f"https:/{GOOD}/",
        f"https:{GOOD}/",
        f"https:///{GOOD}/",
        f"https:////{GOOD}/",
        f"/{GOOD}/",
        f"://{GOOD}/",
        f"https://https://{GOOD}/",
        "https://",
        "https:///",
        "",
        "/",
    ],
    "percent signs in the host": [
        f"https://{GOOD}%2e{EVIL}/",
        f"https://{GOOD}%2f{EVIL}/",
        f"https://{GOOD}%00.{EVIL}/",
        f"https://{GOOD}%23.{EVIL}/",
        "https://%67ood.example/",
        "https://%5b::1%5d/",
    ],
    "white space and control characters": [
        f" https://{GOOD}/",
        f"https://{GOOD}/ ",
        f"https://{GOOD} .{EVIL}/",
        f"https://{GOOD}\t.{EVIL}/",
        f"ht\ttps://{GOOD}/",
        f"https://{GOOD}\n{EVIL}/",
        f"https://{GOOD}/\r\nHost: {EVIL}",
        f"https://{GOOD}\x00.{EVIL}/",
        f"https://{GOOD}/\x7f",
        f"https://{GOOD}\n",
        f"\ufeffhttps://{GOOD}/",
        f"https://{GOOD}\u3000/",
    ],
    "other alphabets": [
        "https://g\u043eod.example/",  # Cyrillic
        "https://\uff47ood.example/",  # full width
        "https://good\u3002example/",  # an ideographic full stop
        "https://good\uff0eexample/",
        "https://goo\u0131.example/",
        "https://\u212aood.example/",  # the Kelvin sign, whose small letter is k
        "https://good.example\u2100/",  # ℀, which some write as a/c
        "https://good\u00ad.example/",  # a soft hyphen
        "https://b\u00fccher.example/",
        "https://\u0661.0.0.1/",
        "https://good.example\u202e/",
    ],
    "addresses in other forms": [
        "http://0x7f.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://0x7f.0x0.0x0.0x1/",
        "http://2130706433/",
        "http://017700000001/",
        "http://0177.0.0.1/",
        "http://127.0.0.01/",
        "http://127.0.1/",
        "http://0/",
        "http://256.0.0.1/",
        "http://1.2.3.4.5/",
        "http://1.2.3/",
        "http://a.b.0x1/",
        "http://example.0x/",
        "http://example.08/",
        "127.1",
        "http://127.0.0.1./",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
        "http://[::127.0.0.1]/",
        "http://[::7f00:1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://::1]/",
        "http://::1/",
        "http://[127.0.0.1]/",
        "http://[v1.x]/",
        f"http://[{GOOD}]/",
        "http://[1:2:3:4:5:6:7:8:9]/",
        "http://[:::]/",
        "http://[::1]x/",
        f"http://[::1]{EVIL}/",
    ],
    "names that are none": [
        f"https://{GOOD}./",
        f"https://.{GOOD}/",
        f"https://{GOOD}../",
        "https://good..example/",
        "https://-good.example/",
        "https://good-.example/",
        "https://good.-example/",
        "https://go_od.example/",
        "https://*.example/",
        f"https://{'a' * 64}.example/",
        f"https://{'.'.join(['a' * 60] * 5)}/",
        f"https://{GOOD},{EVIL}/",
        f"https://{GOOD};{EVIL}/",
        f"https://{GOOD}&{EVIL}/",
        f"https://{GOOD}|{EVIL}/",
        "https://good<.example/",
        "https://good'.example/",
        "https://",
        "https",
        "http:8080",
    ],
    "ports": [
        f"https://{GOOD}:/",
        f"https://{GOOD}:0/",
        f"https://{GOOD}:080/",
        f"https://{GOOD}:65536/",
        f"https://{GOOD}:99999999999/",
        f"https://{GOOD}:-1/",
        f"https://{GOOD}:+443/",
        f"https://{GOOD}:4 43/",
        f"https://{GOOD}:443:443/",
        f"https://{GOOD}:443@{EVIL}/",
        f"https://{GOOD}:{EVIL}/",
        f"https://{GOOD}:443{EVIL}/",
        f"https://{GOOD}:\u0664\u0664\u0663/",
        f"https://{GOOD}:0x1bb/",
        f"https://{GOOD}:443.0/",
    ],
    "schemes": [
        f"jar:https://{GOOD}/",
        f"view-source:https://{GOOD}/",
        "javascript:alert(1)",
        "data:text/plain,x",
        f"mailto:a@{GOOD}",
        "urn:example:x",
        f"1http://{GOOD}/",
        f"-http://{GOOD}/",
        f"ht_tp://{GOOD}/",
        f"h\u0442tp://{GOOD}/",
        "file:///etc/passwd",
        "unix:/run/x.sock",
    ],
    "options that name another server": [
        f"postgresql://{GOOD}/orders?host={EVIL}",
        f"postgres://{GOOD}/orders?%68ost={EVIL}",
        f"postgresql://{GOOD},{EVIL}/orders",
        f"smtp://{GOOD}/?relay={EVIL}",
    ],
}
CASES: Final = [(why, text) for why, texts in HOSTILE.items() for text in texts]


@pytest.mark.parametrize(
    ("why", "text"), CASES, ids=[f"{n}-{why}" for n, (why, _) in enumerate(CASES)]
)
def test_what_could_be_read_in_another_way_is_refused(why: str, text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        destination(text)
    assert text not in str(caught.value) or not text, why


def test_what_is_too_long_is_refused() -> None:
    longest = f"https://{GOOD}/"
    longest += "x" * (MAX_LENGTH - len(longest))
    assert destination(longest)["host"] == GOOD
    with pytest.raises(ValueError, match="plain"):
        destination(longest + "x")


def by_urllib(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port


def by_httpx(url: str) -> tuple[str, int | None]:
    parts = httpx2.URL(url)
    return parts.raw_host.decode("ascii"), parts.port


def by_requests(url: str) -> tuple[str, int | None]:
    prepared = requests.Request("GET", url).prepare().url
    assert prepared is not None
    return by_urllib(prepared)


def assert_all_read_the_same(url: str) -> None:
    found: dict[str, Any] = destination(url)
    if found["scheme"] not in ("http", "https"):
        return
    default = {"http": 80, "https": 443}[found["scheme"]]
    for read in (by_urllib, by_httpx, by_requests):
        host, port = read(url)
        assert (normal(host), port or default) == (found["host"], found["port"]), read.__name__
    if found["ip"]:
        assert all(row[4][0] == found["host"] for row in resolved(found["host"]))


def normal(host: str) -> str:
    host = host.strip("[]").lower()
    return str(ipaddress.ip_address(host)) if ":" in host else host


def resolved(host: str) -> list[Any]:
    """What the operating system makes of an address: no name, so nobody is asked."""
    return socket.getaddrinfo(host, 1, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)


@pytest.mark.parametrize("text", [row[0] for row in READ if "://" in row[0]])
def test_clients_read_what_is_plain_as_it_is_read_here(text: str) -> None:
    assert_all_read_the_same(text)


PIECES: Final = st.sampled_from(
    ["http", "https", "://", ":", "/", "//", "@", "\\", "?", "#", ".", "%", "%2e", "%40", "[", "]",
     "::", "::1", "ffff", "127", "0x7f", "1", "0", "80", "443", "65536", "good", "evil.example",
     "-", "_", " ", "\t", "\n", "xn--", "a", "é", "\u212a", "。", "&", "=", ";", ",", "{", "~"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(PIECES, min_size=1, max_size=9).map("".join))
def test_whatever_is_taken_every_client_reads_the_same(text: str) -> None:
    try:
        destination(text)
    except ValueError:
        assume(condition=False)
    assert_all_read_the_same(text)


@given(st.lists(PIECES, max_size=6).map("".join), st.sampled_from(["/", "?", "#", ":", "@", "."]))
def test_nothing_appended_to_a_good_host_moves_it(rest: str, first: str) -> None:
    url = f"https://{GOOD}{first}{rest}"
    try:
        found = destination(url)
    except ValueError:
        return
    if found["host"] != GOOD:
        assert first == ".", "a longer name is another name"
    assert_all_read_the_same(url)
