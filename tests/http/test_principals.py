"""Principals at run time over HTTP: who may, what is refused, what is shown."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from broker.dev.config import OWNER
from tests.http.parties import assert_problem, bearer
from tests.issuers import IssuerKey
from tests.register_world import RegisterWorld, newcomer

KEY = IssuerKey.new()
OTHER_KEY = IssuerKey.new()


# ── adding ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_newcomer_works_on_every_replica(here: RegisterWorld, there: RegisterWorld) -> None:
    added = await here.add()
    assert (added["state"], added["registered"], added["added_by"]) == ("active", True, "operator")
    assert added["identity"] == {"issuer": "dev", "subject": "agent/newcomer"}

    await there.app.reaper.look()
    task = await there.open(agent="newcomer", capabilities=["orders-api"])
    granted = await there.grant(task, "orders-api")

    assert granted["credential"]["access_token"]
    assert [e["name"] for e in await here.logged("principal.added")] == ["newcomer"]


async def test_another_replica_looks_into_the_register_for_a_stranger(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await here.add("planner", role="orchestrator")

    answer = await there.exchange("planner")

    assert answer.status_code == 200, answer.text
    assert answer.json()["scope"] == "orchestrator"


async def test_strangers_cant_make_it_look_all_the_time(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    assert (await there.exchange("stranger")).status_code == 400
    await here.add("planner", role="orchestrator")

    assert (await there.exchange("planner")).status_code == 400  # it has looked a moment ago
    await there.app.reaper.look()
    assert (await there.exchange("planner")).status_code == 200


async def test_claims_decide_too(here: RegisterWorld) -> None:
    rule = {"issuer": "dev", "claims": {"sub": {"match": "agent/new.*"}}}
    await here.add(role="orchestrator", identity=rule)
    assert (await here.exchange("newcomer")).status_code == 200
    assert (await here.exchange("stranger")).status_code == 400


async def test_a_pattern_too_wide_takes_nobodys_identity(here: RegisterWorld) -> None:
    await here.add("worker", role="orchestrator")
    await here.add("greedy", identity={"issuer": "dev", "subject": {"match": ".*"}})

    for name in ("operator", "orchestrator"):
        assert (await here.exchange(name)).json()["scope"] == name
    assert (await here.exchange("worker")).status_code == 400  # two of the register: nobody's


async def test_a_service_with_its_own_key_is_known_on_every_replica(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await here.add(
        "billing",
        role="resource_server",
        resource="https://billing.example.com",
        identity={"jwks": {"keys": [KEY.jwk()]}},
    )
    now = int(time.time())
    issuer = here.config.broker.issuer
    claims = {"iss": "billing", "sub": "billing", "aud": issuer, "iat": now, "exp": now + 60}

    def form(key: IssuerKey, jti: str) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": key.sign({**claims, "jti": jti}),
        }

    answer = await there.http.post("/oauth/token", data=form(KEY, "a"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["scope"] == "resource_server"
    wrong = await there.http.post("/oauth/token", data=form(OTHER_KEY, "b"))
    assert wrong.json()["error"] == "invalid_client"
    await here.move("billing", "suspend")
    late = await there.http.post("/oauth/token", data=form(KEY, "c"))
    assert late.status_code in {400, 401}
    await there.app.reaper.look()
    late = await there.http.post("/oauth/token", data=form(KEY, "d"))
    assert late.json()["error"] == "invalid_client"


async def test_the_same_request_again_is_the_same_principal(here: RegisterWorld) -> None:
    first, second = await here.add(), await here.add()

    assert first == second
    assert len(await here.logged("principal.added")) == 1


async def test_of_two_who_add_one_name_one_wins(here: RegisterWorld, there: RegisterWorld) -> None:
    one = here.operate("principals", newcomer(purpose="mine"))
    other = there.operate("principals", newcomer(purpose="theirs"))

    answers = await asyncio.gather(one, other)

    assert sorted(a.status_code for a in answers) == [201, 409]
    assert len(await here.logged("principal.added")) == 1


async def test_of_many_who_add_one_identity_one_wins(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    identity = {"issuer": "dev", "subject": "agent/shared"}
    answers = await asyncio.gather(
        *(
            (here, there)[n % 2].operate("principals", newcomer(f"n{n}", identity=identity))
            for n in range(8)
        )
    )

    assert sorted(a.status_code for a in answers) == [201] + [409] * 7


async def test_every_addable_kind_is_shown_as_it_was_asked_for(here: RegisterWorld) -> None:
    service = await here.add(
        "billing",
        role="resource_server",
        resource="https://billing.example.com",
        identity={"jwks": {"keys": [KEY.jwk()]}},
        review_by="2099-06-30",
    )
    agent = await here.add("worker", max_ttl="2m", owner="Team Röd")

    assert service["resource"] == "https://billing.example.com"
    assert service["identity"]["jwks"]["keys"][0]["kid"] == KEY.jwk()["kid"]
    assert service["review_by"] == "2099-06-30T23:59:59.999Z"
    assert (agent["max_ttl"], agent["owner"]) == ("2m", "Team Röd")


PRIVATE: dict[str, Any] = {**KEY.jwk(), "d": "AAAA"}
PROVED = {"issuer": "dev", "subject": "agent/x"}
INVALID: dict[str, dict[str, Any]] = {
    "no name": {"name": None},
    "a name that is none": {"name": "No Name"},
    "a name with a bar": {"name": "a|b"},
    "a name that is too long": {"name": "n" * 65},
    "an operator": {"role": "operator"},
    "an auditor": {"role": "auditor"},
    "no such role": {"role": "king"},
    "no owner": {"owner": None},
    "an empty owner": {"owner": ""},
    "a blank owner": {"owner": "  "},
    "an owner with a bar": {"owner": "a|b"},
    "an owner with a line break": {"owner": "a\nb"},
    "an owner with spaces around": {"owner": " a"},
    "an owner that is no text": {"owner": 7},
    "no purpose": {"purpose": None},
    "a blank purpose": {"purpose": " "},
    "no identity": {"identity": None},
    "an empty identity": {"identity": {}},
    "an issuer alone": {"identity": {"issuer": "dev"}},
    "a subject alone": {"identity": {"subject": "agent/x"}},
    "an issuer nobody configured": {"identity": {**PROVED, "issuer": "elsewhere"}},
    "two kinds of proof": {"identity": {**PROVED, "jwks": {"keys": [KEY.jwk()]}}},
    "an empty subject": {"identity": {**PROVED, "subject": ""}},
    "a subject of another type": {"identity": {**PROVED, "subject": 1.5}},
    "an empty list of subjects": {"identity": {**PROVED, "subject": []}},
    "a pattern that is none": {"identity": {**PROVED, "subject": {"match": "("}}},
    "a pattern with another key": {"identity": {**PROVED, "subject": {"regex": "a"}}},
    "no claims": {"identity": {"issuer": "dev", "claims": {}}},
    "a nested claim rule": {"identity": {"issuer": "dev", "claims": {"a": {"b": {"c": 1}}}}},
    "an unknown key of the identity": {"identity": {**PROVED, "audience": "x"}},
    "a private key": {"identity": {"jwks": {"keys": [PRIVATE]}}},
    "a private key beside a public one": {"identity": {"jwks": {"keys": [KEY.jwk(), PRIVATE]}}},
    "a symmetric key": {"identity": {"jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}}},
    "no key": {"identity": {"jwks": {"keys": []}}},
    "keys that are no list": {"identity": {"jwks": {"keys": {}}}},
    "an empty key set": {"identity": {"jwks": {}}},
    "too many keys": {"identity": {"jwks": {"keys": [KEY.jwk()] * 17}}},
    "a key written in two ways": {
        "identity": {"jwks": {"keys": [{**KEY.jwk(), "x": KEY.jwk()["x"] + "="}]}}
    },
    "an unknown capability": {"capabilities": ["nothing"]},
    "capabilities of an orchestrator": {"role": "orchestrator", "capabilities": ["orders-api"]},
    "a resource of an agent": {"resource": "https://x.example"},
    "a service without resource": {"role": "resource_server"},
    "a resource that is no URI": {"role": "resource_server", "resource": "billing"},
    "a resource with a fragment": {"role": "resource_server", "resource": "https://x.example#a"},
    "the broker itself as resource": {
        "role": "resource_server",
        "resource": "http://127.0.0.1:8700",
    },
    "a max_ttl of an orchestrator": {"role": "orchestrator", "max_ttl": "5m"},
    "a max_ttl that is a number": {"max_ttl": 5},
    "delegates of an orchestrator": {"role": "orchestrator", "delegates_to": ["worker"]},
    "delegates that are no list": {"delegates_to": "worker"},
    "a review date of the past": {"review_by": "2020-01-01"},
    "a review date that is none": {"review_by": "2027-02-30"},
    "a review date in another form": {"review_by": "20270630"},
    "a review time": {"review_by": "2027-06-30T00:00:00Z"},
    "a state": {"state": "active"},
    "who added it": {"added_by": "alice"},
}


async def test_what_cant_be_a_principal_is_refused(here: RegisterWorld) -> None:
    headers = await bearer(here, "operator")
    for what, fields in INVALID.items():
        ask = newcomer(**fields)
        answer = await here.http.post("/v1/principals", json=ask, headers=headers)
        assert answer.status_code == 400, f"{what}: {answer.text}"
        assert_problem(answer, 400, "invalid_request")
    assert await here.logged("principal.added") == []


TAKEN: dict[str, dict[str, Any]] = {
    "a name of the configuration": {"name": "report-writer"},
    "the caller's own name": {"name": "operator"},
    "an identity of the configuration": {
        "identity": {"issuer": "dev", "subject": "agent/report-writer"}
    },
    "an operator's identity": {"identity": {"issuer": "dev", "subject": "operator/operator"}},
    "an identity among others": {
        "identity": {"issuer": "dev", "subject": ["agent/x", "agent/report-writer"]}
    },
    "a resource of the configuration": {
        "role": "resource_server",
        "resource": "https://orders.example.com",
    },
    "a name that was added": {"name": "taken", "purpose": "another"},
    "an identity that was added": {"identity": {"issuer": "dev", "subject": "agent/taken"}},
    "a key that was added": {"identity": {"jwks": {"keys": [OTHER_KEY.jwk(), KEY.jwk()]}}},
}


async def test_what_is_somebodys_is_nobody_elses(here: RegisterWorld) -> None:
    await here.add("taken")
    await here.add("keyed", identity={"jwks": {"keys": [{**KEY.jwk(), "kid": "another"}]}})

    for what, fields in TAKEN.items():
        answer = await here.operate("principals", newcomer(**fields))
        assert answer.status_code == 409, f"{what}: {answer.text}"
        assert_problem(answer, 409, "conflict")


@pytest.mark.parametrize("body", [None, [], "x", 7, {}, {"name": "a", "owner": {}}])
async def test_bodies_of_other_shapes_are_refused(here: RegisterWorld, body: Any) -> None:
    answer = await here.call("operator", "POST", "/v1/principals", body)

    assert_problem(answer, 400, "invalid_request")


# ── who may ──────────────────────────────────────────────────────────────────────────────────────

READS = ("principals", "principals/report-writer", "owners")
WRITES: dict[str, dict[str, Any]] = {
    "principals": newcomer(),
    "principals/order-clerk/suspend": {"reason": "x"},
    "principals/order-clerk/resume": {"reason": "x"},
    "principals/order-clerk/retire": {"reason": "x"},
    "principals/order-clerk/review": {"next": "2099-01-01"},
    "owners/retire": {"owner": OWNER, "reason": "x"},
    "owners/reinstate": {"owner": OWNER, "reason": "x"},
}


@pytest.mark.parametrize("path", READS)
async def test_operators_and_auditors_read_and_nobody_else(here: RegisterWorld, path: str) -> None:
    task = await here.open()
    for name in ("operator", "auditor"):
        assert (await here.call(name, "GET", f"/v1/{path}")).status_code == 200
    for name, task_id in (
        ("orchestrator", None),
        ("orders-service", None),
        ("report-writer", task["task_id"]),
    ):
        answer = await here.call(name, "GET", f"/v1/{path}", task_id=task_id)
        assert_problem(answer, 403, "access_denied")
    assert_problem(await here.call(None, "GET", f"/v1/{path}"), 401, "unauthenticated")


@pytest.mark.parametrize("path", WRITES)
async def test_only_operators_write(here: RegisterWorld, path: str) -> None:
    task = await here.open()
    for name, task_id in (
        ("auditor", None),
        ("orchestrator", None),
        ("orders-service", None),
        ("report-writer", task["task_id"]),
    ):
        answer = await here.call(name, "POST", f"/v1/{path}", WRITES[path], task_id=task_id)
        assert_problem(answer, 403, "access_denied")
    assert_problem(
        await here.call(None, "POST", f"/v1/{path}", WRITES[path]), 401, "unauthenticated"
    )
    assert await here.app.connection.command("EXISTS", "broker:{s00}:principals") == 0


@pytest.mark.parametrize("how", ["suspend", "resume", "retire", "review"])
async def test_nobody_is_not_found(here: RegisterWorld, how: str) -> None:
    body = {"next": "2099-01-01"} if how == "review" else {"reason": "x"}
    for name in ("nobody", "No%20Name", "n" * 300):
        answer = await here.operate(f"principals/{name}/{how}", body)
        assert_problem(answer, 404, "not_found")
    assert_problem(await here.call("operator", "GET", "/v1/principals/nobody"), 404, "not_found")


@pytest.mark.parametrize(
    ("how", "body"),
    [
        ("suspend", {}),
        ("suspend", {"reason": ""}),
        ("suspend", {"reason": "x", "more": 1}),
        ("retire", {"reason": 7}),
        ("resume", None),
        ("review", {}),
        ("review", {"next": "soon"}),
        ("review", {"next": 20270630}),
        ("review", {"next": "2020-01-01"}),
        ("review", {"next": "2099-01-01", "note": ""}),
    ],
)
async def test_moves_without_their_reason_are_refused(
    here: RegisterWorld, how: str, body: Any
) -> None:
    answer = await here.operate(f"principals/report-writer/{how}", body)

    assert_problem(answer, 400, "invalid_request")
    assert (await here.shown("report-writer"))["state"] == "active"


# ── lists ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_list_has_everybody_by_name_in_pages(here: RegisterWorld) -> None:
    await here.add("aaa")
    await here.move("aaa", "suspend")

    async def listed(query: str) -> dict[str, Any]:
        answer = await here.call("auditor", "GET", f"/v1/principals{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    everybody = [row["name"] for row in (await listed(""))["items"]]
    assert everybody == sorted(everybody)
    assert everybody[0] == "aaa"
    assert {"operator", "auditor", "report-writer", "orders-service"} <= set(everybody)
    first = await listed("?limit=2")
    rest = await listed(f"?cursor={first['next']}")
    assert [row["name"] for row in first["items"] + rest["items"]] == everybody
    assert rest["next"] is None
    assert [r["name"] for r in (await listed("?state=suspended"))["items"]] == ["aaa"]
    assert [r["name"] for r in (await listed("?owner=team@example.com"))["items"]] == ["aaa"]
    assert [r["name"] for r in (await listed("?role=auditor"))["items"]] == ["auditor"]
    assert (await listed("?due=true"))["items"] == []


@pytest.mark.parametrize(
    "query", ["role=king", "state=gone", "limit=0", "limit=501", "cursor=%7C", "due=perhaps"]
)
async def test_bad_queries_are_refused(here: RegisterWorld, query: str) -> None:
    answer = await here.call("operator", "GET", f"/v1/principals?{query}")

    assert_problem(answer, 400, "invalid_request")


async def test_it_is_shown_who_was_used_and_what_lives(here: RegisterWorld) -> None:
    task = await here.open(capabilities=["orders-api"])
    await here.grant(task, "orders-api")
    assert (await here.shown("report-writer"))["last_used_at"] is None

    await here.app.reaper.look()

    shown = await here.shown("report-writer")
    assert shown["last_used_at"] is not None
    assert shown["live_grants"] == 1
    owners = (await here.call("auditor", "GET", "/v1/owners")).json()["items"]
    assert [(o["owner"], o["live_grants"], o["state"]) for o in owners] == [(OWNER, 1, "active")]
    assert "report-writer" in owners[0]["principals"]
