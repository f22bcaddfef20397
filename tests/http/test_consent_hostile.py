"""What no client should send to approvals, elevations and reviews; and where arguments may be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.ids import new_id
from tests.http.parties import assert_problem
from tests.keys_check import assert_no_immortal_keys

if TYPE_CHECKING:
    import httpx2

    from tests.http.consenting import ConsentWorld

CANARY: Final = "hunter2-canary-9f3c1a"
ODD: Final = [
    "\0",
    "a\0b",
    "\x1b[2J",
    "\ud800",
    "a\udfff",
    "x" * 1_100_000,
    "",
    " ",
    7,
    None,
    ["x"],
]
NO_IDS: Final = ["apr_", "x", "apr_zz", "tsk_00000000000000000000000000", "%00", "apr_%F0%9F%92%A9"]


UNASKABLE: Final[list[Any]] = [
    "\ud800",
    "x" * 1_100_000,
    [[[[[[[[[[]]]]]]]]]],
    1e300,
    {"a": {"b": {}}},
]


async def question(
    world: ConsentWorld, task: dict[str, Any], arguments: Any, *, tool: str = "deploy"
) -> httpx2.Response:
    body = {
        "subject": {"type": "task", "id": task["task_id"]},
        "action": {"name": "call_tool"},
        "resource": {"type": "tool", "id": tool},
        "context": {"arguments": arguments},
    }
    # As it is written: lone surrogates and all.
    headers = {
        "Authorization": f"Bearer {await world.token(task['agent'], task['task_id'])}",
        "Content-Type": "application/json",
    }
    return await world.http.post("/access/v1/evaluation", content=json.dumps(body), headers=headers)


async def send(world: ConsentWorld, name: str, path: str, body: Any, task: Any) -> httpx2.Response:
    token = await world.token(name, task["task_id"] if name == task["agent"] else None)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return await world.http.post(path, content=json.dumps(body), headers=headers)


async def test_odd_words_are_refused_and_change_nothing(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task)
    broken = (await consent.break_glass(await consent.open(agent="report-writer"))).json()
    base = f"/v1/tasks/{task['task_id']}"
    for odd in ODD:
        tries: list[tuple[str, str, Any]] = [
            ("report-writer", f"{base}/elevations", {"capability": "orders-admin", "intent": odd}),
            ("report-writer", f"{base}/break-glass", {"capability": "orders-admin", "intent": odd}),
            ("alice", f"/v1/approvals/{approval}/approve", {"reason": odd}),
            ("alice", f"/v1/approvals/{approval}/deny", {"reason": odd}),
            ("alice", f"/v1/reviews/{broken['elevation_id']}/close", {"findings": odd}),
        ]
        if odd is not None:
            grant = {"capability": "orders-admin", "intent": odd}
            tries.append(("report-writer", f"{base}/grants", grant))
        for name, path, body in tries:
            answer = await send(consent, name, path, body, task)
            assert answer.status_code in (400, 413), (path, repr(odd)[:40], answer.text)
    shown = await consent.approval(approval)
    assert (shown["state"], shown["votes"]) == ("pending", [])
    await assert_no_immortal_keys(consent)


@pytest.mark.parametrize(
    "wait", ["x", "-1s", "1e9s", "61s", "30", "0", "1s1s", "%00", "30s&wait=9h"]
)
async def test_a_wait_that_is_none_is_refused(consent: ConsentWorld, wait: str) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task)
    answer = await consent.api("alice", "GET", f"/v1/approvals/{approval}?wait={wait}")
    assert_problem(answer, 400, "invalid_request")


async def test_ids_and_cursors_that_are_none(consent: ConsentWorld) -> None:
    task = await consent.open()
    beyond = [new_id("apr", shard) for shard in (1, 200, 255)]
    for name in (*NO_IDS, *beyond):
        for method, rest in (("GET", ""), ("POST", "/approve"), ("POST", "/deny"), ("DELETE", "")):
            body = {"reason": "x"} if method == "POST" else None
            answer = await consent.api("alice", method, f"/v1/approvals/{name}{rest}", body)
            assert answer.status_code in (400, 404), (name, answer.text)
    for name in (*NO_IDS, new_id("elv", 255), new_id("elv", 1)):
        closed = await consent.api("alice", "POST", f"/v1/reviews/{name}/close", {"findings": "x"})
        assert closed.status_code in (400, 404), closed.text
        path = f"/v1/tasks/{task['task_id']}/elevations/{name}"
        ended = await consent.api("alice", "DELETE", path)
        assert ended.status_code in (400, 404), ended.text
    for cursor in ("x", "|", "%7C%7C%7C", "%00", "%FF", "(", "[", "-", "%2B", "9" * 900):
        for path in ("/v1/approvals", "/v1/reviews"):
            answer = await consent.api("alice", "GET", f"{path}?cursor={cursor}")
            assert answer.status_code in (200, 400), answer.text
    for query in ("state=used%00", "state=PENDING", "limit=0", "limit=x", "task_id=x"):
        answer = await consent.api("alice", "GET", f"/v1/approvals?{query}")
        assert answer.status_code in (400, 404), answer.text


async def test_pages_go_through_all_there_are(consent: ConsentWorld) -> None:
    asked: set[str] = set()
    for _ in range(5):
        task = await consent.open(capabilities=["orders-admin"])
        asked.add(await consent.asked(task))
    found: list[str] = []
    cursor = ""
    while True:
        page = (await consent.api("alice", "GET", f"/v1/approvals?limit=2{cursor}")).json()
        found += [row["approval_id"] for row in page["items"]]
        if not page["next"]:
            break
        cursor = f"&cursor={page['next']}"
    assert len(found) == len(set(found))
    assert asked <= set(found)


async def test_arguments_are_shown_exactly_as_they_were_sent(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["deploy-tool"])
    texts = ['é e\u0301 \U0001f4a9 \u2028 " \\ </script>', "{}", "1e300", "null", "\t\n"]
    for text in texts:
        sent = {"service": text, "version": "2"}
        answer = await question(consent, task, sent)
        asked = answer.json()["context"]["access_request"]["id"]
        assert (await consent.approval(asked))["request"]["arguments"] == sent


@pytest.mark.parametrize("value", UNASKABLE)
async def test_arguments_that_cannot_be_asked_for_are_no_server_error(
    consent: ConsentWorld, value: Any
) -> None:
    task = await consent.open(capabilities=["deploy-tool"])
    answer = await question(consent, task, {"service": "shop", "version": value})
    assert answer.status_code in (200, 400, 413), answer.text
    if answer.status_code == 200:
        assert answer.json()["decision"] is False


async def everything(world: ConsentWorld) -> dict[str, bytes]:
    """All that Redis holds, as it dumps it without packing: by key."""
    redis: Any = world.app.connection.client
    found: dict[str, bytes] = {}
    async for raw in redis.scan_iter(count=1000):
        key, kind = raw.decode(), (await redis.type(raw)).decode()
        match kind:
            case "hash":
                held: Any = await redis.hgetall(raw)
            case "zset":
                held = await redis.zrange(raw, 0, -1)
            case "stream":
                held = await redis.xrange(raw)
            case _:
                held = await redis.get(raw)
        found[key] = repr(held).encode()
    return found


@pytest.mark.parametrize("how", ["use", "deny", "expire", "cancel", "task"])
async def test_an_argument_is_only_where_it_has_to_be_decided_on(
    consent: ConsentWorld, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pitfall 24: arguments may hold anything; they are no longer kept than a human needs them."""
    task = await consent.open(capabilities=["deploy-tool"])
    sent = {"service": "shop", "version": CANARY}
    asked = (await question(consent, task, sent)).json()["context"]["access_request"]["id"]

    async def places() -> set[str]:
        held = await everything(consent)
        return {key.rpartition(":")[2] for key, value in held.items() if CANARY.encode() in value}

    assert await places() == {"approvals"}
    assert (await consent.approval(asked))["request"]["arguments"] == sent
    match how:
        case "use":
            await consent.say(asked)
            assert await places() == {"approvals"}
            assert (await question(consent, task, sent)).json()["decision"] is True
        case "deny":
            await consent.say(asked, yes=False)
        case "expire":
            await consent.sweep(ahead_ms=59 * 60_000 + 59_000)
            await consent.sweep(ahead_ms=61 * 60_000)
        case "cancel":
            await consent.api("alice", "DELETE", f"/v1/approvals/{asked}")
            await consent.complete(task)
        case _:
            await consent.complete(task)
    assert (await consent.approval(asked))["request"] is None
    assert await places() == set()
    assert CANARY not in json.dumps(await consent.events(task["task_id"]))
    told = capfd.readouterr()
    assert CANARY not in told.out + told.err
    await assert_no_immortal_keys(consent)
