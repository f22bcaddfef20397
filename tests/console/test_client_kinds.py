"""The console as a client of its provider: by a secret, by a key of its own, or by neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from broker.app import build
from broker.clock import SystemClock
from broker.errors import ConfigError
from tests.console.people import ConsoleWorld, console_config
from tests.issuers import IssuerKey

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.console.provider import Provider


def pem(private: Any) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def answered(
    stack: DevStack, provider: Provider, folder: Path, **section: Any
) -> httpx2.Response:
    """What a sign-in comes to, of somebody who may."""
    world = ConsoleWorld(stack, console_config(stack, provider, folder, **section), provider)
    await world.empty()
    answer = await world.browser().sign_in()
    await world.close()
    return answer


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_key_of_its_own(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path, algorithm: str
) -> None:
    key = IssuerKey.new(algorithm)
    file = tmp_path / "key.pem"
    file.write_bytes(pem(key.private))
    section: dict[str, Any] = {"client_secret_file": None, "client_key_file": str(file)}
    provider.client, provider.client_key = "key", key
    assert (await answered(engines[0], provider, tmp_path, **section)).status_code == 303
    assert "client_secret" not in provider.tokens[0]

    provider.client_key = IssuerKey.new(algorithm)
    refused = await answered(engines[0], provider, tmp_path, **section)
    assert refused.status_code == 403
    assert "refused the sign-in" in refused.text


async def test_a_public_client_has_pkce_alone(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path
) -> None:
    provider.client = "public"
    answer = await answered(engines[0], provider, tmp_path, client_secret_file=None)
    assert answer.status_code == 303
    assert provider.tokens[0].keys() >= {"client_id", "code_verifier"}
    assert "client_secret" not in provider.tokens[0]
    provider.client = "secret"
    answer = await answered(engines[0], provider, tmp_path, client_secret_file=None)
    assert answer.status_code == 403


async def test_a_secret_of_any_letters(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path
) -> None:
    file = tmp_path / "odd-secret"
    provider.client_secret = "a:b%2B c+d/é\u20ac"
    file.write_text(f"{provider.client_secret}\n", "utf-8")
    answer = await answered(engines[0], provider, tmp_path, client_secret_file=str(file))
    assert answer.status_code == 303
    file.write_text("another", "utf-8")
    answer = await answered(engines[0], provider, tmp_path, client_secret_file=str(file))
    assert answer.status_code == 403


NO_KEYS: dict[str, bytes] = {
    "P-384": pem(ec.generate_private_key(ec.SECP384R1())),
    "Ed25519": pem(IssuerKey.new("EdDSA").private),
    "RSA of 1024 bits": pem(IssuerKey.new("RS256", bits=1024).private),
    "a public key": IssuerKey.new("ES256")
    .private.public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "one with a password": ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary")
    ),
    "a secret": b"canary-not-a-key",
    "a JWK of a secret": b'{"kty":"oct","k":"Y2FuYXJ5"}',
}


@pytest.mark.filterwarnings("ignore:Key size should be")
@pytest.mark.parametrize("kind", NO_KEYS)
async def test_what_is_no_key_is_said_at_the_start(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(NO_KEYS[kind])
    section: dict[str, Any] = {"client_secret_file": None, "client_key_file": str(file)}
    config = console_config(engines[0], provider, tmp_path, **section)
    with pytest.raises(ConfigError, match=r"client_key_file .*key\.pem: no private key") as caught:
        build(config, clock=SystemClock())
    assert "canary" not in caught.value.detail
    assert "EC key" in caught.value.detail


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"], ids=repr)
async def test_what_is_no_secret_is_said_at_the_start(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "odd-secret"
    file.write_bytes(content)
    config = console_config(engines[0], provider, tmp_path, client_secret_file=str(file))
    with pytest.raises(ConfigError, match="odd-secret"):
        build(config, clock=SystemClock())
