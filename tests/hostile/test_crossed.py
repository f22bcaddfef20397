"""Tokens where they don't belong: of one issuer as another's, of one kind as another kind.

One RSA key signs for all of them here, so that it is never the key that tells them apart.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.errors import AuthenticationError, InvalidToken
from broker.identity.authenticator import Authenticator
from broker.identity.models import IssuerSettings
from broker.identity.oidc import JwtIssuer
from broker.introspection import INTROSPECTION_TYPE
from broker.tokens import Tokens
from tests.clocks import ManualClock
from tests.hostile.vectors import ABSENT, Good, changed
from tests.hostile.verifiers import (
    BROKER,
    CLIENT,
    ISSUER,
    KEY,
    NOW,
    OTHER_ISSUER,
    OTHER_KEY,
    RING,
    SVID_KEY,
    TRUST_DOMAIN,
    Counted,
    Published,
    Verifier,
    access,
    assertion,
    proof,
    svid,
    workload,
    workload_claims,
)
from tests.issuers import IssuerKey, jwks

if TYPE_CHECKING:
    from collections.abc import Mapping

RING_KEY: Final = next(key for key in RING.keys if key.algorithm.value == "ES256")
OURS: Final = IssuerKey("ES256", RING_KEY.kid, RING_KEY.private_key)
STRANGE: Final = IssuerKey.new(kid="k1")


KINDS: Final = {
    "workload": workload,
    "svid": svid,
    "access": access,
    "assertion": assertion,
    "proof": proof,
}
"""Each with its door; a workload's JWT and an SVID come in by the same one."""
SAME_DOOR: Final = {"workload", "svid"}


def by_rsa(verifier: Verifier) -> Good:
    assert verifier.good.rsa is not None
    return verifier.good.rsa


@pytest.mark.parametrize(
    ("kind", "door"),
    [
        (kind, door)
        for kind, door in itertools.permutations(KINDS, 2)
        if not {kind, door} <= SAME_DOOR
    ],
)
async def test_one_kind_never_passes_for_another(kind: str, door: str) -> None:
    """Neither as it is, nor with the other's key id, type or whole header."""
    token, other = by_rsa(KINDS[kind]()), by_rsa(KINDS[door]())
    verifier = KINDS[door]()
    assert await verifier.verify(other.token)

    headers: list[Mapping[str, Any]] = [
        token.head,
        {**token.head, "kid": other.head.get("kid", "x")},
        changed(token.head, kid=ABSENT),
        {**token.head, "typ": other.head["typ"]},
        changed(token.head, typ=ABSENT, kid=ABSENT),
        other.head,
    ]
    for header in headers:
        with pytest.raises(AuthenticationError):
            await verifier.verify(token.sign(header=header))


# ── issuers ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kid", [KEY.kid, OTHER_KEY.kid, None, SVID_KEY.kid])
async def test_an_issuer_speaks_for_no_other(kid: str | None) -> None:
    authenticator = Counted().authenticator
    others = {
        OTHER_ISSUER: (KEY, SVID_KEY, STRANGE),
        ISSUER: (OTHER_KEY, SVID_KEY, STRANGE),
        BROKER: (KEY, OTHER_KEY, OURS),
        f"spiffe://{TRUST_DOMAIN}": (KEY, OTHER_KEY, SVID_KEY),
    }
    for claimed, keys in others.items():
        for key in keys:
            with pytest.raises(InvalidToken):
                await authenticator.authenticate(key.sign(workload_claims(iss=claimed), kid=kid))


async def test_an_issuer_doesnt_rely_on_having_been_chosen_by_name() -> None:
    settings = IssuerSettings(
        name="ci", issuer=ISSUER, audience="broker", algorithms=("ES256",), discovery=True
    )
    issuer = JwtIssuer(settings, ManualClock(), Published(jwks(KEY)))

    assert await issuer.verify(KEY.sign(workload_claims()))
    for claimed in (OTHER_ISSUER, f"{ISSUER}/", [ISSUER], None, ABSENT):
        claims = changed(workload_claims(), iss=claimed)
        with pytest.raises(InvalidToken, match="another issuer"):
            await issuer.verify(KEY.sign(claims))


async def test_an_issuers_token_about_a_spiffe_id_is_the_issuers() -> None:
    """Whoever is trusted to name its own workloads doesn't name a trust domain's."""
    authenticator, name = Counted().authenticator, f"spiffe://{TRUST_DOMAIN}/agent/writer"
    claims = workload_claims(sub=name)

    found = await authenticator.authenticate(KEY.sign(claims))

    assert (found.issuer_name, found.issuer, found.subject) == ("ci", ISSUER, name)
    with pytest.raises(InvalidToken):
        await authenticator.authenticate(SVID_KEY.sign(claims))
    del claims["iss"]
    for key in (KEY, OTHER_KEY):
        with pytest.raises(InvalidToken):
            await authenticator.authenticate(key.sign(claims, kid=SVID_KEY.kid))
    proved = await authenticator.authenticate(SVID_KEY.sign(claims))
    assert (proved.issuer_name, proved.issuer) == ("prod", f"spiffe://{TRUST_DOMAIN}")


@pytest.mark.parametrize(
    "claimed",
    [
        "https://unheard.example",
        f"{ISSUER}/",
        ISSUER.upper(),
        f" {ISSUER}",
        None,
        7,
        [ISSUER],
        [ISSUER, OTHER_ISSUER],
        {ISSUER: ISSUER},
        "",
        ABSENT,
    ],
    ids=str,
)
async def test_nobody_is_asked_about_an_issuer_that_is_not_configured(claimed: object) -> None:
    counted = Counted()
    for key in (KEY, STRANGE):
        with pytest.raises(InvalidToken):
            await counted.authenticator.authenticate(
                key.sign(changed(workload_claims(), iss=claimed))
            )

    assert counted.requests() == 0


async def test_a_flood_of_forgeries_fetches_keys_once_more_and_no_oftener() -> None:
    counted = Counted()
    for number in range(300):
        with pytest.raises(InvalidToken):
            await counted.authenticator.authenticate(
                STRANGE.sign(workload_claims(), kid=f"k{number % 7}" if number % 2 else None)
            )

    assert counted.sources["ci"].fetched == 2
    assert counted.sources["other"].fetched == counted.sources["prod"].fetched == 0


# ── ours, and what looks like ours ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kid", [OURS.kid, KEY.kid, None], ids=["ours", "theirs", "none"])
@pytest.mark.parametrize("key", [KEY, SVID_KEY, STRANGE], ids=["ci", "prod", "stranger"])
async def test_a_trusted_issuer_does_not_imitate_us(key: IssuerKey, kid: str | None) -> None:
    """It says everything that a token of ours says; only the key isn't ours."""
    ours = access()
    forged = key.sign(ours.good.claims, typ="at+jwt", kid=kid)

    with pytest.raises(InvalidToken, match="not signed by this broker"):
        await ours.verify(forged)
    with pytest.raises(InvalidToken):
        await Counted().authenticator.authenticate(forged)


async def test_our_tokens_identify_nobody_even_where_we_are_an_issuer() -> None:
    """Only ``typ`` tells them from a workload's then: the keys, iss, sub and aud are right."""
    settings = IssuerSettings(
        name="us", issuer=BROKER, audience=BROKER, algorithms=("ES256", "RS256"), discovery=True
    )
    source = Published(jwks(*[dict(key.public) for key in RING.keys]))
    authenticator = Authenticator([JwtIssuer(settings, ManualClock(), source)])
    good = access().good

    assert await authenticator.authenticate(good.with_header(typ="JWT"))
    for typ in ("at+jwt", "application/at+jwt", "AT+JWT", INTROSPECTION_TYPE):
        with pytest.raises(InvalidToken, match="another type"):
            await authenticator.authenticate(good.with_header(typ=typ))


async def test_what_we_say_about_a_token_is_no_token() -> None:
    """RFC 9701 section 8.1: though our own key signed it, for a resource server."""
    tokens = Tokens(BROKER, RING, ManualClock())
    claims = access().good.claims
    inside = {"iss": BROKER, "aud": BROKER, "iat": NOW, "token_introspection": claims}

    for payload in (inside, claims, {**claims, **inside}):
        answer = tokens.sign(INTROSPECTION_TYPE, payload)
        with pytest.raises(InvalidToken, match="not an access token"):
            tokens.verify(answer, BROKER)
        with pytest.raises(AuthenticationError):
            await assertion().verify(answer)


async def test_a_token_of_ours_is_for_its_audience() -> None:
    tokens, good = Tokens(BROKER, RING, ManualClock()), access().good
    elsewhere = good.with_claims(aud=["https://orders.example", "https://billing.example"])

    assert tokens.verify(elsewhere, "https://orders.example")
    for audience in (BROKER, "https://orders.example/", "https://orders", "", "orders"):
        with pytest.raises(InvalidToken, match="audience"):
            tokens.verify(elsewhere, audience)


# ── clients ──────────────────────────────────────────────────────────────────────────────────────


async def test_an_svid_as_client_authentication_is_for_the_broker_alone() -> None:
    authenticator, good = Counted().authenticator, svid().good

    assert await authenticator.authenticate_svid(good.with_claims(aud=BROKER), BROKER)
    assert await authenticator.authenticate_svid(good.with_claims(aud=[BROKER]), BROKER)
    for aud in (
        "broker",
        ["broker", BROKER],
        [BROKER, "x"],
        [BROKER, BROKER],
        [],
        None,
        BROKER + "/",
    ):
        with pytest.raises(InvalidToken):
            await authenticator.authenticate_svid(good.with_claims(aud=aud), BROKER)
    # And then for nobody at the other door, where a workload presents itself.
    with pytest.raises(InvalidToken, match="audience"):
        await authenticator.authenticate(good.with_claims(aud=BROKER))


@pytest.mark.parametrize("kind", ["workload", "access", "assertion", "proof"])
async def test_nothing_else_is_an_svid(kind: str) -> None:
    authenticator, good = Counted().authenticator, by_rsa(KINDS[kind]())

    for token in (good.token, good.with_claims(aud=BROKER), good.with_header(typ=ABSENT)):
        with pytest.raises(InvalidToken):
            await authenticator.authenticate_svid(token, BROKER)


@pytest.mark.parametrize("name", ["gateway", "TICKETS", "tickets/", "tick\u0435ts"])
async def test_a_client_does_not_pass_for_another(name: str) -> None:
    """Though its own key signs what it says."""
    verifier = assertion()
    for changes in ({"iss": name}, {"sub": name}, {"iss": name, "sub": name}):
        with pytest.raises(InvalidToken):
            await verifier.verify(verifier.good.with_claims(**changes))

    assert verifier.good.claims["iss"] == CLIENT
