"""private_key_jwt: a client proves itself by its key, to this broker alone, for minutes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from authlib.oauth2.rfc7523 import (
    private_key_jwt_sign,  # pyright: ignore[reportUnknownVariableType]
)
from joserfc.jwk import ECKey

from broker.catalog import Principal
from broker.errors import InvalidToken, Unavailable
from broker.identity.assertions import ALGORITHMS, LEEWAY_S, MAX_ID_CHARS, Assertion, ClientKeys
from broker.identity.jws import parse
from broker.identity.models import Role
from broker.identity.rules import IdentityRule, Rule
from tests.clocks import ManualClock
from tests.issuers import IssuerKey, jwks, segment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ISSUER = "https://broker.example"
NAME = "tickets"
NOW = int(ManualClock().now())
KEY = IssuerKey.new()
OTHER = IssuerKey.new(kid="other")
RSA = IssuerKey.new("RS256", "rsa")
UNSIGNED_BY = "not signed with a key of its client, or there is no such client"


def client(*keys: IssuerKey, **fields: Any) -> Principal:
    """A principal with keys of its own."""
    values: dict[str, Any] = {"jwks": jwks(*keys).decode(), **fields}
    return Principal(name=NAME, role=Role.RESOURCE_SERVER, owner="you@example.com", **values)


CLIENT = client(KEY, RSA)


def claims(**changes: object) -> dict[str, object]:
    """Good claims; a change to None leaves one out."""
    values = {
        "iss": NAME,
        "sub": NAME,
        "aud": ISSUER,
        "iat": NOW,
        "exp": NOW + 60,
        "jti": "one",
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def signed(
    key: IssuerKey = KEY, header: Mapping[str, object] | None = None, **changes: object
) -> str:
    return key.sign(claims(**changes), **(header or {}))


async def verified(
    token: str, by: Principal | None = CLIENT, keys: ClientKeys | None = None
) -> Assertion:
    return await (keys or ClientKeys(ISSUER, ManualClock())).verify_assertion(parse(token), by)


async def refusal(token: str, by: Principal | None = CLIENT, keys: ClientKeys | None = None) -> str:
    with pytest.raises(InvalidToken) as caught:
        await verified(token, by, keys)
    return caught.value.detail


async def test_a_clients_assertion_says_what_to_remember() -> None:
    found = await verified(signed())

    assert (found.jti, found.expires_at) == ("one", NOW + 60)
    # Until a replica whose clock is behind by the leeway refuses it too.
    assert (60 + 2 * LEEWAY_S) * 1000 <= found.remember_ms <= (60 + 2 * LEEWAY_S) * 1000 + 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_algorithm_of_the_metadata_works(algorithm: str) -> None:
    key = (
        IssuerKey(algorithm, "rsa", RSA.private)
        if algorithm.startswith(("RS", "PS"))
        else IssuerKey.new(algorithm)
    )

    assert await verified(signed(key), client(key))


async def test_an_assertion_of_a_library_nobody_here_wrote() -> None:
    key = ECKey.generate_key("P-256", {"kid": "theirs"})
    by = client(jwks=json.dumps({"keys": [key.as_dict(private=False)]}))
    clock = ManualClock()
    made: str = cast("Any", private_key_jwt_sign)(
        key,
        client_id=NAME,
        token_endpoint=ISSUER,
        alg="ES256",
        issued_at=int(clock.now()),
        expires_in=300,
    )

    assert (await verified(made, by)).jti


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "client-authentication+jwt"])
async def test_types_that_say_what_it_is(typ: str | None) -> None:
    assert await verified(signed(header={"typ": typ}))


@pytest.mark.parametrize("typ", ["at+jwt", "dpop+jwt", "logout+jwt", "JOSE", "secevent+jwt"])
async def test_a_token_of_another_type_is_no_assertion(typ: str) -> None:
    assert "type" in await refusal(signed(header={"typ": typ}))


# ── who ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["iss", "sub"])
@pytest.mark.parametrize("value", [None, "", "another", 7, [NAME], "tickets ", "TICKETS", "\u202e"])
async def test_iss_and_sub_are_both_the_client(name: str, value: object) -> None:
    changed: dict[str, Any] = {name: value}
    assert await refusal(signed(**changed))


async def test_a_stranger_is_told_what_a_forger_is_told() -> None:
    """Nobody learns by asking who there is."""
    nobody = Principal(name=NAME, role=Role.AGENT, owner="you@example.com")
    by_rule = client(jwks="", identity=IdentityRule("ci", Rule(("agent/x",))))
    others = client(KEY, RSA)

    headers: list[dict[str, object]] = [{}, {"kid": None}, {"kid": "../../etc/passwd"}]
    for by in (None, nobody, by_rule, client(), client(OTHER), client(jwks="no JWK Set")):
        for header in headers:
            assert UNSIGNED_BY in await refusal(signed(header=header), by)
    assert UNSIGNED_BY in await refusal(signed(OTHER), others)
    assert UNSIGNED_BY in await refusal(signed(iss="stranger", sub="stranger"), others)


@pytest.mark.parametrize("key", [RSA, IssuerKey.new("ES512", "k1"), IssuerKey.new("EdDSA", "k1")])
async def test_a_stranger_has_no_key_of_any_kind(key: IssuerKey) -> None:
    assert UNSIGNED_BY in await refusal(signed(key, header={"kid": None}), None)


# ── for whom ─────────────────────────────────────────────────────────────────────────────────────


async def test_the_audience_may_be_a_list_of_one() -> None:
    assert await verified(signed(aud=[ISSUER]))


@pytest.mark.parametrize(
    "aud",
    [
        None,
        "",
        [],
        f"{ISSUER}/oauth/token",
        f"{ISSUER}/",
        ISSUER.upper(),
        [ISSUER, "https://another.example"],
        [ISSUER, ISSUER],
        [ISSUER, f"{ISSUER}/oauth/token"],
        {"aud": ISSUER},
        [[ISSUER]],
        7,
    ],
    ids=str,
)
async def test_the_audience_is_the_issuer_alone(aud: object) -> None:
    assert "aud" in await refusal(signed(aud=aud))


# ── when ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW + 300},
        {"exp": NOW + 300 + LEEWAY_S},
        {"exp": NOW + 1, "iat": None},
        {"exp": NOW - LEEWAY_S + 1},
        {"iat": NOW + LEEWAY_S, "exp": NOW + 300},
        {"nbf": NOW + LEEWAY_S},
        {"iat": NOW - 200, "exp": NOW + 100},
    ],
    ids=str,
)
async def test_assertions_of_now(changes: dict[str, Any]) -> None:
    assert await verified(signed(**changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": None}, "no exp"),
        ({"exp": str(NOW + 60)}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": -1}, "exp"),
        ({"exp": NOW - LEEWAY_S}, "expired"),
        ({"exp": NOW - 86_400}, "expired"),
        ({"exp": NOW + 301 + LEEWAY_S}, "more than 300"),
        ({"exp": NOW + 301 + LEEWAY_S, "iat": None}, "more than 300"),
        ({"exp": NOW + 86_400}, "more than 300"),
        # Made long ago, to be shown in its last minute.
        ({"iat": NOW - 86_400}, "more than 300"),
        ({"iat": NOW + LEEWAY_S + 1}, "in the future"),
        ({"nbf": NOW + LEEWAY_S + 1}, "not valid yet"),
        ({"iat": "now"}, "iat"),
        ({"nbf": []}, "nbf"),
    ],
    ids=str,
)
async def test_assertions_of_another_time(changes: dict[str, Any], why: str) -> None:
    assert why in await refusal(signed(**changes))


@pytest.mark.parametrize("jti", [None, "", 7, ["one"], "x" * (MAX_ID_CHARS + 1), "a\nb", "\0"])
async def test_an_assertion_has_an_id(jti: object) -> None:
    assert "jti" in await refusal(signed(jti=jti))


# ── the signature ────────────────────────────────────────────────────────────────────────────────


async def test_an_assertion_may_name_its_key_or_not() -> None:
    assert await verified(signed(header={"kid": None}))
    assert UNSIGNED_BY in await refusal(signed(header={"kid": "rsa"}))
    assert UNSIGNED_BY in await refusal(signed(header={"kid": "' OR 1=1 --"}))


async def test_forged_and_altered_assertions_are_refused() -> None:
    head, payload, signature = signed().split(".")
    _, later, _ = signed(exp=NOW + 100).split(".")

    for spoilt in ("", "AAAA", segment(bytes(64)), segment(b"x" * 63)):
        assert UNSIGNED_BY in await refusal(f"{head}.{payload}.{spoilt}")
    assert UNSIGNED_BY in await refusal(f"{head}.{later}.{signature}")
    assert UNSIGNED_BY in await refusal(signed(IssuerKey("PS256", "k1", RSA.private)))
    assert UNSIGNED_BY in await refusal(signed(RSA), client(KEY))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"jwk": KEY.jwk()},
        {"jku": "https://evil.example"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"], "exp": 1},
    ],
    ids=["none", "HS256", "jwk", "jku", "x5c", "crit"],
)
async def test_traps_in_the_header_are_refused(header: dict[str, object]) -> None:
    assert await refusal(signed(header=header))


@pytest.mark.parametrize("private", [{"d": "AAAA"}, {"use": "enc"}, {"alg": "ES384"}, {"crv": "x"}])
async def test_unfit_keys_verify_nothing(private: dict[str, object]) -> None:
    by = client(jwks=jwks(KEY.jwk(**private)).decode())

    assert UNSIGNED_BY in await refusal(signed(), by)


# ── keys in a file ───────────────────────────────────────────────────────────────────────────────


async def test_replacing_the_file_replaces_the_keys(tmp_path: Path) -> None:
    path, keys = tmp_path / "tickets.json", ClientKeys(ISSUER, ManualClock())
    by = client(jwks="", jwks_file=path)

    def publish(*published: IssuerKey) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(jwks(*published))
        fresh.replace(path)

    publish(KEY)
    assert await verified(signed(), by, keys)
    assert UNSIGNED_BY in await refusal(signed(OTHER), by, keys)
    publish(KEY, OTHER)
    assert await verified(signed(OTHER), by, keys)
    assert await verified(signed(), by, keys)
    publish(OTHER)
    assert UNSIGNED_BY in await refusal(signed(), by, keys)
    publish()
    assert UNSIGNED_BY in await refusal(signed(OTHER), by, keys)
    await keys.aclose()


async def test_keys_that_cannot_be_read_are_nobodys_fault(tmp_path: Path) -> None:
    path = tmp_path / "tickets.json"
    clock = ManualClock()
    keys, by = ClientKeys(ISSUER, clock), client(jwks="", jwks_file=path)

    with pytest.raises(Unavailable):
        await verified(signed(), by, keys)
    path.write_bytes(b"not a JWK Set")
    clock.advance(11)
    with pytest.raises(Unavailable):
        await verified(signed(), by, keys)
    path.write_bytes(jwks(KEY))
    clock.advance(11)
    assert await verified(signed(), by, keys)
    await keys.aclose()


async def test_keys_of_one_client_are_not_anothers(tmp_path: Path) -> None:
    keys = ClientKeys(ISSUER, ManualClock())
    (tmp_path / "a.json").write_bytes(jwks(KEY))
    (tmp_path / "b.json").write_bytes(jwks(OTHER))

    assert await verified(signed(), client(jwks="", jwks_file=tmp_path / "a.json"), keys)
    assert await refusal(signed(), client(jwks="", jwks_file=tmp_path / "b.json"), keys)
    await keys.aclose()
