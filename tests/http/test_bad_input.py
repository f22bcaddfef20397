"""What no client should send: always a problem that says what is wrong, never a 500."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.parties import JSON, UNKNOWN_TASK, assert_problem, bearer

if TYPE_CHECKING:
    import httpx2

    from tests.world import World

TASK: dict[str, Any] = {
    "agent": "report-writer",
    "purpose": "the weekly report",
    "capabilities": ["orders-read"],
}
REVOKE: dict[str, Any] = {"selector": {"agent": "report-writer"}, "reason": "why not"}
NASTY = [
    "\0",
    "a\0b",
    "\x1b[2J",
    "|",
    "report-writer|",
    "report-writer|0",
    "*",
    "report-*",
    "[a-z]",
    "?",
    "%d%s",
    "%1",
    "'); redis.call('FLUSHALL') --",
    "\r\nFLUSHALL\r\n",
    "{s00}",
    "broker:{s00}:tasks",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "\u202e",
    "\uffff",
    "\U0010ffff",
    "x" * 5000,
    "",
    " ",
    "\n",
    "-",
    "+",
    "(",
    "[",
    "\xff",
]


async def send(
    world: World, content: str | bytes, path: str = "/v1/tasks", name: str = "orchestrator"
) -> httpx2.Response:
    headers = {**JSON, **await bearer(world, name)}
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return await world.http.post(path, content=raw, headers=headers)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "{]",
        "nul",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        '{"agent": "report-writer",}',
        "{'agent': 1}",
        "[" * 20_000,
        '{"a":' * 10_000,
        f'{{"a": {"9" * 5000}}}',
        b'{"agent": "\xed\xa0\x80"}',
    ],
)
async def test_malformed_json_is_an_invalid_request(world: World, content: str | bytes) -> None:
    assert_problem(await send(world, content), 400, "invalid_request")


@pytest.mark.parametrize("content", ["null", "[]", "7", '"text"', "true", "NaN", "[{}]"])
async def test_a_body_is_an_object(world: World, content: str) -> None:
    for path in ("/v1/tasks", f"/v1/tasks/{UNKNOWN_TASK}/complete"):
        assert_problem(await send(world, content, path), 400, "invalid_request")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_only_json_is_read(world: World, content_type: str) -> None:
    headers = {"Content-Type": content_type, **await bearer(world, "orchestrator")}

    answer = await world.http.post("/v1/tasks", content=json.dumps(TASK), headers=headers)

    assert_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent", None),
        ("agent", 7),
        ("agent", ["report-writer"]),
        ("agent", "Report-Writer"),
        ("agent", "report-writer\n"),
        ("agent", "-x"),
        ("agent", "a" * 65),
        ("purpose", None),
        ("purpose", {}),
        ("purpose", "x" * 1001),
        ("purpose", "   "),
        ("purpose", "\0"),
        ("capabilities", None),
        ("capabilities", []),
        ("capabilities", "orders-read"),
        ("capabilities", {"orders-read": True}),
        ("capabilities", [None]),
        ("capabilities", ["orders-read"] * 51),
        ("capabilities", ["orders|read"]),
        ("ttl", 900),
        ("ttl", 1.5),
        ("ttl", True),
        ("ttl", ""),
        ("ttl", "0s"),
        ("ttl", "-5m"),
        ("ttl", "5"),
        ("ttl", "5 m"),
        ("ttl", "5m\n"),
        ("ttl", "1e3s"),
        ("ttl", "٣m"),
        ("ttl", "9999999999d"),
        ("ttl", "999999999d"),
        ("ttl", "1s1m"),
        ("ttl", "1" * 5000 + "s"),
        ("ttl", float("nan")),
        ("ttl", float("inf")),
        ("parent_task_id", 7),
        ("parent_task_id", "x" * 65),
        ("on_behalf_of", ""),
        ("on_behalf_of", ["ada"]),
        ("on_behalf_of", "x" * 16385),
        ("context", []),
        ("context", "x"),
        ("context", {"a": float("nan")}),
        ("context", {"a": [float("-inf")]}),
        ("context", {"a": "x" * 4096}),
        ("context", {"\ud800": 1}),
        ("context", {"a": "\udfff"}),
        ("heartbeat", "1ms"),
        ("heartbeat", 5),
    ],
)
async def test_a_field_of_the_wrong_kind_is_named(world: World, field: str, value: Any) -> None:
    answer = await send(world, json.dumps({**TASK, field: value}))

    body = assert_problem(answer, 400, "invalid_request")
    named = [row["field"] for row in body.get("errors", [])] or [body["field"]]
    assert all(name.split(".")[0] == field for name in named), body


@pytest.mark.parametrize("field", list(TASK))
async def test_a_missing_field_is_named(world: World, field: str) -> None:
    answer = await send(world, json.dumps({k: v for k, v in TASK.items() if k != field}))

    body = assert_problem(answer, 400, "invalid_request")
    assert body["errors"] == [{"field": field, "reason": "required"}]


@pytest.mark.parametrize("field", ["Agent", "agents", "state", "task_id", "", "|", "\0", "x" * 500])
async def test_an_unknown_field_is_named(world: World, field: str) -> None:
    body = assert_problem(await send(world, json.dumps({**TASK, field: 1})), 400, "invalid_request")

    assert [row["reason"] for row in body["errors"]] == ["unknown field"]
    assert body["errors"][0]["field"] in (field[:200] or "body")


@pytest.mark.parametrize("field", ["\\ud800", "a\\udfffb"])
async def test_a_field_name_that_is_no_text_is_refused(world: World, field: str) -> None:
    content = json.dumps(TASK)[:-1] + f', "{field}": 1}}'

    assert_problem(await send(world, content), 400, "invalid_request")


@pytest.mark.parametrize("field", ["agent", "purpose", "parent_task_id", "on_behalf_of"])
async def test_a_value_that_is_no_text_is_refused(world: World, field: str) -> None:
    content = json.dumps({**TASK, field: "SURROGATE"}).replace("SURROGATE", "\\ud800")

    assert_problem(await send(world, content), 400, "invalid_request")


async def test_a_thousand_errors_make_a_short_answer(world: World) -> None:
    content = json.dumps({**TASK, **{f"f{i}": i for i in range(4000)}})

    answer = await send(world, content)

    assert_problem(answer, 400, "invalid_request")
    assert len(answer.content) < 16_384


@pytest.mark.parametrize("nasty", NASTY)
async def test_nothing_in_a_string_means_anything_to_the_ledger(world: World, nasty: str) -> None:
    task = await world.open()
    base = f"/v1/tasks/{task['task_id']}"
    ask = {"capability": "orders-read"}
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("orchestrator", "/v1/tasks", {**TASK, "agent": nasty}),
        ("orchestrator", "/v1/tasks", {**TASK, "capabilities": [nasty]}),
        ("orchestrator", "/v1/tasks", {**TASK, "parent_task_id": nasty}),
        ("orchestrator", f"{base}/grants", {"capability": nasty}),
        ("orchestrator", f"{base}/grants", {**ask, "ttl": nasty}),
        ("orchestrator", f"{base}/grants", {**ask, "parameters": {nasty: nasty}}),
        ("orchestrator", f"{base}/complete", {"outcome": nasty}),
        ("operator", "/v1/revocations", {**REVOKE, "selector": {nasty: "x"}}),
        *(
            ("operator", "/v1/revocations", {**REVOKE, "selector": {kind: nasty}})
            for kind in ("agent", "capability", "backend", "task_id", "grant_id", "owner", "all")
        ),
    ]
    for name, path, body in bodies:
        answer = await send(world, json.dumps(body), path, name)
        # An owner may have almost any name: nobody of that name has anything to revoke.
        fine = answer.status_code == 200 and answer.json()["matched"] == 0
        assert fine or 400 <= answer.status_code < 500, (path, body, answer.text)

    shown = await world.show_task(task["task_id"])
    assert shown["state"] == "active"


@pytest.mark.parametrize("nasty", NASTY)
async def test_texts_come_back_as_they_were_or_are_refused(world: World, nasty: str) -> None:
    context = {"key": nasty, nasty: 1}
    answer = await send(world, json.dumps({**TASK, "purpose": nasty, "context": context}))

    if answer.status_code == 400:
        assert not nasty.strip() or len(nasty) > 1000 or any(ord(c) < 32 for c in nasty)
        return
    assert answer.status_code == 201, answer.text
    shown = await world.show_task(answer.json()["task_id"])
    assert shown["purpose"] == nasty
    assert shown["context"] == context


async def test_a_context_is_kept_whatever_json_it_is(world: World) -> None:
    deep: Any = "bottom"
    for _ in range(15):
        deep = {"a": [deep]}
    context: dict[str, Any] = {
        "": None,
        "n": -0.0,
        "big": 10**300,
        "deep": deep,
        "list": [[], {}, ""],
        "\0": "\0",
    }

    answer = await send(world, json.dumps({**TASK, "context": context}))

    assert answer.status_code == 201, answer.text
    assert answer.json()["context"] == context
    task_id = answer.json()["task_id"]
    assert (await world.show_task(task_id))["context"] == context
    listed = (await world.call("operator", "GET", "/v1/tasks")).json()["items"]
    assert [item["task_id"] for item in listed] == [task_id]


@pytest.mark.parametrize("levels", [31, 32, 33, 100, 300, 680])
async def test_a_nested_context_is_kept_or_refused(world: World, levels: int) -> None:
    content = json.dumps({**TASK, "context": "X"}).replace(
        '"X"', '{"a":' * levels + "0" + "}" * levels
    )

    answer = await send(world, content)

    if levels <= 32:
        assert answer.status_code == 201, answer.text
    else:
        assert_problem(answer, 400, "invalid_request")
    listed = await world.call("operator", "GET", "/v1/tasks")
    assert listed.status_code == 200
