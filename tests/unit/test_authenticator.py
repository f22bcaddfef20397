"""Who answers for a proof: one issuer, one trust domain, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError, InvalidToken, Unavailable
from broker.identity.authenticator import Authenticator
from tests.issuers import IssuerKey
from tests.svids import Authority
from tests.unit import oidc_world
from tests.unit.spiffe_world import (
    AUDIENCE,
    KEY,
    ME,
    ROOT,
    TD,
    Published,
    claims,
    domain_with,
)

if TYPE_CHECKING:
    from broker.identity.spiffe import TrustDomain

OTHER_KEY = IssuerKey.new(kid="jwt-1")
OTHER_ROOT = Authority.root()
OTHER_TD = "other.example.com"
OTHER = f"spiffe://{OTHER_TD}/agent/report-writer"
BROKER = "https://the-broker.example"


def other(source: Published | None = None) -> TrustDomain:
    return domain_with(OTHER_KEY, OTHER_ROOT, source=source, name="other", trust_domain=OTHER_TD)


def authenticator() -> Authenticator:
    return Authenticator(
        [oidc_world.issuer_with(oidc_world.KEY)], [domain_with(KEY, ROOT), other()]
    )


async def test_each_answers_for_its_own() -> None:
    asked = authenticator()
    found = [
        await asked.authenticate(oidc_world.KEY.sign(oidc_world.claims())),
        await asked.authenticate(KEY.sign(claims())),
        await asked.authenticate(OTHER_KEY.sign(claims(sub=OTHER))),
        await asked.authenticate_certificate([ROOT.svid(ME)]),
        await asked.authenticate_certificate([OTHER_ROOT.svid(OTHER)]),
        await asked.authenticate_svid(KEY.sign(claims(aud=BROKER)), BROKER),
    ]
    assert [(identity.issuer_name, identity.method) for identity in found] == [
        ("ci", "jwt"),
        ("prod", "jwt-svid"),
        ("other", "jwt-svid"),
        ("prod", "x509-svid"),
        ("other", "x509-svid"),
        ("prod", "jwt-svid"),
    ]
    await asked.aclose()


async def test_trust_domains_do_not_answer_for_each_other() -> None:
    asked = authenticator()
    for token in (KEY.sign(claims(sub=OTHER)), OTHER_KEY.sign(claims())):
        with pytest.raises(InvalidToken, match="signature"):
            await asked.authenticate(token)
        with pytest.raises(InvalidToken, match="signature"):
            await asked.authenticate_svid(token, AUDIENCE)
    for chain in ([ROOT.svid(OTHER)], [OTHER_ROOT.svid(ME)], [ROOT.svid(OTHER), OTHER_ROOT.der]):
        with pytest.raises(InvalidToken, match="no valid chain"):
            await asked.authenticate_certificate(chain)


async def test_an_issuer_answers_for_its_tokens_whatever_their_subject() -> None:
    """Neither of the two can speak in the other's name."""
    asked = authenticator()
    spoken = await asked.authenticate(oidc_world.KEY.sign(oidc_world.claims(sub=ME)))
    assert (spoken.issuer_name, spoken.subject) == ("ci", ME)
    for token in (
        KEY.sign(claims(iss=oidc_world.ISSUER, aud="broker")),
        oidc_world.KEY.sign(claims()),
        oidc_world.KEY.sign(oidc_world.claims(sub=ME, iss=f"spiffe://{TD}", aud=AUDIENCE)),
    ):
        with pytest.raises(InvalidToken):
            await asked.authenticate(token)


async def test_an_svid_may_name_an_issuer_that_nobody_configured() -> None:
    token = KEY.sign(claims(iss="https://oidc.spire.example"))
    assert (await authenticator().authenticate(token)).subject == ME


@pytest.mark.parametrize(
    "subject",
    [
        "spiffe://unknown.example/a",
        f"SPIFFE://{TD}/a",
        f"spiffe://{TD}/a//b",
        TD,
        None,
        1,
        [ME],
        {},
    ],
)
async def test_nobody_answers_for_an_unknown_subject(subject: object) -> None:
    asked, token = authenticator(), KEY.sign(claims(sub=subject))
    with pytest.raises(InvalidToken, match="not configured"):
        await asked.authenticate(token)
    with pytest.raises(InvalidToken, match="not configured"):
        await asked.authenticate_svid(token, AUDIENCE)


async def test_only_an_svid_for_this_alone_is_an_assertion() -> None:
    asked = authenticator()
    for token in (
        KEY.sign(claims(aud=[BROKER, AUDIENCE])),
        KEY.sign(claims(aud=AUDIENCE)),
        KEY.sign(claims(aud=f"{BROKER}/oauth/token")),
        KEY.sign(claims(aud=None)),
        oidc_world.KEY.sign(oidc_world.claims(aud=BROKER)),
        "not a token",
    ):
        with pytest.raises(InvalidToken):
            await asked.authenticate_svid(token, BROKER)


async def test_nobody_answers_for_a_certificate_of_an_unknown_trust_domain() -> None:
    with pytest.raises(InvalidToken, match="not configured here"):
        await authenticator().authenticate_certificate([ROOT.svid("spiffe://unknown.example/a")])
    with pytest.raises(InvalidToken, match="not configured here"):
        await Authenticator([]).authenticate_certificate([ROOT.svid(ME)])


@given(st.text())
async def test_noise_proves_nobody(token: str) -> None:
    with pytest.raises(InvalidToken):
        await authenticator().authenticate(token)
    with pytest.raises(InvalidToken):
        await authenticator().authenticate_svid(token, AUDIENCE)


async def test_the_authorities_of_all_trust_domains() -> None:
    assert await authenticator().certificate_authorities() == (ROOT.der, OTHER_ROOT.der)
    assert await Authenticator([]).certificate_authorities() == ()


async def test_a_bundle_that_cannot_be_had_adds_no_authority() -> None:
    down = Published()
    down.document = None
    asked = Authenticator(
        [],
        [
            other(down),
            domain_with(ROOT),
        ],
    )
    assert await asked.certificate_authorities() == (ROOT.der,)
    with pytest.raises(Unavailable):
        await asked.authenticate_certificate([OTHER_ROOT.svid(OTHER)])
    # It stands in nobody else's way.
    assert (await asked.authenticate_certificate([ROOT.svid(ME)])).subject == ME


def test_names_and_trust_domains_are_unique() -> None:
    issuer = oidc_world.issuer_with(oidc_world.KEY)
    with pytest.raises(ConfigError, match="twice"):
        Authenticator([issuer], [domain_with(name="ci")])
    for second in (domain_with(name="b"), domain_with(trust_domain="b.example")):
        with pytest.raises(ConfigError, match="twice"):
            Authenticator([], [domain_with(), second])
