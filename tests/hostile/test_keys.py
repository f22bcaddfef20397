"""Hostile and broken keys, wherever keys come from: an issuer, a bundle, a client, a sender."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jwt.algorithms
import pytest

from broker.catalog import Principal
from broker.errors import InvalidDpopProof, InvalidToken
from broker.identity.assertions import ClientKeys
from broker.identity.dpop import verify_proof
from broker.identity.jwk import MAX_KEYS, MAX_TRIES, UnusableKey, parse_key, parse_key_set
from broker.identity.jws import parse
from broker.identity.models import WORKLOAD_ALGORITHMS, IssuerSettings, Role, TrustDomainSettings
from broker.identity.oidc import JwtIssuer
from broker.identity.spiffe import TrustDomain
from tests.clocks import ManualClock
from tests.hostile.keys import EC, ED25519, P384, RSA, BadKey, bad_keys
from tests.hostile.vectors import changed
from tests.hostile.verifiers import BROKER, ISSUER, NOW, PROOF_URL, TRUST_DOMAIN, Published
from tests.issuers import IssuerKey, jwks, segment
from tests.svids import bundle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BAD: Final = {bad.id: bad for bad in bad_keys()}
FINE: Final = IssuerKey.new(kid="fine")
GOOD: Final = (EC, RSA, P384, ED25519)
TIMES: Final = {"iat": NOW, "exp": NOW + 60}
SVID: Final = {"sub": f"spiffe://{TRUST_DOMAIN}/a", "aud": "broker", **TIMES}
CLAIMS: Final = {
    "issuer": {"iss": ISSUER, "sub": "a", "aud": "broker", **TIMES},
    "bundle": SVID,
    "client": {"iss": "tickets", "sub": "tickets", "aud": BROKER, "jti": "j", **TIMES},
    "sender": {"jti": "j", "htm": "POST", "htu": PROOF_URL, "iat": NOW},
}


def issuer(*keys: IssuerKey | dict[str, Any]) -> Callable[[str], Awaitable[object]]:
    settings = IssuerSettings(
        name="ci",
        issuer=ISSUER,
        audience="broker",
        algorithms=tuple(WORKLOAD_ALGORITHMS),
        jwks_file=Path("unread"),
    )
    return JwtIssuer(settings, ManualClock(), Published(jwks(*keys))).verify


def trust_domain(*keys: IssuerKey | dict[str, Any]) -> Callable[[str], Awaitable[object]]:
    settings = TrustDomainSettings(
        name="prod", trust_domain=TRUST_DOMAIN, audience="broker", bundle_file=Path("unread")
    )
    members = [key.jwk() if isinstance(key, IssuerKey) else key for key in keys]
    marked = [{**m, "use": "jwt-svid"} if m.get("use") == "sig" else m for m in members]
    domain = TrustDomain(settings, ManualClock(), Published(bundle(*marked)))

    async def verify(token: str) -> object:
        return await domain.verify_parsed(parse(token))

    return verify


def client(*keys: IssuerKey | dict[str, Any]) -> Callable[[str], Awaitable[object]]:
    who = Principal(
        name="tickets", role=Role.AGENT, owner="you@example.com", jwks=jwks(*keys).decode()
    )
    known = ClientKeys(BROKER, ManualClock())

    async def verify(token: str) -> object:
        return await known.verify_assertion(parse(token), who)

    return verify


PUBLISHERS: Final = {"issuer": issuer, "bundle": trust_domain, "client": client}


def token_by(key: IssuerKey, publisher: str, **header: object) -> str:
    return key.sign(CLAIMS[publisher], **header)


def forged(bad: BadKey, publisher: str, **header: object) -> str:
    head = changed({"alg": bad.algorithm, "kid": bad.jwk.get("kid")}, **header)
    if not isinstance(head["kid"], str) or not 0 < len(head["kid"]) <= 256:
        del head["kid"]
    text = f"{segment(head)}.{segment(CLAIMS[publisher])}"
    return f"{text}.{segment(bad.sign(text))}"


@pytest.mark.parametrize("publisher", PUBLISHERS)
async def test_good_keys_are_used(publisher: str) -> None:
    for key in GOOD[: 3 if publisher == "bundle" else 4]:  # a JWT-SVID isn't signed by Ed25519
        assert await PUBLISHERS[publisher](key)(token_by(key, publisher))
        assert await PUBLISHERS[publisher](*GOOD)(token_by(key, publisher))


@pytest.mark.parametrize("publisher", PUBLISHERS)
async def test_bad_keys_verify_nothing_and_spoil_nothing(publisher: str) -> None:
    accepted: list[str] = []
    for bad in BAD.values():
        verify = PUBLISHERS[publisher](bad.jwk, FINE)
        for token in (forged(bad, publisher), forged(bad, publisher, kid="no-such")):
            try:
                await verify(token)
            except InvalidToken:
                continue
            accepted.append(bad.id)
        assert await verify(token_by(FINE, publisher)), bad.id

    assert not accepted


@pytest.mark.parametrize("bad", BAD)
def test_bad_keys_are_left_out_and_not_repeated(bad: str) -> None:
    jwk = BAD[bad].jwk
    if BAD[bad].readable:
        assert parse_key(jwk)
        return

    with pytest.raises(UnusableKey) as caught:
        parse_key(jwk)

    for value in (jwk.get("d"), jwk.get("x"), jwk.get("n")):
        assert not (isinstance(value, str) and len(value) > 8 and value in str(caught.value))


async def test_a_proof_is_not_made_by_a_bad_key() -> None:
    accepted: list[str] = []
    for bad in BAD.values():
        head = {"typ": "dpop+jwt", "alg": bad.algorithm, "jwk": bad.jwk}
        text = f"{segment(head)}.{segment(CLAIMS['sender'])}"
        token = f"{text}.{segment(bad.sign(text))}"
        try:
            verify_proof(
                token, method="POST", url=PROOF_URL, now=NOW, window_s=60, access_token=None
            )
        except InvalidDpopProof:
            continue
        accepted.append(bad.id)

    # What a sender's key is called is no matter: no thumbprint has it in it.
    assert not accepted


@pytest.mark.parametrize("publisher", PUBLISHERS)
async def test_two_keys_of_one_name_are_both_tried_and_no_third(publisher: str) -> None:
    first, second, third = (IssuerKey.new(kid="same") for _ in range(3))
    other_kind = IssuerKey("RS256", "same", RSA.private)
    verify = PUBLISHERS[publisher](first, second, other_kind)

    for key in (first, second, other_kind):
        assert await verify(token_by(key, publisher))
    for token in (token_by(third, publisher), token_by(second, publisher, kid="other")):
        with pytest.raises(InvalidToken):
            await verify(token)


@pytest.mark.parametrize("publisher", PUBLISHERS)
async def test_a_token_is_held_to_the_key_it_names(publisher: str) -> None:
    first, second = IssuerKey.new(kid="one"), IssuerKey.new(kid="two")
    verify = PUBLISHERS[publisher](first, second)

    assert await verify(token_by(first, publisher, kid=None))
    assert await verify(token_by(second, publisher, kid=None))
    for key, kid in ((first, "two"), (second, "one"), (first, "ONE"), (first, "one ")):
        with pytest.raises(InvalidToken):
            await verify(token_by(key, publisher, kid=kid))


@pytest.mark.parametrize("publisher", PUBLISHERS)
@pytest.mark.parametrize("named", ["all-the-same", "not-at-all"])
async def test_very_many_keys_cost_a_bounded_number_of_checks(
    publisher: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    real = jwt.algorithms.ECAlgorithm.verify

    def counted(itself: Any, *arguments: Any) -> bool:
        made.append(itself)
        return real(itself, *arguments)

    monkeypatch.setattr(jwt.algorithms.ECAlgorithm, "verify", counted)
    kid = "same" if named == "all-the-same" else None
    keys = [changed(EC.jwk(), kid=kid or f"k{n}") for n in range(MAX_KEYS)]
    verify = PUBLISHERS[publisher](*keys)

    for _ in range(3):
        made.clear()
        with pytest.raises(InvalidToken):
            await verify(token_by(IssuerKey.new(), publisher, kid=kid))
        # Twice: an issuer may have rotated, and its keys are then the ones just fetched.
        assert 1 <= len(made) <= 2 * MAX_TRIES


def test_a_set_with_bad_keys_says_which_and_why() -> None:
    found = parse_key_set(jwks(*[b.jwk for b in BAD.values() if not b.readable][:100], EC))

    assert (len(found), len(found.unusable)) == (1, 100)
    assert all(f"key {n}: " in why for n, why in enumerate(found.unusable))
