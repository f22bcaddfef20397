"""JWT-SVIDs: one is believed, and everything like it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidToken
from broker.identity.jws import parse
from tests.issuers import IssuerKey, segment
from tests.unit.spiffe_world import (
    AUDIENCE,
    KEY,
    ME,
    NOW,
    ROOT,
    TD,
    claims,
    domain_with,
    refusal,
    verify,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from broker.identity.spiffe import TrustDomain

RSA = IssuerKey.new("RS256", "rsa")
KEYS = {
    "ES256": KEY,
    "ES384": IssuerKey.new("ES384", "es384"),
    "ES512": IssuerKey.new("ES512", "es512"),
    **{name: IssuerKey(name, "rsa", RSA.private) for name in ("RS256", "RS384", "RS512")},
    **{name: IssuerKey(name, "rsa", RSA.private) for name in ("PS256", "PS384", "PS512")},
}
OTHER = "spiffe://other.example.com"


async def test_who_a_jwt_svid_proves() -> None:
    identity = await verify(domain_with(KEY), KEY.sign(claims(team="reports")))
    assert identity.issuer_name == "prod"
    assert identity.issuer == f"spiffe://{TD}"
    assert identity.subject == ME
    assert identity.method == "jwt-svid"
    assert identity.expires_at == NOW + 300
    assert identity.claims["team"] == "reports"


@pytest.mark.parametrize("algorithm", sorted(KEYS))
async def test_every_algorithm_of_jwt_svids(algorithm: str) -> None:
    key = KEYS[algorithm]
    entry = key.jwk(use="jwt-svid", alg=None)
    assert (await verify(domain_with(entry), key.sign(claims()))).subject == ME


@pytest.mark.parametrize("typ", [None, "JWT", "JOSE"])
@pytest.mark.parametrize("aud", [AUDIENCE, [AUDIENCE], ["x", AUDIENCE]])
async def test_forms_that_a_jwt_svid_may_have(typ: str | None, aud: object) -> None:
    token = KEY.sign(claims(aud=aud, iat=None), typ=typ, kid=None)
    assert (await verify(domain_with(RSA, KEY), token)).subject == ME


async def test_a_jwt_svid_may_be_presented_again() -> None:
    domain, token = domain_with(KEY), KEY.sign(claims(jti="1"))
    assert await verify(domain, token) == await verify(domain, token)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sub": None}, "another trust domain"),
        ({"sub": ["x"]}, "another trust domain"),
        ({"sub": 1}, "another trust domain"),
        ({"sub": "agent/report-writer"}, "another trust domain"),
        ({"sub": f"{OTHER}/agent/x"}, "another trust domain"),
        ({"sub": f"spiffe://{TD}.evil.example/a"}, "another trust domain"),
        ({"sub": f"spiffe://x.{TD}/a"}, "another trust domain"),
        ({"sub": f"spiffe://{TD.upper()}/agent/x"}, "another trust domain"),
        ({"sub": f"spiffe://{TD}/a/../b"}, "another trust domain"),
        ({"sub": f"spiffe://{TD}/a?x"}, "another trust domain"),
        ({"sub": f"spiffe://{TD}:443/a"}, "another trust domain"),
        ({"sub": f"spiffe://u@{TD}/a"}, "another trust domain"),
        ({"sub": f"spiffe://{TD}/"}, "another trust domain"),
        ({"sub": f"spiffe://{TD}/{'a' * 2048}"}, "another trust domain"),
        ({"sub": f"spiffe://{TD}"}, "no workload in it"),
        ({"aud": None}, "aud is missing"),
        ({"aud": []}, "another audience"),
        ({"aud": ["other"]}, "another audience"),
        ({"aud": [AUDIENCE, 1]}, "not a list of texts"),
        ({"aud": AUDIENCE + "/"}, "another audience"),
        ({"exp": None}, "no exp"),
        ({"exp": NOW - 31}, "has expired"),
        ({"exp": str(NOW + 60)}, "not a valid date"),
        ({"exp": True}, "not a valid date"),
        ({"exp": NOW + 86_401, "iat": NOW}, "more than 86400 seconds"),
        ({"exp": NOW + 86_401, "iat": None}, "more than 86400 seconds"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"iat": NOW + 31}, "in the future"),
        ({"act": {"sub": "x"}}, "somebody else acts"),
    ],
)
async def test_claims_that_prove_nobody(changes: dict[str, Any], problem: str) -> None:
    assert problem in await refusal(KEY.sign(claims(**changes)))


async def test_clocks_may_differ_a_little() -> None:
    token = KEY.sign(claims(exp=NOW - 29, nbf=NOW + 29, iat=NOW + 29))
    assert (await verify(domain_with(KEY), token)).subject == ME
    assert "expired" in await refusal(token, domain_with(KEY, leeway_s=0))


@pytest.mark.parametrize("typ", ["jwt", "at+jwt", "dpop+jwt", "JWE", "application/jwt"])
async def test_tokens_of_another_type(typ: str) -> None:
    assert "another type" in await refusal(KEY.sign(claims(), typ=typ))


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_of_another_trust_domain_proves_nobody_here() -> None:
    """The wrong bundle has a key of the same id; each is asked for its own workloads only."""
    foreign = IssuerKey.new(kid="jwt-1")
    ours, theirs = domain_with(KEY), domain_with(foreign, name="b", trust_domain="b.example")
    assert "signature is wrong" in await refusal(foreign.sign(claims()), ours)
    assert "another trust domain" in await refusal(foreign.sign(claims()), theirs)
    assert "another trust domain" in await refusal(KEY.sign(claims()), theirs)


def x509_signer(kid: str | None) -> tuple[IssuerKey, dict[str, Any]]:
    """The key of a CA in the bundle, as if it were a signer of tokens, and the CA's entry."""
    private: EllipticCurvePrivateKey = ROOT.key  # pyright: ignore[reportAssignmentType]
    return IssuerKey("ES256", kid, private), ROOT.jwk(kid=kid)


@pytest.mark.parametrize("kid", [None, "ca"])
async def test_a_ca_signs_no_tokens(kid: str | None) -> None:
    signer, entry = x509_signer(kid)
    assert "no key" in await refusal(signer.sign(claims()), domain_with(KEY, entry))


@pytest.mark.parametrize("use", [None, "sig", "enc", "JWT-SVID", "wit-svid", "", 1, ["jwt-svid"]])
async def test_keys_for_another_use_sign_no_svid(use: object) -> None:
    domain = domain_with(KEY.jwk(use=use))
    assert "no key" in await refusal(KEY.sign(claims()), domain)


async def test_eddsa_is_not_for_svids() -> None:
    key = IssuerKey.new("EdDSA", "ed")
    domain = domain_with(key.jwk(use="jwt-svid"), KEY)
    assert "not one of JWT-SVIDs" in await refusal(key.sign(claims()), domain)


async def test_a_public_key_is_no_secret() -> None:
    """HS256 with the public key, ``none``, and a header that was changed."""
    good = KEY.sign(claims())
    body, signature = good.split(".")[1:]
    for algorithm in ("HS256", "none", "None", "ES256K", "A128KW"):
        forged = f"{segment({'alg': algorithm, 'kid': 'jwt-1'})}.{body}.{signature}"
        with pytest.raises(InvalidToken, match="algorithm"):
            parse(forged)
    swapped = f"{segment({'alg': 'RS256', 'kid': 'jwt-1'})}.{body}.{signature}"
    assert "signature is wrong" in await refusal(swapped)


@pytest.mark.parametrize(
    "header",
    [{"crit": ["exp"]}, {"jwk": KEY.jwk()}, {"jku": "https://x"}, {"x5c": ["x"]}, {"kid": "../k"}],
)
async def test_headers_choose_no_key(header: dict[str, object]) -> None:
    with pytest.raises(InvalidToken):
        await verify(domain_with(KEY), KEY.sign(claims(), **header))


async def test_a_weak_key_signs_nothing() -> None:
    weak = IssuerKey.new("RS256", "weak", bits=1024)
    assert "no key" in await refusal(weak.sign(claims()), domain_with(weak, KEY))


async def test_an_emptied_bundle_proves_nobody() -> None:
    assert "no key" in await refusal(KEY.sign(claims()), domain_with())


async def test_a_bundle_without_jwt_keys_proves_no_token() -> None:
    assert "no key" in await refusal(KEY.sign(claims()), domain_with(ROOT))


@given(changed=st.integers(0, 10_000), bit=st.integers(0, 7))
async def test_a_changed_token_proves_nobody(changed: int, bit: int) -> None:
    token = bytearray(TOKEN)
    token[changed % len(token)] ^= 1 << bit
    with pytest.raises(InvalidToken):
        await verify(DOMAIN, token.decode("latin-1"))


TOKEN = KEY.sign(claims()).encode()
DOMAIN: TrustDomain = domain_with(KEY, ROOT)


# ── the audience alone ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("aud", ["https://issuer.example", ["https://issuer.example"]])
async def test_an_assertion_for_one_audience(aud: object) -> None:
    jws = parse(KEY.sign(claims(aud=aud)))
    found = await domain_with(KEY).verify_parsed(jws, audience_alone="https://issuer.example")
    assert found.subject == ME


@pytest.mark.parametrize(
    "aud",
    [
        [AUDIENCE],
        ["https://issuer.example", AUDIENCE],
        ["https://issuer.example", "https://issuer.example"],
        ["https://issuer.example/"],
        "https://issuer.example/oauth/token",
        [],
        None,
        "",
        {"aud": 1},
    ],
)
async def test_an_assertion_for_others_too(aud: object) -> None:
    jws = parse(KEY.sign(claims(aud=aud)))
    with pytest.raises(InvalidToken, match="aud"):
        await domain_with(KEY).verify_parsed(jws, audience_alone="https://issuer.example")
