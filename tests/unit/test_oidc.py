"""Every way a workload JWT can be wrong, each signed for real: algorithms, header, form."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError, InvalidToken
from broker.identity.jws import parse
from broker.identity.models import WORKLOAD_ALGORITHMS
from tests.issuers import IssuerKey, segment
from tests.unit.oidc_world import (
    ISSUER,
    KEY,
    NOW,
    RSA,
    claims,
    issuer_with,
    refusal,
    settings,
)


async def test_a_good_token_proves_an_identity() -> None:
    identity = await issuer_with(KEY).verify(KEY.sign(claims(pod="p1")))
    assert identity.issuer_name == "ci"
    assert identity.issuer == ISSUER
    assert identity.subject == "agent/report-writer"
    assert identity.method == "jwt"
    assert identity.expires_at == NOW + 600
    assert identity.claims["pod"] == "p1"
    assert "p1" not in repr(identity)


@pytest.mark.parametrize("algorithm", sorted(WORKLOAD_ALGORITHMS))
async def test_every_configurable_algorithm_verifies(algorithm: str) -> None:
    key = IssuerKey.new(algorithm)
    issuer = issuer_with(key, algorithms=(algorithm,))
    assert (await issuer.verify(key.sign(claims()))).subject == "agent/report-writer"


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "JOSE"])
async def test_types_of_a_plain_jwt_are_accepted(typ: str | None) -> None:
    await issuer_with(KEY).verify(KEY.sign(claims(), typ=typ))


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "dpop+jwt", "logout+jwt", "", 1])
async def test_other_kinds_of_token_are_refused(typ: object) -> None:
    await refusal(KEY.sign(claims(), typ=typ))


# ── algorithms ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
async def test_unsigned_tokens_are_refused(algorithm: str) -> None:
    head = segment({"alg": algorithm, "typ": "JWT"})
    assert "algorithm" in await refusal(f"{head}.{segment(claims())}.")
    assert "algorithm" in await refusal(KEY.sign(claims(), alg=algorithm))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_the_public_key_is_no_shared_secret(algorithm: str) -> None:
    public = RSA.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = segment({"alg": algorithm, "typ": "JWT", "kid": "rsa"})
    signing_input = f"{head}.{segment(claims())}"
    mac = hmac.new(pem, signing_input.encode(), getattr(hashlib, f"sha{algorithm[2:]}"))
    assert "algorithm" in await refusal(f"{signing_input}.{segment(mac.digest())}")


@pytest.mark.parametrize("algorithm", [None, 1, ["ES256"], {"ES256": 1}, True])
async def test_an_algorithm_is_a_text(algorithm: object) -> None:
    assert "algorithm" in await refusal(KEY.sign(claims(), alg=algorithm))


async def test_an_algorithm_not_configured_for_the_issuer_is_refused() -> None:
    key = IssuerKey.new("PS256")
    assert "not configured" in await refusal(key.sign(claims()), issuer_with(key))


async def test_a_key_verifies_only_by_its_own_algorithm() -> None:
    pss = IssuerKey("PS256", "rsa", RSA.private)
    declared = issuer_with(RSA.jwk(alg="RS256"), algorithms=("RS256", "PS256"))
    await declared.verify(RSA.sign(claims()))
    await refusal(pss.sign(claims()), declared)
    await issuer_with(RSA, algorithms=("RS256", "PS256")).verify(pss.sign(claims()))


async def test_a_wider_curve_is_not_mistaken_for_es256() -> None:
    wide = IssuerKey.new("ES384", "k1")
    await refusal(KEY.sign(claims()), issuer_with(wide))


async def test_weak_rsa_keys_verify_nothing() -> None:
    weak = IssuerKey.new("RS256", bits=1024)
    assert "no key" in await refusal(weak.sign(claims()), issuer_with(weak))


@pytest.mark.parametrize("algorithms", [("HS256",), ("none",), ("ES256", "HS256"), ("ES256K",), ()])
def test_symmetric_and_unknown_algorithms_cannot_be_configured(algorithms: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"'ci'.*choose from"):
        settings(algorithms=algorithms)


# ── header ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crit", ["exp"]),
        ("crit", []),
        ("b64", True),
        ("jku", f"{ISSUER}/jwks"),
        ("x5u", f"{ISSUER}/certificate"),
        ("x5c", ["MIIB"]),
        ("jwk", {}),
    ],
)
async def test_dangerous_headers_are_refused(name: str, value: object) -> None:
    await refusal(KEY.sign(claims(), **{name: value}))


async def test_an_embedded_key_is_not_used_to_verify() -> None:
    own = IssuerKey.new(kid="mine")
    assert "its own key" in await refusal(own.sign(claims(), jwk=own.jwk()))


@pytest.mark.parametrize("kid", [1, ["k1"], {"k1": 1}, "", "k" * 257])
async def test_a_kid_is_a_short_text(kid: object) -> None:
    assert "kid" in await refusal(KEY.sign(claims(), kid=kid))


async def test_a_token_without_kid_is_tried_with_the_keys_that_fit() -> None:
    others = [IssuerKey.new(kid=f"o{n}") for n in range(3)]
    token = KEY.sign(claims(), kid=None)
    await issuer_with(RSA, *others, KEY).verify(token)
    assert "no key" in await refusal(token, issuer_with(RSA, *others))


async def test_a_token_without_kid_is_tried_a_bounded_number_of_times() -> None:
    others = [IssuerKey.new(kid=f"o{n}") for n in range(16)]
    await refusal(KEY.sign(claims(), kid=None), issuer_with(*others, KEY))


async def test_a_token_is_held_to_the_key_it_names() -> None:
    other = IssuerKey.new(kid="k2")
    assert "wrong" in await refusal(KEY.sign(claims(), kid="k2"), issuer_with(KEY, other))


@pytest.mark.parametrize("document", [b"[]", b'"x"', b"1", b"{", b"\xff", b"[" * 9000])
async def test_header_and_payload_are_json_objects(document: bytes) -> None:
    _, payload, signature = KEY.sign(claims()).split(".")
    assert "header" in await refusal(f"{segment(document)}.{payload}.{signature}")
    assert "payload" in await refusal(KEY.sign(document))


@pytest.mark.parametrize(
    "document",
    [
        b'{"iss":"https://issuer.example","iss":"https://issuer.example"}',
        b'{"sub":"a\\ud800"}',
        b'{"exp":NaN}',
        b'{"exp":Infinity}',
        b'{"exp":1e999}',
        json.dumps({"sub": "a"}).encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"exp":' + b"9" * 5000 + b"}",
    ],
    ids=["repeated", "surrogate", "nan", "infinity", "overflow", "utf-16", "bom", "digits"],
)
async def test_ambiguous_json_is_refused(document: bytes) -> None:
    assert "not valid JSON" in await refusal(KEY.sign(document))


# ── malformed ────────────────────────────────────────────────────────────────────────────────────


async def test_only_three_part_compact_tokens_of_bounded_size_are_read() -> None:
    good = KEY.sign(claims())
    spoiled = ["", ".", "..", "...", "a.b.c", good + ".", "." + good, good + "=", f" {good}"]
    spoiled += [good.replace(".", ".\n", 1), good.replace("e", "\u0435", 1), good.rsplit(".", 1)[0]]
    for token in spoiled:
        await refusal(token)
    assert "longer" in await refusal(KEY.sign(claims(pad="x" * 16_384)))


async def test_the_unused_bits_of_the_last_character_carry_no_second_spelling() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    good = KEY.sign(claims())
    last = alphabet.index(good[-1])
    for bits in range(1, 16):
        assert "canonical" in await refusal(good[:-1] + alphabet[last ^ bits])


@given(data=st.data())
async def test_a_token_changed_anywhere_never_verifies(data: st.DataObject) -> None:
    good = KEY.sign(claims())
    position = data.draw(st.integers(0, len(good) - 1))
    replacement = data.draw(
        st.characters(max_codepoint=0x17F).filter(lambda c: c != good[position])
    )
    await refusal(good[:position] + replacement + good[position + 1 :])


@given(pad=st.text(max_size=20))
def test_a_token_taken_apart_can_be_put_together_again(pad: str) -> None:
    token = KEY.sign(claims(pad=pad))
    assert parse(token).compact == token


@given(token=st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
async def test_noise_is_refused_and_nothing_else_happens(token: str) -> None:
    await refusal(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    header=st.dictionaries(st.sampled_from(["typ", "kid", "crit", "jku", "x"]), JSON),
    changes=st.dictionaries(st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat"]), JSON),
)
async def test_signed_noise_is_refused_or_sound(
    header: dict[str, object], changes: dict[str, object]
) -> None:
    try:
        identity = await issuer_with(KEY).verify(KEY.sign(claims(**changes), **header))
    except InvalidToken:
        return
    assert identity.issuer == ISSUER
    assert identity.subject.isprintable()
    assert NOW - 30 < identity.expires_at <= NOW + 86_430


@given(data=st.data())
async def test_refusals_do_not_repeat_what_the_token_says(data: st.DataObject) -> None:
    canary = "canary-7f3a"
    name = data.draw(st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub"]))
    value = f"{canary}\n" if name == "sub" else canary
    assert canary not in await refusal(KEY.sign(claims(**{name: value})))
    assert canary not in await refusal(KEY.sign(claims(), typ=canary))
    assert canary not in await refusal(KEY.sign(claims(), kid=canary))
