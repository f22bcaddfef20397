"""How the configuration says that the broker serves https, and which proxies it believes."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from broker.config import parse_config
from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config import Config

SMALLEST = """\
broker.issuer = "{scheme}://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
"""
TLS = 'tls = { cert_file = "tls.crt", key_file = "tls.key" }'


def parse(folder: Path, *lines: str, scheme: str = "https") -> Config:
    for name in ("tls.crt", "tls.key"):
        (folder / name).touch(mode=0o600)
    text = SMALLEST.format(scheme=scheme) + "".join(f"{line}\n" for line in lines)
    return parse_config(text, folder / "config.toml")


def test_tls_is_optional(tmp_path: Path) -> None:
    assert parse(tmp_path).tls is None
    assert parse(tmp_path).broker.trusted_proxies == ()


def test_the_files_are_beside_the_configuration(tmp_path: Path) -> None:
    tls = parse(tmp_path, TLS).tls
    assert tls is not None
    assert (tls.cert_file, tls.key_file) == (tmp_path / "tls.crt", tmp_path / "tls.key")
    assert tls.client_certificates is False


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ('tls = { cert_file = "tls.crt" }', "tls.key_file", "is missing"),
        ('tls = { cert_file = "none", key_file = "tls.key" }', "tls.cert_file", "there is no file"),
        ('tls = { cert_file = ".", key_file = "tls.key" }', "tls.cert_file", "is not a file"),
        (TLS.replace("}", ', client_certificates = "yes" }'), "tls", "must be true or false"),
        (TLS.replace("}", ", ca_file = 'x' }"), "tls.ca_file", "unknown key"),
    ],
)
def test_what_is_refused(line: str, key: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, line)
    assert key in caught.value.detail
    assert said in caught.value.detail


def test_an_http_name_is_no_use_with_tls(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no use with an http issuer"):
        parse(tmp_path, TLS, scheme="http")


def test_proxies(tmp_path: Path) -> None:
    written = '["10.0.3.7", "10.1.0.0/16", "2001:db8::/32", "::1"]'
    found = parse(tmp_path, f"broker.trusted_proxies = {written}").broker.trusted_proxies
    expected = ("10.0.3.7/32", "10.1.0.0/16", "2001:db8::/32", "::1/128")
    assert found == tuple(map(ip_network, expected))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('["0.0.0.0/0"]', "is everybody"),
        ('["::/0"]', "is everybody"),
        ('["10.0.0.1/8"]', 'write "10.0.0.0/8"'),
        ('["proxy.example"]', "is not an address or a network"),
        ('["10.0.0.0/33"]', "is not an address or a network"),
        ('["10.0.0"]', "is not an address or a network"),
        ('["10.0.0.1:443"]', "is not an address or a network"),
        ('["*"]', "is not an address or a network"),
        ('[""]', "is not an address or a network"),
        ("[167772160]", "must be an address in quotes, not an integer"),
        ("[true]", "must be an address in quotes, not a boolean"),
        ('"10.0.0.1"', "must be an array"),
    ],
)
def test_proxies_that_are_refused(value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, f"broker.trusted_proxies = {value}")
    assert "broker.trusted_proxies" in caught.value.detail
    assert said in caught.value.detail
