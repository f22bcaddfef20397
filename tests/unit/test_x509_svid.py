"""X.509-SVIDs: one is believed, and every chain that only looks like one is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidToken
from broker.identity.x509_svid import MAX_CERTIFICATES
from tests.svids import (
    CLIENT,
    LEAF_KEY,
    LEAF_USAGE,
    SERVER,
    Authority,
    Window,
    leaf_extensions,
    new_key,
    uris,
    usage,
)
from tests.unit.spiffe_world import KEY, ME, NOW, ROOT, TD, domain_with, refused_chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.svids import Extension, PrivateKey

RSA_1024 = rsa.generate_private_key(65537, 1024)  # noqa: S505  what is to be refused
RSA_2048 = rsa.generate_private_key(65537, 2048)
MIDDLE = ROOT.intermediate()
GOOD = ROOT.svid(ME)
NO_CHAIN = "no valid chain"
CRITICAL = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


async def test_whom_an_x509_svid_proves() -> None:
    identity = await domain_with(KEY, ROOT).verify_certificate([GOOD])
    assert identity.issuer_name == "prod"
    assert identity.issuer == f"spiffe://{TD}"
    assert identity.subject == ME
    assert identity.method == "x509-svid"
    assert identity.expires_at == NOW + 3600
    assert not identity.claims


LEAVES: dict[str, list[Extension]] = {
    "no purposes": leaf_extensions(ME, purposes=None),
    "for clients only": leaf_extensions(ME, purposes=[CLIENT]),
    "no basic constraints": leaf_extensions(ME, ca=None),
    "agreement": leaf_extensions(
        ME, key_usage=usage(digital_signature=True, key_agreement=True, key_encipherment=True)
    ),
    "DNS names too": leaf_extensions(
        extra=[
            (
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName("a.example"),
                        x509.UniformResourceIdentifier(ME),
                        x509.DNSName("*.b.example"),
                    ]
                ),
                False,
            )
        ]
    ),
}


@pytest.mark.parametrize("form", LEAVES)
async def test_forms_that_a_leaf_may_have(form: str) -> None:
    chain = [ROOT.sign(LEAVES[form], subject="some name")]
    assert (await domain_with(ROOT).verify_certificate(chain)).subject == ME


@pytest.mark.parametrize(
    "key",
    [RSA_2048, ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1())],
    ids=["RSA", "P-384", "P-521"],
)
async def test_keys_that_are_used(key: PrivateKey) -> None:
    root = Authority.root("other", key)
    chain = [root.svid(ME, key=key)]
    assert (await domain_with(ROOT, root).verify_certificate(chain)).subject == ME


async def test_intermediates_in_any_order() -> None:
    lower = MIDDLE.intermediate("lower")
    leaf = lower.svid(ME)
    domain = domain_with(Authority.root(), ROOT)
    for others in ([lower.der, MIDDLE.der], [MIDDLE.der, lower.der], [MIDDLE.der, lower.der, GOOD]):
        assert (await domain.verify_certificate([leaf, *others])).subject == ME
    # An intermediate may be an authority itself: the chain ends there.
    assert (await domain_with(lower).verify_certificate([leaf])).subject == ME


# ── the leaf ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("extensions", "problem"),
    [
        (leaf_extensions(), "exactly one URI"),
        (leaf_extensions(ME, f"spiffe://{TD}/b"), "exactly one URI"),
        (leaf_extensions(ME, ME), "exactly one URI"),
        (leaf_extensions(ME, "https://x.example"), "exactly one URI"),
        (leaf_extensions(f"spiffe://{TD}"), "no workload"),
        (leaf_extensions(f"spiffe://{TD}/"), "not a SPIFFE ID"),
        (leaf_extensions(f"spiffe://{TD}/a/../b"), "not a SPIFFE ID"),
        (leaf_extensions(f"spiffe://{TD.upper()}/a"), "not a SPIFFE ID"),
        (leaf_extensions(f"spiffe://{TD}/%61"), "not a SPIFFE ID"),
        (leaf_extensions(f"https://{TD}/a"), "not a SPIFFE ID"),
        (leaf_extensions(f"spiffe://{TD}/{'a' * 2048}"), "not a SPIFFE ID"),
        (leaf_extensions("spiffe://other.example.com/a"), "another trust domain"),
        (leaf_extensions(ME, ca=True), "is a CA's"),
        (leaf_extensions(ME, key_usage=None), "not for signatures"),
        (leaf_extensions(ME, key_usage=usage(key_agreement=True)), "not for signatures"),
        (
            leaf_extensions(ME, key_usage=usage(digital_signature=True, key_cert_sign=True)),
            "may sign certificates",
        ),
        (
            leaf_extensions(ME, key_usage=usage(digital_signature=True, crl_sign=True)),
            "may sign certificates",
        ),
        (leaf_extensions(ME, purposes=[SERVER]), "not for clients"),
        (leaf_extensions(ME, extra=[(CRITICAL, True)]), NO_CHAIN),
    ],
)
async def test_leaves_that_prove_nobody(extensions: list[Extension], problem: str) -> None:
    assert problem in await refused_chain([ROOT.sign(extensions)])


async def test_a_uri_that_is_not_ascii() -> None:
    """Written as bytes, since no library makes one."""
    spoiled = GOOD.replace(b"report-writer", b"report-writ\xc3\xab")
    assert "not a SPIFFE ID" in await refused_chain([spoiled])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
async def test_a_serial_number_that_is_negative() -> None:
    serial = x509.load_der_x509_certificate(GOOD).serial_number
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")  # as DER has it: its sign first
    spoiled = GOOD.replace(number, b"\x80" + number[1:])
    with pytest.raises(InvalidToken, match="serial number"):
        await domain_with(ROOT).verify_certificate([spoiled])


@pytest.mark.parametrize(
    ("window", "problem"),
    [
        (Window(ends=-1), "has expired"),
        (Window(starts=1), "not valid yet"),
        (Window(ends=86_401), "more than 86400 seconds"),
    ],
)
async def test_a_leaf_at_the_wrong_time(window: Window, problem: str) -> None:
    assert problem in await refused_chain([ROOT.svid(ME, window)])


async def test_a_leaf_dated_back_may_live_as_long_as_any() -> None:
    chain = [ROOT.svid(ME, Window(starts=-600, ends=86_400))]
    assert (await domain_with(ROOT).verify_certificate(chain)).expires_at == NOW + 86_400


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (RSA_1024, "2048 to 4096 bits"),
        (rsa.generate_private_key(3, 2048), None),
        (ec.generate_private_key(ec.SECP256K1()), "type or curve"),
        (ec.generate_private_key(ec.SECP224R1()), "type or curve"),
        (ed25519.Ed25519PrivateKey.generate(), "type or curve"),
    ],
    ids=["RSA 1024", "RSA e=3", "secp256k1", "P-224", "Ed25519"],
)
async def test_keys_of_a_leaf(key: PrivateKey, problem: str | None) -> None:
    chain = [ROOT.svid(ME, key=key)]
    if problem is None:
        assert (await domain_with(ROOT).verify_certificate(chain)).subject == ME
    else:
        assert problem in await refused_chain(chain)


# ── the chain ────────────────────────────────────────────────────────────────────────────────────

SAME_NAME = Authority.root()
"""An authority that is called as ours."""

LEAF_AS_CA = Authority(
    x509.load_der_x509_certificate(ROOT.sign(leaf_extensions(f"spiffe://{TD}/b"), subject="leaf")),
    LEAF_KEY,
)
SHORT = Authority.root("short", path_length=0)


def below(authority: Authority) -> list[bytes]:
    return [authority.svid(ME), authority.der]


CHAINS: dict[str, Sequence[bytes]] = {
    "another authority of the same name": [SAME_NAME.svid(ME)],
    "brings its authority along": below(SAME_NAME),
    "intermediate of another": below(SAME_NAME.intermediate()),
    "intermediate missing": [MIDDLE.svid(ME)],
    "intermediate of the same name": [MIDDLE.svid(ME), ROOT.intermediate().der],
    "foreign between ours": [MIDDLE.svid(ME), SAME_NAME.intermediate(key=MIDDLE.key).der],
    "a leaf signs": below(LEAF_AS_CA),
    "intermediate is no CA": below(ROOT.intermediate(ca=False)),
    "intermediate may not sign": below(ROOT.intermediate(key_usage=LEAF_USAGE)),
    "intermediate expired": below(ROOT.intermediate(window=Window(ends=-1))),
    "intermediate to come": below(ROOT.intermediate(window=Window(starts=1))),
    "intermediate for servers": below(
        ROOT.intermediate(extra=[(x509.ExtendedKeyUsage([SERVER]), False)])
    ),
    "unknown critical extension": below(ROOT.intermediate(extra=[(CRITICAL, True)])),
    "constraint on URIs": below(
        ROOT.intermediate(
            extra=[(x509.NameConstraints(None, [x509.UniformResourceIdentifier(TD)]), True)]
        )
    ),
    "longer than the authority allows": below(SHORT.intermediate()),
    "longer than the intermediate allows": [
        *below((narrow := ROOT.intermediate(path_length=0)).intermediate("lower")),
        narrow.der,
    ],
    "signed by a weak key": [Authority.root("weak", RSA_1024).svid(ME)],
}


@pytest.mark.parametrize("form", CHAINS)
async def test_chains_that_lead_nowhere(form: str) -> None:
    weak = Authority.root("weak", RSA_1024)
    problem = await refused_chain(CHAINS[form], domain_with(ROOT, SHORT, weak))
    assert NO_CHAIN in problem


async def test_an_expired_authority_answers_for_nobody() -> None:
    old = ROOT.intermediate(window=Window(ends=-1))
    assert NO_CHAIN in await refused_chain([old.svid(ME)], domain_with(old))


@dataclass
class PublicHalf:
    """Of a key that would take long to generate: to be certified nothing else is needed."""

    key: rsa.RSAPublicKey

    def public_key(self) -> rsa.RSAPublicKey:
        return self.key


async def test_a_key_that_would_keep_us_busy() -> None:
    """OpenSSL bounds the exponent of long keys only."""
    numbers = RSA_2048.private_numbers()
    exponent = 2**1000 + 297
    while math.gcd(exponent, (numbers.p - 1) * (numbers.q - 1)) != 1:
        exponent += 2
    secret = pow(exponent, -1, math.lcm(numbers.p - 1, numbers.q - 1))
    key = rsa.RSAPrivateNumbers(
        numbers.p,
        numbers.q,
        secret,
        rsa.rsa_crt_dmp1(secret, numbers.p),
        rsa.rsa_crt_dmq1(secret, numbers.q),
        numbers.iqmp,
        rsa.RSAPublicNumbers(exponent, numbers.public_numbers.n),
    ).private_key()
    assert "exponent" in await refused_chain(below(ROOT.intermediate(key=key)))
    huge = PublicHalf(rsa.RSAPublicNumbers(65537, 1 << 4103 | 1).public_key())
    assert "4096 bits" in await refused_chain([ROOT.svid(ME, key=huge)])


async def test_a_weak_intermediate_is_refused() -> None:
    chain = below(ROOT.intermediate(key=RSA_1024))
    assert "2048 to 4096 bits" in await refused_chain(chain)


async def test_an_authority_of_one_trust_domain_names_nobody_in_another() -> None:
    foreign = Authority.root("foreign")
    theirs = domain_with(foreign, name="b", trust_domain="b.example")
    claims_ours, claims_theirs = foreign.svid(ME), ROOT.svid("spiffe://b.example/a")
    assert NO_CHAIN in await refused_chain([claims_ours])
    assert NO_CHAIN in await refused_chain([claims_theirs], theirs)
    assert "another trust domain" in await refused_chain([claims_ours], theirs)


async def test_a_bundle_without_authorities_proves_no_certificate() -> None:
    assert "no authority" in await refused_chain([GOOD], domain_with(KEY))
    assert "no authority" in await refused_chain([GOOD], domain_with())
    # The CA's key, published for tokens, signs no certificates.
    assert "no authority" in await refused_chain([GOOD], domain_with(ROOT.jwk(use="jwt-svid")))


# ── size and noise ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chain", [[], [GOOD] * (MAX_CERTIFICATES + 1)])
async def test_too_few_or_too_many(chain: list[bytes]) -> None:
    assert "1 to 8 certificates" in await refused_chain(chain)


async def test_the_longest_chain() -> None:
    lowest, above = MIDDLE, [MIDDLE.der]
    for number in range(MAX_CERTIFICATES - 2):
        lowest = lowest.intermediate(f"i{number}")
        above.append(lowest.der)
    chain = [lowest.svid(ME), *above]
    assert len(chain) == MAX_CERTIFICATES
    assert (await domain_with(ROOT).verify_certificate(chain)).subject == ME


@pytest.mark.parametrize(
    "certificate",
    [b"", b"x", GOOD[:-1], GOOD + b"\x00", b"-----BEGIN CERTIFICATE-----", b"\x30\x80\x00\x00"],
)
async def test_what_is_no_certificate(certificate: bytes) -> None:
    assert "can't be read" in await refused_chain([certificate])
    assert "can't be read" in await refused_chain([GOOD, certificate])


async def test_a_certificate_that_is_too_large() -> None:
    filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x" * 16_384)
    large = ROOT.sign(leaf_extensions(ME, extra=[(filler, False)]))
    assert "longer than 16384" in await refused_chain([large])


async def test_a_tangle_of_intermediates_is_given_up_soon() -> None:
    """Each could have signed each: there are more ways through than anyone should follow."""
    key = new_key()
    tangle = [Authority.root("tangle", key) for _ in range(MAX_CERTIFICATES - 1)]
    chain = [tangle[0].svid(ME), *(authority.der for authority in tangle)]
    assert NO_CHAIN in await refused_chain(chain)


DOMAIN: Any = domain_with(ROOT)


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
async def test_a_changed_certificate_proves_nobody(where: int, bit: int) -> None:
    spoiled = bytearray(GOOD)
    spoiled[where % len(spoiled)] ^= 1 << bit
    try:
        await DOMAIN.verify_certificate([bytes(spoiled)])
    except InvalidToken:
        return
    # How many bits of the signature are unused is said, and forgiven, outside what is signed.
    before, after = map(x509.load_der_x509_certificate, (GOOD, bytes(spoiled)))
    assert after.tbs_certificate_bytes == before.tbs_certificate_bytes


@given(st.lists(st.binary(max_size=64), max_size=9))
async def test_noise_proves_nobody(chain: list[bytes]) -> None:
    with pytest.raises(InvalidToken):
        await DOMAIN.verify_certificate(chain)


async def test_a_doubled_extension_is_not_read() -> None:
    """Two alternative names: which of them would be meant? No library makes one, so bytes do."""
    free, san = (x509.ObjectIdentifier(f"2.5.29.{last}") for last in (99, 17))
    other = x509.UnrecognizedExtension(free, uris(f"spiffe://{TD}/b").public_bytes())
    spoiled = ROOT.sign(leaf_extensions(ME, extra=[(other, False)]))
    assert san == x509.SubjectAlternativeName.oid
    doubled = spoiled.replace(b"\x55\x1d\x63", b"\x55\x1d\x11")
    assert "can't be read" in await refused_chain([doubled])
