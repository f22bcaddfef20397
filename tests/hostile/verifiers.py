"""Everything that verifies a JWS, each with a token it accepts, to be driven by all families."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.catalog import Principal
from broker.errors import InvalidDpopProof, InvalidToken
from broker.identity.assertions import ClientKeys
from broker.identity.authenticator import Authenticator
from broker.identity.dpop import verify_proof
from broker.identity.fetching import Fetcher
from broker.identity.jws import parse
from broker.identity.kubernetes import TokenReviewIssuer
from broker.identity.models import IssuerSettings, Role, TrustDomainSettings
from broker.identity.oidc import JwtIssuer
from broker.identity.spiffe import TrustDomain
from broker.keys import KeyRing
from broker.tokens import Tokens
from tests.clocks import ManualClock
from tests.hostile.claims import Date, Shape
from tests.hostile.vectors import Good
from tests.issuers import IssuerKey, jwks, segment
from tests.svids import bundle
from tests.workload_tokens import CLUSTER, kubernetes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NOW: Final = int(ManualClock().now())
ISSUER: Final = "https://issuer.example"
OTHER_ISSUER: Final = "https://other.example"
BROKER: Final = "https://broker.example"
TRUST_DOMAIN: Final = "prod.example"
CLIENT: Final = "tickets"
PROOF_URL: Final = f"{BROKER}/oauth/token"
ACCESS: Final = "header.payload.signature"
"""An access token as far as a DPoP proof is concerned."""

KEY: Final = IssuerKey.new(kid="k1")
RSA: Final = IssuerKey.new("RS256", "rsa")
OTHER_KEY: Final = IssuerKey.new(kid="other-1")
SVID_KEY: Final = IssuerKey.new(kid="svid-1")
CLUSTER_KEY: Final = IssuerKey.new(kid="cluster-1")
CLIENT_KEY: Final = IssuerKey.new(kid="client-1")
RING: Final = KeyRing([IssuerKey.new().private, RSA.private])
PUBLISHED: Final = (KEY, RSA.jwk(alg="RS256"))

DAY: Final = 86_400
WORKLOAD_DATES: Final = (
    Date("exp", (-29, 0, 600, DAY), (-30, -31, -DAY, DAY + 1, 10**9), required=True),
    Date("iat", (-600, 0, 29.5, 30), (30.5, 31, DAY, -DAY)),
    Date("nbf", (-(10**8), 0, 29.5, 30), (30.5, 31, 600, 10**9)),
)
PLAIN_TYPES: Final = frozenset[object]((None, "JWT", "jwt", "JOSE", "jose"))


class Published:
    """A source of keys that counts how often it is asked."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.fetched = 0

    def changed(self) -> bool:
        return False

    async def fetch(self) -> bytes:
        self.fetched += 1
        return self.document

    async def aclose(self) -> None:
        pass


class Believing(Fetcher):
    """Stands for an API server that believes every token, so that only what we check holds."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def post(self, url: str, document: object) -> bytes:
        review: Any = document
        self.asked.append(review["spec"]["token"])
        claims = kubernetes(now=NOW)
        uid = claims["kubernetes.io"]["serviceaccount"]["uid"]
        user = {"username": claims["sub"], "uid": uid}
        status = {"authenticated": True, "user": user, "audiences": review["spec"]["audiences"]}
        return json.dumps({**review, "status": status}).encode()


@dataclass
class Counted:
    """All issuers and a trust domain behind one authenticator, and what they were asked."""

    authenticator: Authenticator = field(init=False)
    sources: dict[str, Published] = field(init=False)
    api_server: Believing = field(default_factory=Believing)

    def __post_init__(self) -> None:
        clock = ManualClock()
        self.sources = {
            "ci": Published(jwks(*PUBLISHED)),
            "other": Published(jwks(OTHER_KEY)),
            "prod": Published(bundle(SVID_KEY, RSA.jwk(alg="RS256", use="jwt-svid"))),
        }
        issuers = (("ci", ISSUER), ("other", OTHER_ISSUER))
        self.authenticator = Authenticator(
            [
                *(
                    JwtIssuer(_issuer(name, url, jwks_url=f"{url}/jwks"), clock, self.sources[name])
                    for name, url in issuers
                ),
                TokenReviewIssuer(
                    _issuer(
                        "cluster",
                        CLUSTER,
                        token_review="https://kubernetes.default.svc",
                        token_file=Path("unread"),
                    ),
                    clock,
                    self.api_server,
                ),
            ],
            [
                TrustDomain(
                    TrustDomainSettings(
                        name="prod",
                        trust_domain=TRUST_DOMAIN,
                        audience="broker",
                        bundle_url="https://bundle.example",
                    ),
                    clock,
                    self.sources["prod"],
                )
            ],
        )

    def requests(self) -> int:
        """How often anybody else was asked for anything."""
        return sum(s.fetched for s in self.sources.values()) + len(self.api_server.asked)


@dataclass(frozen=True)
class Verifier:
    """One of the places where tokens come in.

    ``types`` are the values of ``typ`` it accepts. ``by_id`` says that it looks keys up by
    ``kid``, ``own_key`` that a token brings its key, ``signatures`` that it checks them itself.
    ``requests`` counts what it asks of others.
    """

    good: Good
    verify: Callable[[str], Awaitable[object]]
    shape: Shape
    types: frozenset[object] = PLAIN_TYPES
    refusal: type[Exception] = InvalidToken
    by_id: bool = True
    own_key: bool = False
    signatures: bool = True
    requests: Callable[[], int] = lambda: 0


def _issuer(name: str, url: str, **changes: Any) -> IssuerSettings:
    return IssuerSettings(
        name=name, issuer=url, audience="broker", algorithms=("ES256", "RS256"), **changes
    )


def good_with(
    key: IssuerKey, claims: dict[str, Any], typ: str | None = "JWT", rsa: IssuerKey | None = RSA
) -> Good:
    """A good token, and the same by the RSA key; without ``typ`` if that is None."""
    header = {} if typ is None else {"typ": typ}
    second = None if rsa is None else Good(rsa, {**header, "kid": rsa.kid}, claims)
    return Good(key, {**header, "kid": key.kid}, claims, second)


def workload_claims(**changes: object) -> dict[str, Any]:
    """What a workload of the issuer ``ci`` says."""
    good = {"iss": ISSUER, "sub": "agent/writer", "aud": "broker", "iat": NOW, "exp": NOW + 600}
    return {**good, **changes}


def workload() -> Verifier:
    """A workload's JWT, by an issuer whose keys are known."""
    counted = Counted()
    shape = Shape(texts=("sub",), exact=("iss",), dates=WORKLOAD_DATES, forbidden=("act",))
    good = good_with(KEY, workload_claims())
    return Verifier(good, counted.authenticator.authenticate, shape, requests=counted.requests)


def svid() -> Verifier:
    """A JWT-SVID."""
    counted = Counted()
    claims = workload_claims(sub=f"spiffe://{TRUST_DOMAIN}/agent/writer", aud=["broker"])
    del claims["iss"]
    odd = (
        f"spiffe://{TRUST_DOMAIN}",
        f"spiffe://{TRUST_DOMAIN}/",
        f"spiffe://{TRUST_DOMAIN}//agent",
        f"spiffe://{TRUST_DOMAIN}/../agent",
        f"spiffe://{TRUST_DOMAIN}/agent?x",
        f"spiffe://{TRUST_DOMAIN}/agent#x",
        f"spiffe://{TRUST_DOMAIN}:443/agent",
        f"spiffe://x@{TRUST_DOMAIN}/agent",
        f"spiffe://{TRUST_DOMAIN}.evil.example/agent",
        f"spiffe://{TRUST_DOMAIN.upper()}/agent",
        f"spiffe://evil.example/{TRUST_DOMAIN}/agent",
        f"https://{TRUST_DOMAIN}/agent",
        f"SPIFFE-{TRUST_DOMAIN}",
        "spiffe:///agent",
        "agent/writer",
    )
    shape = Shape(texts=("sub",), dates=WORKLOAD_DATES, forbidden=("act",), odd=(("sub", odd),))
    types = frozenset[object]((None, "JWT", "JOSE"))
    good = good_with(SVID_KEY, claims)
    verify = counted.authenticator.authenticate
    return Verifier(good, verify, shape, types, requests=counted.requests)


def reviewed() -> Verifier:
    """A Kubernetes service account's token: what is refused before an API server is asked."""
    counted = Counted()
    good = good_with(CLUSTER_KEY, kubernetes(now=NOW), typ=None, rsa=None)
    foreign: tuple[Any, ...] = (None, "", 7, [], {}, "system:serviceaccount:agents:other", "x")
    elsewhere = {"namespace": "kube-system"}
    pods: tuple[Any, ...] = (elsewhere, {"serviceaccount": {"name": "other"}})
    shape = Shape(
        exact=("iss",),
        dates=WORKLOAD_DATES,
        forbidden=("act",),
        odd=(("sub", foreign), ("kubernetes.io", pods)),
    )
    verify, requests = counted.authenticator.authenticate, counted.requests
    return Verifier(good, verify, shape, requests=requests, by_id=False, signatures=False)


def access() -> Verifier:
    """An access token of ours."""
    tokens = Tokens(BROKER, RING, ManualClock())
    ours = [IssuerKey(str(key.algorithm), key.kid, key.private_key) for key in RING.keys]
    claims = workload_claims(iss=BROKER, aud=BROKER, client_id="writer", jti="jti_1")
    no_actors: tuple[Any, ...] = (
        None,
        "a",
        7,
        True,
        [],
        [{"sub": "a"}],
        {},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\n"},
        {"sub": "a", "act": "b"},
        {"sub": "a", "act": []},
        {"sub": "a", "act": {}},
        {"sub": "a", "act": {"sub": "b", "act": {"sub": ["c"]}}},
    )
    no_objects: tuple[Any, ...] = (None, "x", 7, True, [], [{}])
    no_lists: tuple[Any, ...] = (None, "x", 7, {}, [None], [7])
    no_texts: tuple[Any, ...] = (None, 7, True, [], ["x"], {})
    no_names: tuple[Any, ...] = (None, "x", 7, {}, [None], [7], [[]], [{}])
    no_details = tuple([{"type": "broker_task", "capabilities": names}] for names in no_names)
    shape = Shape(
        texts=("sub", "client_id", "jti"),
        exact=("iss",),
        dates=(
            Date("exp", (1, 600, 10**8), (0, -1, -DAY), required=True),
            Date("iat", (-DAY, 0, 30), (31, DAY), required=True),
        ),
        whole_seconds=True,
        odd=(
            ("act", no_actors),
            ("cnf", no_objects),
            ("scope", no_texts),
            ("txn", no_texts),
            ("authorization_details", (*no_lists, ["x"], [[]], *no_details)),
            ("via", (*no_lists, [{}])),
        ),
    )

    async def verify(token: str) -> object:
        return tokens.verify(token, BROKER)

    good = good_with(ours[0], claims, "at+jwt", ours[1])
    return Verifier(good, verify, shape, frozenset(("at+jwt",)))


def assertion() -> Verifier:
    """A client's assertion about itself, by its own key."""
    keys = ClientKeys(BROKER, ManualClock())
    client = Principal(
        name=CLIENT,
        role=Role.RESOURCE_SERVER,
        owner="you@example.com",
        jwks=jwks(CLIENT_KEY, RSA.jwk(alg="RS256")).decode(),
    )
    claims = workload_claims(iss=CLIENT, sub=CLIENT, aud=BROKER, exp=NOW + 60, jti="one")
    shape = Shape(
        texts=("jti",),
        exact=("iss", "sub"),
        audience="alone",
        dates=(
            Date("exp", (-29, 0, 60, 330), (-30, -31, 331, DAY), required=True),
            Date("iat", (-200, 0, 30), (31, DAY, -DAY, -280)),
            Date("nbf", (-DAY, 0, 30), (30.5, 31, DAY)),
        ),
        odd=(("jti", ("x" * 257,)),),
    )

    async def verify(token: str) -> object:
        # Whoever it says it is from: that it is not this client's is seen all the same.
        return await keys.verify_assertion(parse(token), client)

    types = frozenset[object]((None, "JWT", "jwt", "client-authentication+jwt"))
    return Verifier(good_with(CLIENT_KEY, claims), verify, shape, types)


def proof() -> Verifier:
    """A DPoP proof, with an access token."""
    digest = segment(hashlib.sha256(ACCESS.encode()).digest())
    claims = {"jti": "one", "htm": "POST", "htu": PROOF_URL, "iat": NOW, "ath": digest}
    shape = Shape(
        texts=("jti",),
        exact=("htm", "htu", "ath"),
        audience="",
        dates=(
            Date("iat", (-60, 0, 60), (-60.5, -61, 60.5, 61, DAY, -DAY), required=True),
            Date("exp", (-59, 0, DAY), (-60, -DAY)),
            Date("nbf", (-DAY, 0, 60), (60.5, 61, DAY)),
        ),
        odd=(("jti", ("x" * 257,)), ("nonce", (None, "", 7, [], "x" * 257, "a\n"))),
    )

    async def verify(token: str) -> object:
        return verify_proof(
            token, method="POST", url=PROOF_URL, now=NOW, window_s=60, access_token=ACCESS
        )

    def good(key: IssuerKey, rsa: Good | None = None) -> Good:
        jwk = key.jwk(kid=None, use=None)
        return Good(key, {"typ": "dpop+jwt", "jwk": jwk}, claims, rsa)

    return Verifier(
        good(KEY, good(RSA)),
        verify,
        shape,
        frozenset(("dpop+jwt",)),
        InvalidDpopProof,
        by_id=False,
        own_key=True,
    )


VERIFIERS: Final[dict[str, Callable[[], Verifier]]] = {
    maker.__name__: maker for maker in (workload, svid, reviewed, access, assertion, proof)
}
