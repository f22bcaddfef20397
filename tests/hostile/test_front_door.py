"""Samples of every family at the front door: the right error, never a 500, never the token back."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import jwt
import pytest

from tests.hostile.test_families import FAMILIES, applies
from tests.hostile.vectors import Good
from tests.hostile.verifiers import SVID_KEY, TRUST_DOMAIN, VERIFIERS, Verifier, workload_claims
from tests.http.front_door import CLIENT_KEY, STAFF, STAFF_KEY
from tests.http.parties import assert_oauth_error, assert_problem
from tests.issuers import IssuerKey
from tests.possession import Sender
from tests.world import JWT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx2

    from tests.hostile.vectors import Vector
    from tests.http.front_door import FrontDoor

    Send = Callable[[FrontDoor, str], Awaitable[httpx2.Response]]

JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
SENDER: Final = Sender()


# ── good tokens ──────────────────────────────────────────────────────────────────────────────────


def alike(kind: str, key: IssuerKey, claims: dict[str, Any], **header: Any) -> Verifier:
    """A verifier of the function level, for which the front door takes this token."""
    model = VERIFIERS[kind]()
    typ = model.good.header.get("typ")
    return replace(model, good=Good(key, {"typ": typ, "kid": key.kid, **header}, claims))


def now(**claims: object) -> dict[str, Any]:
    start = int(time.time())
    return workload_claims(iat=start, exp=start + 60, **claims)


async def as_person(door: FrontDoor) -> Verifier:
    return alike("workload", STAFF_KEY, now(iss=STAFF, sub="robot"))


async def as_svid(door: FrontDoor) -> Verifier:
    claims = now(sub=f"spiffe://{TRUST_DOMAIN}/robot")
    del claims["iss"]
    return alike("svid", SVID_KEY, claims)


async def as_client_svid(door: FrontDoor) -> Verifier:
    made = await as_svid(door)
    alone = made.good.saying(aud=door.config.broker.issuer)
    return replace(made, good=alone, shape=replace(made.shape, audience="alone"))


async def as_client(door: FrontDoor) -> Verifier:
    claims = now(iss="desk", sub="desk", aud=door.config.broker.issuer, jti=uuid.uuid4().hex)
    return alike("assertion", CLIENT_KEY, claims)


async def as_access(door: FrontDoor) -> Verifier:
    token = await door.token("operator")
    signer = door.app.keys.signer
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return alike("access", IssuerKey("ES256", signer.kid, signer.private_key), claims)


async def as_proof(door: FrontDoor) -> Verifier:
    form = door.form(door.identity("operator"))
    answer = await door.bound(form, SENDER)
    claims = {
        "jti": uuid.uuid4().hex,
        "htm": "POST",
        "htu": f"{door.config.broker.issuer}/oauth/token",
        "iat": int(time.time()),
        "nonce": answer.headers["dpop-nonce"],
    }
    made = alike("proof", SENDER.key, claims, jwk=SENDER.jwk())
    header = {"typ": "dpop+jwt", "jwk": SENDER.jwk()}
    shape = replace(made.shape, exact=("htm", "htu"))
    return replace(made, good=Good(SENDER.key, header, claims), shape=shape)


# ── where they come in ───────────────────────────────────────────────────────────────────────────


async def subject(door: FrontDoor, token: str) -> httpx2.Response:
    return await door.swap(token)


async def actor(door: FrontDoor, token: str) -> httpx2.Response:
    return await door.swap(door.person(), actor_token=token, actor_token_type=JWT)


async def own_subject(door: FrontDoor, token: str) -> httpx2.Response:
    return await door.narrowed(token)


async def sponsor(door: FrontDoor, token: str) -> httpx2.Response:
    ask = {"agent": "report-writer", "purpose": "x", "capabilities": ["orders-read"]}
    ask["on_behalf_of"] = token
    return await door.call("orchestrator", "POST", "/v1/tasks", ask)


async def assertion(door: FrontDoor, token: str) -> httpx2.Response:
    client = {**door.as_client("desk"), "client_assertion": token}
    return await door.post("/oauth/token", {"grant_type": "client_credentials", **client})


async def asserted(door: FrontDoor, token: str) -> httpx2.Response:
    client = {"client_assertion": token, "client_assertion_type": JWT_SPIFFE}
    return await door.post("/oauth/token", {"grant_type": "client_credentials", **client})


async def bearer(door: FrontDoor, token: str) -> httpx2.Response:
    return await door.http.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"})


async def header(door: FrontDoor, token: str) -> httpx2.Response:
    return await door.post("/oauth/token", door.form(door.identity("operator")), DPoP=token)


FORMS: Final = {
    "subject_token": (as_person, subject, "invalid_request", 400),
    "subject_token-svid": (as_svid, subject, "invalid_request", 400),
    "subject_token-ours": (as_access, own_subject, "invalid_request", 400),
    "actor_token": (as_person, actor, "invalid_request", 400),
    "client_assertion": (as_client, assertion, "invalid_client", 400),
    "client_assertion-svid": (as_client_svid, asserted, "invalid_client", 400),
    "dpop": (as_proof, header, "invalid_dpop_proof", 400),
}


def samples(verifier: Verifier, *, without: str = "") -> list[Vector]:
    """The first and the last hostile token of each family but one."""
    found: list[Vector] = []
    for name, family in FAMILIES.items():
        if name == without:
            continue
        hostile = [v for v in family(verifier) if applies(verifier, v) and v.valid is False]
        hostile = [v for v in hostile if "by-id" not in v.flags or verifier.by_id]
        found += (*hostile[:1], *hostile[1:][-1:])
    return found


def in_a_header(token: str) -> bool:
    """Whether it can be sent in one: HTTP itself takes no other characters."""
    return token.isascii() and token.isprintable() and token == token.strip() and bool(token)


def assert_kept_quiet(answer: httpx2.Response, token: str) -> None:
    for piece in (token, *token.split(".")):
        assert len(piece) < 20 or piece[:200] not in answer.text
        assert len(piece) < 20 or piece[:200] not in str(answer.headers)


@pytest.mark.parametrize("place", FORMS)
async def test_hostile_tokens_at_the_token_endpoint(door: FrontDoor, place: str) -> None:
    make, send, error, status = FORMS[place]
    verifier = await make(door)

    for vector in samples(verifier):
        if place == "dpop" and not in_a_header(vector.token):
            continue
        if not vector.token and place.startswith("client"):
            continue  # an empty parameter is none at all
        answer = await send(door, vector.token)
        assert_kept_quiet(answer, vector.token)
        if len(vector.token) > 100_000:
            assert answer.status_code == 413
            continue
        assert answer.status_code == status, (vector.id, answer.text)
        assert_oauth_error(answer, error, status)

    # Last: no refusal may have used up what a good token says, its jti and its nonce.
    if place != "actor_token":
        answer = await send(door, verifier.good.token)
        assert answer.status_code == 200, answer.text


async def test_hostile_tokens_as_bearer_tokens(door: FrontDoor) -> None:
    verifier = await as_access(door)

    for vector in samples(verifier):
        if in_a_header(vector.token) and len(vector.token) < 60_000:
            answer = await bearer(door, vector.token)
            assert_kept_quiet(answer, vector.token)
            assert_problem(answer, 401, "invalid_token")
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]

    assert (await bearer(door, verifier.good.token)).status_code == 200


async def test_hostile_tokens_as_the_one_a_task_is_for(door: FrontDoor) -> None:
    verifier = await as_person(door)

    for vector in samples(verifier):
        if vector.token.encode("utf-8", "replace").decode() != vector.token:
            continue  # no JSON can be made of it
        if len(vector.token) > 60_000:
            continue
        answer = await sponsor(door, vector.token)
        assert_kept_quiet(answer, vector.token)
        assert "on_behalf_of" in assert_problem(answer, 400, "invalid_request")["detail"]

    assert (await sponsor(door, verifier.good.token)).status_code == 201


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
async def test_hostile_tokens_are_nobodys_and_end_nobodys(door: FrontDoor, path: str) -> None:
    """To an operator, who may ask about tokens for any audience, and end them."""
    verifier = await as_access(door)
    headers = {"Authorization": f"Bearer {await door.token('operator')}"}

    for vector in samples(verifier, without="claims-audience"):
        if not 0 < len(vector.token) < 60_000:
            continue  # an empty parameter is none, and a long body is none of the endpoint's
        answer = await door.post(path, {"token": vector.token}, **headers)
        assert answer.status_code == 200, (vector.id, answer.text)
        expected = b'{"active":false}' if path == "/oauth/introspect" else b""
        assert answer.content == expected, vector.id

    assert await door.alive(verifier.good.token)


async def test_kinds_are_not_mixed_up_at_the_front_door(door: FrontDoor) -> None:
    """Every good token, everywhere it doesn't belong."""
    makers = (as_person, as_svid, as_client_svid, as_client, as_access, as_proof)
    places: dict[str, tuple[Send, str, int, tuple[object, ...]]] = {
        "subject": (subject, "invalid_request", 400, (as_person, as_svid)),
        "own": (own_subject, "invalid_request", 400, (as_access,)),
        "actor": (actor, "invalid_request", 400, ()),
        "assertion": (assertion, "invalid_client", 400, (as_client,)),
        "asserted": (asserted, "invalid_client", 400, (as_client_svid,)),
        "dpop": (header, "invalid_dpop_proof", 400, (as_proof,)),
    }
    for make in makers:
        for name, (send, error, status, fine) in places.items():
            token = (await make(door)).good.token
            answer = await send(door, token)
            if make in fine:
                assert answer.status_code == 200, (name, make.__name__, answer.text)
                continue
            assert_oauth_error(answer, error, status)
            assert_kept_quiet(answer, token)
        if make is not as_access:
            assert_problem(await bearer(door, (await make(door)).good.token), 401, "invalid_token")


async def test_a_trusted_issuer_imitates_us_in_vain(door: FrontDoor) -> None:
    """It copies a token of ours, claim by claim and key id included."""
    ours = (await as_access(door)).good
    for key in (STAFF_KEY, SVID_KEY, CLIENT_KEY):
        for typ in ("at+jwt", "JWT"):
            forged = key.sign(ours.claims, typ=typ, kid=ours.key.kid)
            assert_problem(await bearer(door, forged), 401, "invalid_token")
            assert_oauth_error(await door.narrowed(forged), "invalid_request")
            assert_oauth_error(await door.swap(forged), "invalid_request")
            assert await door.claims(forged) == {"active": False}
            await door.post("/oauth/revoke", {"token": forged})
    assert await door.alive(ours.token)


async def test_a_malformed_may_act_lets_nobody_act(door: FrontDoor) -> None:
    actor = {"actor_token": door.identity("report-writer"), "actor_token_type": JWT}
    odd: tuple[Any, ...] = ("x", 7, True, False, [], ["agent/report-writer"], {}, {"iss": STAFF})
    for may_act in (*odd, {"sub": None}, {"sub": ["agent/report-writer"]}):
        token = STAFF_KEY.sign(now(iss=STAFF, sub="robot", may_act=may_act))
        for answer in (await door.swap(token), await door.swap(token, **actor)):
            assert "may_act" in assert_oauth_error(answer, "invalid_request")


ODD_NAMES: Final[tuple[Any, ...]] = ("x", 7, {}, [[]], [{}], [None])
ODD_KEYS: Final[tuple[Any, ...]] = ({"x5t#S256": 7}, {"x5t#S256": ""}, {"jwk": {}}, {"kid": "x"})
ODD_CONTENTS: Final[tuple[dict[str, Any], ...]] = (
    *({"cnf": cnf} for cnf in ({"jkt": 7}, {"jkt": None}, {"jkt": ["x"]}, {"jkt": ""})),
    *({"cnf": cnf} for cnf in ODD_KEYS),
    *({"authorization_details": [d]} for d in ({}, {"task_id": 7}, {"type": None})),
    *({"authorization_details": [{"capabilities": names}]} for names in ODD_NAMES),
    *({"via": via} for via in (["x"], ["jti_*"], [""], ["\0"], ["x" * 2000], ["a|b"], ["{s00}"])),
    *({"jti": jti} for jti in ("*", "jti_zz", "a|b", "{s00}", "\u00e9", "x" * 512, "broker:")),
    *({"client_id": name} for name in ("nobody", "OPERATOR", "*", "operator ", "x" * 512)),
    *({"scope": scope} for scope in ("", "root", "operator operator", "\0", "x" * 4000)),
    *({"txn": txn} for txn in ("x", "tsk_*", "\0")),
    {"act": {"sub": "a", "act": {"sub": "b", "exp": 1, "aud": "x"}}},
)


async def test_tokens_of_ours_with_odd_contents_are_no_accident(door: FrontDoor) -> None:
    """As a mistake of ours, or an older version, would sign them: never an unforeseen error."""
    good = (await as_access(door)).good
    operator = {"Authorization": f"Bearer {await door.token('operator')}"}
    wrong: list[str] = []
    for changes in ODD_CONTENTS:
        token = good.with_claims(**changes)
        answers = [
            await bearer(door, token),
            await door.http.get("/v1/tasks", headers={"Authorization": f"DPoP {token}"}),
            await own_subject(door, token),
            await door.post("/oauth/introspect", {"token": token}, **operator),
        ]
        if "jti" in changes:  # else it would end the good one
            answers.append(await door.post("/oauth/revoke", {"token": token}, **operator))
        wrong += [f"{changes}: {a.status_code}" for a in answers if a.status_code >= 500]
    assert not wrong, "\n".join(wrong)
