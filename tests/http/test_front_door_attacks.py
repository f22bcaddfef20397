"""Attacks on the OAuth front door: tokens that nobody proved a right to, and keys nobody holds."""

from __future__ import annotations

import itertools
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.dev.config import OWNER
from broker.dev.issuer import ISSUER
from tests.certificates import authority
from tests.http.front_door import ACCESS_TOKEN, REPORTS, STAFF, STAFF_KEY, front_door
from tests.http.parties import assert_oauth_error, assert_problem, details
from tests.possession import Sender
from tests.world import JWT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.http.front_door import FrontDoor

SENDER: Final = Sender()
OTHER: Final = Sender()
CERTIFICATE: Final = authority("a client").der


def expect(answer: httpx2.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()


async def api(
    door: FrontDoor, token: str, method: str, path: str, body: Any = None
) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return await door.http.request(method, path, json=body, headers=headers)


# ── who is who: every combination ────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Party:
    """A token, what kind it is, and what it proves: a name, maybe a principal, maybe a task."""

    token: str
    kind: str
    name: str
    principal: str | None
    task: str = ""


@dataclass(frozen=True)
class Job:
    """A task: its agent, on whose behalf it runs, and its parent."""

    id: str
    agent: str
    subject: str
    parent: str = ""


def may(client: str, subject: Party, actor: str, job: Job) -> bool:
    """What is right, from the words of the design: the one who acts, for whom the task says."""
    acts = actor or (client if client not in ("", subject.principal) else subject.principal)
    if client not in ("", acts) or acts != job.agent:
        return False
    if not actor and acts == subject.principal:
        return subject.task in ("", job.id)
    if subject.task:
        return subject.task == job.parent or (subject.task == job.id and subject.principal == acts)
    return subject.name == job.subject


async def test_no_combination_of_proofs_makes_a_token_that_nobody_proved(door: FrontDoor) -> None:
    root, again = await door.task_of(), await door.task_of()
    child = await door.task_of("order-clerk", parent_task_id=root["task_id"])
    run = await door.task_of("runner", on_behalf_of=door.person())
    ask = {"agent": "order-clerk", "purpose": "x", "capabilities": ["orders-read"]}
    far = expect(await door.call("rival", "POST", "/v1/tasks", ask), 201)
    jobs = [
        Job(root["task_id"], "report-writer", "orchestrator"),
        Job(again["task_id"], "report-writer", "orchestrator"),
        Job(child["task_id"], "order-clerk", "orchestrator", root["task_id"]),
        Job(run["task_id"], "runner", "staff:alice"),
        Job(far["task_id"], "order-clerk", "rival"),
    ]
    workloads = ["orchestrator", "rival", "report-writer", "order-clerk"]
    subjects = [Party(door.identity(name), JWT, name, name) for name in workloads]
    subjects += [Party(door.person(n), JWT, f"staff:{n}", None) for n in ("alice", "mallory")]
    for name, task in (("orchestrator", ""), ("report-writer", root), ("order-clerk", far)):
        named = task["task_id"] if isinstance(task, dict) else ""
        token = await door.token(name, named or None)
        subjects.append(Party(token, ACCESS_TOKEN, name, name, named))
    actors = {"": {}} | {
        name: {"actor_token": door.identity(name), "actor_token_type": JWT}
        for name in ("report-writer", "order-clerk", "orchestrator")
    }
    made = 0

    for client, subject, actor, job in itertools.product(
        ("", "runner", "desk"), subjects, actors, jobs
    ):
        answer = await door.swap(
            subject.token,
            subject_token_type=subject.kind,
            authorization_details=details(job.id),
            **actors[actor],
            **(door.as_client(client) if client else {}),
        )
        case = (client, subject.name, subject.kind, subject.task, actor, job)
        assert (answer.status_code == 200) == may(client, subject, actor, job), (case, answer.text)
        if answer.status_code == 200:
            made += 1
            claims = door.app.tokens.verify(answer.json()["access_token"], None)
            assert claims.client_id == job.agent
            assert claims.subject == job.subject
            assert claims.act is not None
            assert claims.act["sub"] == job.agent
            assert claims.authorization_details[0]["task_id"] == job.id
            assert claims.scope == "agent"
    assert made > len(jobs)


async def test_a_person_who_is_a_principal_too_is_the_person_of_the_task(door: FrontDoor) -> None:
    task = await door.task_of(on_behalf_of=door.identity("operator"))

    async def acting_for(name: str) -> httpx2.Response:
        return await door.swap(
            door.identity(name),
            actor_token=door.identity("report-writer"),
            actor_token_type=JWT,
            authorization_details=details(task["task_id"]),
        )

    body = expect(await acting_for("operator"))
    assert (await door.claims(body["access_token"]))["sub"] == "dev:operator/operator"
    for name in ("orchestrator", "auditor"):
        assert_oauth_error(await acting_for(name), "invalid_request")
    # Who was suspended lends nobody their name.
    reason = {"reason": "a test"}
    desk = {"grant_type": "client_credentials", **door.as_client("desk")}
    token = expect(await door.post("/oauth/token", desk))["access_token"]
    expect(await api(door, token, "POST", "/v1/principals/operator/suspend", reason))
    assert_oauth_error(await acting_for("operator"), "invalid_request")


# ── may_act and cnf of other issuers' tokens ─────────────────────────────────────────────────────


async def for_person(door: FrontDoor, **claims: Any) -> httpx2.Response:
    task = await door.task_of(on_behalf_of=door.person())
    return await door.swap(
        door.person(**claims),
        actor_token=door.identity("report-writer"),
        actor_token_type=JWT,
        authorization_details=details(task["task_id"]),
    )


async def test_may_act_without_an_issuer_means_the_subjects_own(door: FrontDoor) -> None:
    """Subjects repeat: ``agent/report-writer`` of another issuer is somebody else (pitfall 13)."""
    assert_oauth_error(
        await for_person(door, may_act={"sub": "agent/report-writer"}), "invalid_request"
    )
    expect(await for_person(door, may_act={"sub": "agent/report-writer", "iss": ISSUER}))


async def test_may_act_that_names_nobody_lets_nobody_act(door: FrontDoor) -> None:
    task = await door.task_of(on_behalf_of=door.person())
    claims = {"iss": STAFF, "sub": "alice", "aud": "broker", "exp": int(time.time()) + 60}
    nobody: list[object] = [None, "", 0, False, [], {}, {"sub": None}, {"iss": ISSUER}]
    for may_act in nobody:
        token = STAFF_KEY.sign({**claims, "may_act": may_act})
        answer = await door.swap(
            token,
            actor_token=door.identity("report-writer"),
            actor_token_type=JWT,
            authorization_details=details(task["task_id"]),
        )
        assert_oauth_error(answer, "invalid_request")


@pytest.mark.parametrize("may_act", [{"iss": ISSUER, "sub": "agent/order-clerk"}, {}, "x"])
async def test_a_person_who_names_an_actor_is_no_carte_blanche(
    door: FrontDoor, may_act: object
) -> None:
    """Who may act is the person's to say, at whichever door their token is shown (pitfall 15)."""
    ask = {
        "agent": "report-writer",
        "purpose": "x",
        "capabilities": ["orders-read"],
        "on_behalf_of": door.person(may_act=may_act),
    }

    answer = await door.call("orchestrator", "POST", "/v1/tasks", ask)

    assert "may_act" in assert_problem(answer, 400, "invalid_request")["detail"]


@pytest.mark.parametrize("cnf", [{"jkt": OTHER.jkt()}, {"jkt": ""}, {"jwk": {}}, {}, "x", 0])
async def test_somebody_elses_bound_token_is_no_bearer_token(door: FrontDoor, cnf: object) -> None:
    """RFC 7800 section 3, pitfall 17: its holder proves the key, or it proves nothing."""
    await staff_bot(door)
    task = await door.task_of("bot", capabilities=["orders-api"])
    detail = details(task["task_id"])
    bound = door.person("bot", cnf=cnf)

    as_subject = door.form(bound, authorization_details=detail)
    as_actor = door.form(
        door.identity("orchestrator"),
        actor_token=bound,
        actor_token_type=JWT,
        authorization_details=detail,
    )
    for form in (as_subject, as_actor):
        assert_oauth_error(await door.post("/oauth/token", form), "invalid_request")
        assert_oauth_error(await door.bound(form, SENDER), "invalid_request")
    refused = await for_person(door, cnf=cnf)
    assert_oauth_error(refused, "invalid_request")
    ask = {"agent": "bot", "purpose": "x", "capabilities": ["orders-api"], "on_behalf_of": bound}
    assert_problem(
        await door.call("orchestrator", "POST", "/v1/tasks", ask), 400, "invalid_request"
    )


async def test_whoever_holds_the_key_of_a_bound_identity_is_let_in(door: FrontDoor) -> None:
    await staff_bot(door)
    task = await door.task_of("bot", capabilities=["orders-api"])
    form = door.form(
        door.person("bot", cnf={"jkt": SENDER.jkt()}),
        authorization_details=details(task["task_id"]),
    )

    body = expect(await door.bound(form, SENDER))

    assert (await door.claims(body["access_token"]))["cnf"] == {"jkt": SENDER.jkt()}


async def staff_bot(door: FrontDoor) -> None:
    """An agent of the issuer whose tokens a test can sign."""
    bot = {
        "name": "bot",
        "role": "agent",
        "owner": OWNER,
        "purpose": "a test",
        "identity": {"issuer": "staff", "subject": "bot"},
        "capabilities": ["orders-api"],
    }
    expect(await door.call("operator", "POST", "/v1/principals", bot), 201)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def proxied(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[FrontDoor]:
    """A broker behind a proxy that tells it of client certificates."""
    made = front_door(engines[0], tmp_path, broker={"trusted_proxies": ["127.0.0.1"]})
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


def shown(certificate: bytes) -> dict[str, str]:
    return {"Client-Cert": f":{b64encode(certificate).decode()}:"}


async def test_a_token_bound_to_one_key_is_not_exchanged_by_another_kind_of_proof(
    proxied: FrontDoor,
) -> None:
    task = await proxied.task_of()
    detail = details(task["task_id"])
    form = proxied.form(proxied.identity("report-writer"), authorization_details=detail)
    certificate, url = shown(CERTIFICATE), f"{proxied.config.broker.issuer}/oauth/token"
    by_proof = expect(await proxied.bound(form, SENDER))["access_token"]
    by_certificate = expect(await proxied.post("/oauth/token", form, **certificate))["access_token"]

    async def swap(token: str, **headers: str) -> httpx2.Response:
        again = proxied.form(token, subject_token_type=ACCESS_TOKEN)
        return await proxied.post("/oauth/token", again, **headers)

    async def proof(sender: Sender) -> dict[str, str]:
        nonce = await proxied.app.broker.access.possession.nonce()
        return {"DPoP": sender.proof("POST", url, time.time(), nonce=nonce)}

    for token, headers in (
        (by_proof, certificate),
        (by_proof, {}),
        (by_proof, {**certificate, **await proof(OTHER)}),
        (by_certificate, await proof(SENDER)),
        (by_certificate, {}),
        (by_certificate, shown(authority("another").der)),
        (by_certificate, {**certificate, **await proof(SENDER)}),  # it would be bound anew
    ):
        assert_oauth_error(await swap(token, **headers), "invalid_request")
    assert expect(await swap(by_proof, **await proof(SENDER)))["token_type"] == "DPoP"
    assert expect(await swap(by_certificate, **certificate))["token_type"] == "Bearer"
    bound = await swap(by_certificate, **certificate)
    cnf = (await proxied.claims(bound.json()["access_token"]))["cnf"]
    assert list(cnf) == ["x5t#S256"]


async def test_a_bound_token_authenticates_nobody_without_its_key(proxied: FrontDoor) -> None:
    form = {"grant_type": "client_credentials", **proxied.as_client("gateway")}
    token = expect(await proxied.post("/oauth/token", form, **shown(CERTIFICATE)))["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}

    for path in ("/oauth/introspect", "/oauth/revoke"):
        answer = await proxied.post(path, {"token": token}, **bearer)
        assert_oauth_error(answer, "invalid_client", 401)
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    answer = await proxied.post(
        "/oauth/introspect", {"token": token}, **bearer, **shown(CERTIFICATE)
    )
    assert expect(answer) == {"active": False}  # let in; and the token is for the broker alone


async def test_a_credential_is_bound_to_the_key_of_whoever_asked(door: FrontDoor) -> None:
    """Never to one nobody proved, and never to none: whoever it was fetched for can't use it."""
    task = await door.task_of()
    form = door.form(door.identity("orchestrator"))
    token = expect(await door.bound(form, SENDER))["access_token"]
    path = f"/v1/tasks/{task['task_id']}/grants"
    url = f"{door.config.broker.issuer}{path}"
    nonce = await door.app.broker.access.possession.nonce()
    made = SENDER.proof("POST", url, time.time(), access_token=token, nonce=nonce)

    answer = await door.http.post(
        path,
        json={"capability": "bound"},
        headers={"Authorization": f"DPoP {token}", "DPoP": made},
    )

    credential = expect(answer, 201)["credential"]
    assert credential["token_type"] == "DPoP"
    claims = await door.claims(credential["access_token"])
    assert claims["cnf"] == {"jkt": SENDER.jkt()}
    assert (claims["client_id"], claims["aud"]) == ("report-writer", REPORTS)
