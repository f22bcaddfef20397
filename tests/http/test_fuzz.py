"""Whatever is sent, the answer is below 500, and an error has one of the two documented forms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.parties import FORM, JSON, UNKNOWN_TASK, bearer, exchange_form

if TYPE_CHECKING:
    import httpx2

    from tests.world import World

FUZZ: Final = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMES: Final = ("orchestrator", "operator", "auditor", "orders-service")
WORDS: Final = st.sampled_from(
    [
        "orders-read",
        "orders-api",
        "report-writer",
        "order-clerk",
        "completed",
        "5m",
        "1ms",
        "all",
        UNKNOWN_TASK,
        "\0",
        "|",
        "*",
        "\ud800",
        "",
    ]
)
SCALARS: Final = WORDS | st.text() | st.none() | st.booleans() | st.integers() | st.floats()
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELDS: Final = st.sampled_from(
    [
        "agent",
        "purpose",
        "capabilities",
        "ttl",
        "parent_task_id",
        "on_behalf_of",
        "context",
        "heartbeat",
        "capability",
        "parameters",
        "intent",
        "outcome",
        "summary",
        "selector",
        "reason",
        "freeze",
        "unheard_of",
    ]
)
SELECTORS: Final = st.dictionaries(
    st.sampled_from(["grant_id", "task_id", "agent", "owner", "capability", "backend", "all"]),
    SCALARS,
    max_size=2,
)
GOOD: Final[dict[str, Any]] = {
    "agent": "report-writer",
    "purpose": "x",
    "capabilities": ["orders-api"],
    "capability": "orders-api",
    "outcome": "completed",
    "reason": "x",
    "selector": {"agent": "nobody"},
}
SHAPES: Final = {
    "/v1/tasks": ("agent", "purpose", "capabilities"),
    "/v1/tasks/TASK/grants": ("capability",),
    "/v1/tasks/TASK/complete": ("outcome",),
    "/v1/tasks/TASK/heartbeat": (),
    "/v1/revocations": ("selector", "reason"),
    "/v1/freezes": ("selector", "reason"),
}


def assert_sound(answer: httpx2.Response, about: object) -> None:
    assert answer.status_code < 500, (about, answer.text)
    if answer.status_code < 400:
        return
    body = answer.json()
    if answer.headers["content-type"] == "application/problem+json":
        assert body["status"] == answer.status_code
        assert body["code"]
        assert body["detail"]
        assert body["type"] == f"urn:broker:problem:{body['code']}"
    else:
        assert set(body) == {"error", "error_description"}


@FUZZ
@given(
    path=st.sampled_from(list(SHAPES)),
    name=st.sampled_from(NAMES),
    changes=st.dictionaries(FIELDS, VALUES, max_size=3),
    selector=SELECTORS,
    key=st.none() | st.binary(max_size=20),
)
async def test_bodies(
    world: World,
    path: str,
    name: str,
    changes: dict[str, Any],
    selector: dict[str, Any],
    key: bytes | None,
) -> None:
    await world.app.connection.command("FLUSHALL")  # an earlier example may have frozen everything
    task = await world.open(capabilities=["orders-api"])
    body = {field: GOOD[field] for field in SHAPES[path]} | changes
    if selector and "selector" in body:
        body["selector"] = selector
    headers = [(k.encode(), v.encode()) for k, v in (await bearer(world, name)).items()]
    headers += [(b"content-type", b"application/json")]
    if key is not None:
        headers.append((b"idempotency-key", key))

    answer = await world.http.post(
        path.replace("TASK", task["task_id"]), content=json.dumps(body), headers=headers
    )

    assert_sound(answer, (path, name, body, key))
    shown = await world.call("operator", "GET", "/v1/tasks")
    assert shown.status_code == 200, (path, body, shown.text)


@FUZZ
@given(
    content=st.binary(max_size=300) | VALUES.map(lambda v: json.dumps(v).encode()),
    path=st.sampled_from(list(SHAPES)),
)
async def test_bytes(world: World, content: bytes, path: str) -> None:
    headers = {**JSON, **await bearer(world, "orchestrator")}

    answer = await world.http.post(
        path.replace("TASK", UNKNOWN_TASK), content=content, headers=headers
    )

    assert_sound(answer, content)


TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]))


@FUZZ
@given(
    prefix=st.sampled_from(["/v1/tasks/", "/v1/grants/", "/v1/", "/oauth/", "/.well-known/", "/"]),
    rest=TEXTS,
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"]),
)
async def test_paths(world: World, prefix: str, rest: str, method: str) -> None:
    headers = await bearer(world, "operator")

    answer = await world.http.request(method, prefix + quote(rest), headers=headers)

    assert answer.status_code < 500
    if method != "HEAD":
        assert_sound(answer, (method, prefix, rest))


@FUZZ
@given(
    path=st.sampled_from(["/v1/tasks", "/v1/grants", "/v1/audit/events", "/v1/freezes"]),
    query=st.lists(
        st.tuples(
            st.sampled_from(["state", "agent", "task_id", "limit", "cursor", "after"]),
            WORDS.filter(lambda w: w != "\ud800")
            | TEXTS
            | st.integers().map(str)
            | st.from_regex(r"[0-9]{1,25}-[0-9a-f]{1,3}-[0-9]{1,25}", fullmatch=True)
            | st.from_regex(r"[0-9]{1,25}\|(tsk|grt)_[0-9a-z]{26}", fullmatch=True),
        ),
        max_size=4,
    ),
)
async def test_queries(world: World, path: str, query: list[tuple[str, str]]) -> None:
    headers = await bearer(world, "operator")

    answer = await world.http.get(f"{path}?{urlencode(query)}", headers=headers)

    assert_sound(answer, query)


@FUZZ
@given(
    changes=st.dictionaries(
        st.sampled_from(
            [
                "grant_type",
                "subject_token",
                "subject_token_type",
                "resource",
                "audience",
                "authorization_details",
                "scope",
            ]
        ),
        TEXTS | VALUES.map(json.dumps) | st.from_regex(r"[a-z]+://[\[\]:@/#?a-z0-9]*"),
        max_size=3,
    ),
    name=st.sampled_from(["orchestrator", "report-writer"]),
)
async def test_token_requests(world: World, changes: dict[str, str], name: str) -> None:
    form = exchange_form(world, name) | changes

    answer = await world.http.post("/oauth/token", content=urlencode(form), headers=FORM)

    assert_sound(answer, changes)


@FUZZ
@given(content=st.binary(max_size=300))
async def test_token_request_bytes(world: World, content: bytes) -> None:
    answer = await world.http.post("/oauth/token", content=content, headers=FORM)

    assert_sound(answer, content)


@FUZZ
@given(
    value=st.binary(max_size=60), scheme=st.sampled_from([b"Bearer ", b"bearer\t", b"", b"DPoP "])
)
@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/audit/events"])
async def test_authorization_headers(world: World, path: str, value: bytes, scheme: bytes) -> None:
    answer = await world.http.get(path, headers=[(b"authorization", scheme + value)])

    assert answer.status_code == 401
    assert_sound(answer, value)
