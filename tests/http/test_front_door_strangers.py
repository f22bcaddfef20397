"""What those get, cost and learn who prove nothing; and those who may no longer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.exchange import Answer
from broker.rates import Allowance
from broker.token_request import read_client, read_request
from tests.http.front_door import (
    ACCESS_TOKEN,
    ASSERTION,
    BILLING,
    ORDERS,
    REPORTS,
    STAFF,
    FrontDoor,
)
from tests.http.parties import UNKNOWN_TASK, assert_oauth_error, bearer, details
from tests.issuers import IssuerKey
from tests.possession import Sender
from tests.world import JWT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

FORGER: Final = IssuerKey.new(kid="staff-1")
SENDER: Final = Sender()


def expect(answer: httpx2.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()


def forged(door: FrontDoor, **claims: object) -> str:
    """A token of somebody trusted, by the looks of it."""
    now = int(time.time())
    good = {"iss": STAFF, "sub": "alice", "aud": "broker", "iat": now, "exp": now + 60}
    ours = {"jti": "x", "client_id": "operator", "scope": "operator"}
    by_us = {**ours, "iss": door.config.broker.issuer, "aud": door.config.broker.issuer}
    return FORGER.sign({**good, **(by_us if "typ" in claims else {}), **claims})


async def kept(door: FrontDoor) -> dict[str, int]:
    """Every key of the ledger, and how much is in it."""
    redis: Any = door.app.connection.client
    found: dict[str, int] = {}
    async for key in redis.scan_iter(count=1000):
        found[key.decode()] = await redis.memory_usage(key, samples=0)
    return found


async def barrage(door: FrontDoor, victim: str) -> list[httpx2.Response]:
    """Everything a stranger can send, most of it in the name of somebody else."""
    url = f"{door.config.broker.issuer}/oauth/token"
    now, nonce = time.time(), await door.app.broker.access.possession.nonce()
    impostor = forged(door, sub=victim)
    ours = forged(door, typ="at+jwt", sub=victim, client_id=victim)
    claims = {"iss": victim, "sub": victim, "aud": door.config.broker.issuer, "jti": "1"}
    assertion = {
        "client_assertion_type": ASSERTION,
        "client_assertion": FORGER.sign({**claims, "exp": int(now) + 60}),
    }
    form = door.form(impostor)
    answers = [
        await door.post("/oauth/token", form),
        await door.post("/oauth/token", {**form, "client_id": victim}),
        await door.post("/oauth/token", door.form(ours, subject_token_type=ACCESS_TOKEN)),
        await door.post("/oauth/token", {**form, "actor_token": impostor, "actor_token_type": JWT}),
        await door.post("/oauth/token", {"grant_type": "client_credentials", **assertion}),
        await door.post("/oauth/token", {**form, **assertion}),
    ]
    for made in (nonce, "made-up", None):
        proof = SENDER.proof("POST", url, now, nonce=made)
        answers.append(await door.post("/oauth/token", form, DPoP=proof))
    for path in ("/oauth/introspect", "/oauth/revoke"):
        answers.append(await door.post(path, {"token": ours}))
        answers.append(await door.post(path, {"token": ours}, Authorization=f"Bearer {ours}"))
        answers.append(await door.post(path, {"token": ours, **assertion}))
    for scheme in ("Bearer", "DPoP", "Basic"):
        headers = {"Authorization": f"{scheme} {ours}"}
        answers += [await door.http.get("/v1/tasks", headers=headers)]
    return answers


async def test_strangers_leave_nothing_and_burn_nobodys_quota(
    door: FrontDoor, capsys: pytest.CaptureFixture[str]
) -> None:
    await door.app.broker.access.possession.nonce()
    await door.task_of()
    before = await kept(door)

    for victim in ("orchestrator", "desk", "runner", "operator", "nobody"):
        for answer in await barrage(door, victim):
            assert answer.status_code in (200, 400, 401)
            assert not answer.content or {"error", "code"} & set(answer.json())

    # Not one more key, nor anything more in one of those there are: the log neither.
    assert await kept(door) == before
    first = await door.exchange("orchestrator")
    quota = door.config.oauth.rate
    left = int(first.headers["ratelimit"].partition("r=")[2].partition(";")[0])
    assert left >= quota - 3
    # Nothing of what they sent is in the log either.
    written = capsys.readouterr()
    assert forged(door).split(".")[0] not in written.err + written.out


async def test_made_up_nonces_do_not_reach_the_ledger(door: FrontDoor) -> None:
    """The one question that a stranger's request could ask of it any number of times."""
    url = f"{door.config.broker.issuer}/oauth/token"
    nonce = await door.app.broker.access.possession.nonce()
    redis: Any = door.app.connection.client
    stats = redis.info
    before = (await stats("stats"))["total_commands_processed"]

    for n in range(30):
        proof = SENDER.proof("POST", url, time.time(), nonce=f"made-up-{n}")
        answer = await door.post("/oauth/token", door.form("x"), DPoP=proof)
        assert_oauth_error(answer, "use_dpop_nonce")
        assert answer.headers["dpop-nonce"] == nonce

    assert (await stats("stats"))["total_commands_processed"] - before < 15


async def test_what_is_none_of_an_agents_business_looks_like_nothing(door: FrontDoor) -> None:
    """Tasks of others, ended, above, below, and of nobody; capabilities alike."""
    mine = await door.task_of()
    below = await door.task_of("order-clerk", parent_task_id=mine["task_id"])
    over = await door.task_of()
    await door.complete(over)
    others = [
        below["task_id"],
        over["task_id"],
        UNKNOWN_TASK,
        "tsk_",
        "x" * 200,
        mine["task_id"][:-1],
    ]
    token, identity = await door.task_token(mine), door.identity("report-writer")

    said = {
        (await send(subject, authorization_details=details(task_id), **more)).text
        for task_id in others
        for send, subject, more in (
            (door.swap, identity, {}),
            (door.narrowed, token, {}),
            (door.swap, identity, {"resource": ORDERS}),
            (door.swap, identity, {"scope": "operator"}),
        )
    }
    assert len(said) == 1, said

    caps = {
        (
            await door.swap(
                identity, authorization_details=details(mine["task_id"], capabilities=[c])
            )
        ).text
        for c in ("deploy", "orders-write", "no-such", "\u202e", "x" * 500)
    }
    assert len(caps) == 1, caps


async def test_a_service_sees_its_own_audience_alone(door: FrontDoor) -> None:
    own = await door.task_token(await door.task_of())
    body = expect(await door.narrowed(own, resource=ORDERS, audience="billing-service"))
    form = {"token": body["access_token"]}

    assert (await door.claims(body["access_token"]))["aud"] == [BILLING, ORDERS]
    for name, audience in (("orders-service", ORDERS), ("billing-service", BILLING)):
        answer = await door.http.post(
            "/oauth/introspect", data=form, headers=await bearer(door, name)
        )
        assert expect(answer)["aud"] == audience
        assert expect(answer)["scope"] == "both.read"
    assert expect(await door.post("/oauth/introspect", {**form, **door.as_client("gateway")})) == {
        "active": False
    }


async def test_what_holds_a_token_does_not_show_it(door: FrontDoor) -> None:
    identity, assertion = door.identity("orchestrator"), door.as_client("desk")
    form = door.form(identity, actor_token=identity, actor_token_type=JWT, **assertion)
    listed = {name: [value] for name, value in form.items()}
    answer = Answer({"access_token": identity}, None, Allowance(1, 1, 1, 1))

    for held in (read_request(listed), read_client(listed), answer):
        for token in (identity, assertion["client_assertion"]):
            assert token.split(".")[1] not in repr(held)
            assert token.split(".")[2] not in repr(held)


# ── those who may no longer ──────────────────────────────────────────────────────────────────────


@pytest.fixture
async def there(engines: tuple[DevStack, Config], door: FrontDoor) -> AsyncGenerator[FrontDoor]:
    """Another replica, which nobody tells of anything."""
    made = FrontDoor(engines[0].issuer, door.config)
    yield made
    await made.close()


async def stop(door: FrontDoor, how: str, name: str) -> None:
    path = f"/v1/principals/{name}/{how}"
    expect(await door.call("operator", "POST", path, {"reason": "a test"}))


@pytest.mark.parametrize("how", ["suspend", "retire"])
async def test_who_is_stopped_gets_nothing_by_any_proof_at_any_replica(
    door: FrontDoor, there: FrontDoor, how: str
) -> None:
    run = await door.task_of("runner", on_behalf_of=door.person())
    mine = await door.task_of()
    detail = details(run["task_id"])
    runner = {"grant_type": "client_credentials", "authorization_details": detail}
    token = expect(await there.post("/oauth/token", {**runner, **door.as_client("runner")}))
    desks = {"grant_type": "client_credentials"}
    desk = expect(await there.post("/oauth/token", {**desks, **door.as_client("desk")}))
    seen = await door.task_token(mine)
    for name in ("runner", "desk"):
        await stop(door, how, name)

    for world in (there, door):
        fresh = door.as_client
        for answer in (
            await world.post("/oauth/token", {**runner, **fresh("runner")}),
            await world.swap(door.person(), authorization_details=detail, **fresh("runner")),
            await world.narrowed(token["access_token"]),
            await world.narrowed(token["access_token"], resource=ORDERS),
            await world.narrowed(token["access_token"], **fresh("runner")),
            await world.post("/oauth/token", {**desks, **fresh("desk")}),
            await world.narrowed(desk["access_token"]),
        ):
            assert answer.status_code in (400, 401), answer.text
            assert answer.json()["error"] in (
                "invalid_client",
                "invalid_request",
                "invalid_authorization_details",
            )
        old = {"Authorization": f"Bearer {desk['access_token']}"}
        assert (await world.http.get("/v1/tasks", headers=old)).status_code == 401
        for path in ("/oauth/introspect", "/oauth/revoke"):
            answer = await world.post(path, {"token": seen}, **old)
            assert_oauth_error(answer, "invalid_client", 401)
        assert not await door.alive(token["access_token"])
    assert await door.alive(seen)


async def test_a_stopped_client_is_told_nothing(door: FrontDoor, there: FrontDoor) -> None:
    """The other replica still takes it for active, and asks the ledger, which knows better."""
    detail = details((await door.task_of())["task_id"])
    form = door.form(door.identity("report-writer"), authorization_details=detail, resource=REPORTS)
    seen = expect(await door.bound(form, SENDER))["access_token"]

    async def told(world: FrontDoor, client: str) -> bool:
        answer = await world.post("/oauth/introspect", {"token": seen, **door.as_client(client)})
        return answer.status_code == 200 and answer.json()["active"]

    clients = "gateway", "desk"
    assert all([await told(world, client) for world in (door, there) for client in clients])
    for name in clients:
        await stop(door, "suspend", name)

    assert not any([await told(world, client) for world in (door, there) for client in clients])
    refused = await door.post("/oauth/revoke", {"token": seen, **door.as_client("desk")})
    assert refused.json()["error"] == "invalid_client"
    assert await door.alive(seen)


async def test_a_mark_alone_stops_an_exchange_with_the_same_error(door: FrontDoor) -> None:
    """Between the mark and the end of the tasks: refused, and as the token it came with is."""
    task = await door.task_of()
    detail = details(task["task_id"])
    for shard in range(door.config.redis.shards):
        field = f"broker:{{s{shard:02x}}}:frozen"
        await door.app.connection.command("HSET", field, "suspended:report-writer", "1|")

    for more in ({}, {"resource": ORDERS}):
        answer = await door.swap(
            door.identity("report-writer"), authorization_details=detail, **more
        )
        assert "suspended" in assert_oauth_error(answer, "invalid_request")
    headers = await bearer(door, "operator")
    assert (await door.http.get("/v1/tasks", headers=headers)).status_code == 200
