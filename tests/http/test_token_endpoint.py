"""``POST /oauth/token``: every way a token request can be wrong, and what the error says."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.http.parties import (
    FORM,
    ORDERS,
    UNKNOWN_TASK,
    assert_oauth_error,
    details,
    exchange_form,
)

if TYPE_CHECKING:
    from tests.world import World

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


@pytest.mark.parametrize("name", ["grant_type", "subject_token", "subject_token_type"])
@pytest.mark.parametrize("how", ["missing", "empty", "doubled"])
async def test_required_parameters_are_given_exactly_once(
    world: World, name: str, how: str
) -> None:
    fields = [(k, v) for k, v in exchange_form(world, "orchestrator").items() if k != name]
    good = exchange_form(world, "orchestrator")[name]
    fields += {"missing": [], "empty": [(name, "")], "doubled": [(name, good)] * 2}[how]

    answer = await world.http.post("/oauth/token", content=urlencode(fields), headers=FORM)

    assert name in assert_oauth_error(answer, "invalid_request")


@pytest.mark.parametrize(
    "name",
    [
        "actor_token",
        "actor_token_type",
        "requested_token_type",
        "scope",
        "authorization_details",
    ],
)
async def test_optional_parameters_are_not_doubled(world: World, name: str) -> None:
    fields = [*exchange_form(world, "orchestrator").items(), (name, "x"), (name, "x")]

    answer = await world.http.post("/oauth/token", content=urlencode(fields), headers=FORM)

    assert name in assert_oauth_error(answer, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": "client_credentials"}, "invalid_request"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"grant_type": "\0"}, "unsupported_grant_type"),
        ({"subject_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"scope": "orders.read"}, "invalid_scope"),
        ({"subject_token": "x"}, "invalid_request"),
        ({"subject_token": "x" * 20_000}, "invalid_request"),
        ({"subject_token": "ü.\ud7ff.\U0001f511"}, "invalid_request"),
        ({"subject_token": "\0"}, "invalid_request"),
        ({"subject_token": '..""\\'}, "invalid_request"),
    ],
)
async def test_wrong_values_are_named(world: World, changes: dict[str, str], error: str) -> None:
    form = {**exchange_form(world, "orchestrator"), **changes}

    answer = await world.http.post("/oauth/token", data=form)

    assert_oauth_error(answer, error)


async def test_optional_parameters_sent_empty_count_as_omitted(world: World) -> None:
    # RFC 6749 section 3.2: "Parameters sent without a value MUST be treated as if they were
    # omitted from the request."
    empty = {"scope": "", "actor_token": "", "authorization_details": ""}
    form = {**exchange_form(world, "orchestrator"), **empty}

    answer = await world.http.post("/oauth/token", data=form)

    assert answer.status_code == 200, answer.text


async def test_unknown_parameters_are_ignored(world: World) -> None:
    form = {**exchange_form(world, "orchestrator"), "unheard_of": "x"}

    assert (await world.http.post("/oauth/token", data=form)).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "",
        "application/x-www-form-urlencodedx",
    ],
)
async def test_only_forms_are_read(world: World, content_type: str) -> None:
    content = urlencode(exchange_form(world, "orchestrator"))

    answer = await world.http.post(
        "/oauth/token", content=content, headers={"Content-Type": content_type}
    )

    assert "application/x-www-form-urlencoded" in assert_oauth_error(answer, "invalid_request")


async def test_a_charset_on_the_content_type_does_no_harm(world: World) -> None:
    answer = await world.http.post(
        "/oauth/token",
        content=urlencode(exchange_form(world, "orchestrator")),
        headers={"Content-Type": "Application/X-WWW-Form-UrlEncoded; charset=utf-8"},
    )

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"grant_type=%ff",
        b"&&&",
        b"=",
        b"&".join([b"a=1"] * 60),
        b"{}",
        b"grant_type",
        "grant_type=ü".encode(),
    ],
)
async def test_malformed_forms_are_invalid_requests(world: World, content: bytes) -> None:
    answer = await world.http.post("/oauth/token", content=content, headers=FORM)

    assert_oauth_error(answer, "invalid_request")


async def test_a_form_over_the_limit_is_refused(world: World) -> None:
    answer = await world.http.post("/oauth/token", content=b"a=" + b"x" * 70_000, headers=FORM)

    assert answer.status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_only_post_is_answered(world: World, method: str) -> None:
    answer = await world.http.request(method, "/oauth/token")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


BAD_TARGETS = [
    "orders",
    "/oauth",
    "//127.0.0.1:8700",
    "urn:x",
    "http:",
    "http://127.0.0.1:8700#",
    "http://127.0.0.1:8700#frag",
    "http://127.0.0.1:8700/",
    "HTTP://127.0.0.1:8700",
    "http://127.0.0.1:8700@evil.example",
    "http://[::1",
    "http://[not-an-address]/",
    "http://exa\u2100mple.com",
    "",
    " http://127.0.0.1:8700",
    "http://127.0.0.1:8700\n",
    ORDERS,
]


@pytest.mark.parametrize("target", BAD_TARGETS)
@pytest.mark.parametrize("name", ["resource", "audience"])
async def test_a_token_is_for_the_broker_itself_or_not_at_all(
    world: World, name: str, target: str
) -> None:
    form = {**exchange_form(world, "orchestrator"), name: target}

    answer = await world.http.post("/oauth/token", data=form)

    assert_oauth_error(answer, "invalid_target")


async def test_every_one_of_repeated_targets_counts(world: World) -> None:
    issuer = world.config.broker.issuer
    form = list(exchange_form(world, "orchestrator").items())
    good = [*form, ("resource", issuer), ("audience", issuer)]
    bad = [*form, ("resource", ORDERS)]

    accepted = await world.http.post("/oauth/token", content=urlencode(good), headers=FORM)
    refused = await world.http.post("/oauth/token", content=urlencode(bad), headers=FORM)

    assert accepted.status_code == 200
    assert_oauth_error(refused, "invalid_target")


async def test_without_a_target_the_token_is_for_the_broker(world: World) -> None:
    form = exchange_form(world, "orchestrator")
    del form["resource"]

    answer = await world.http.post("/oauth/token", data=form)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "null",
        "{}",
        "[]",
        "[[]]",
        "[null]",
        '["broker_task"]',
        "7",
        "NaN",
        "[" * 5000,
        '[{"type":"broker_task"}]',
        '[{"type":"payment","task_id":"tsk_x"}]',
        '[{"task_id":"tsk_x"}]',
        '[{"type":["broker_task"],"task_id":"tsk_x"}]',
        '[{"type":"broker_task","task_id":7}]',
        '[{"type":"broker_task","task_id":null}]',
        '[{"type":"broker_task","task_id":"\\ud800"}]',
        '[{"type":"broker_task","task_id":"tsk_*"}]',
        '[{"type":"broker_task","task_id":""}]',
        details(UNKNOWN_TASK),
        details("tsk_ff000000000000000000000000"),
        f'[{{"type":"broker_task","task_id":{"9" * 5000}}}]',
    ],
)
async def test_an_agent_names_one_task_that_is_its_own(world: World, text: str) -> None:
    form = {**exchange_form(world, "report-writer"), "authorization_details": text}

    answer = await world.http.post("/oauth/token", data=form)

    assert_oauth_error(answer, "invalid_authorization_details")


async def test_details_with_more_than_the_task_are_refused(world: World) -> None:
    task_id = (await world.open())["task_id"]
    base = exchange_form(world, "report-writer")
    for text in (
        details(task_id, actions=["grant"]),
        details(task_id)[:-1] + "," + details(task_id)[1:],
    ):
        answer = await world.http.post("/oauth/token", data={**base, "authorization_details": text})
        assert_oauth_error(answer, "invalid_authorization_details")


async def test_unknown_foreign_and_ended_tasks_look_the_same(world: World) -> None:
    foreign = (await world.open(agent="order-clerk"))["task_id"]
    ended = await world.open()
    await world.complete(ended)
    answers = [
        await world.exchange("report-writer", task_id)
        for task_id in (UNKNOWN_TASK, foreign, ended["task_id"])
    ]

    for answer in answers:
        assert_oauth_error(answer, "invalid_authorization_details")
    assert len({answer.text for answer in answers}) == 1


async def test_an_expired_task_that_no_sweep_has_seen_yet_gives_no_token(world: World) -> None:
    task = await world.open(ttl="1ms")

    answer = await world.exchange("report-writer", task["task_id"])

    assert_oauth_error(answer, "invalid_authorization_details")


async def test_an_agent_without_a_task_gets_no_token(world: World) -> None:
    assert_oauth_error(await world.exchange("report-writer"), "invalid_authorization_details")


@pytest.mark.parametrize("name", ["orchestrator", "operator", "auditor", "orders-service"])
async def test_only_agents_name_a_task(world: World, name: str) -> None:
    task_id = (await world.open())["task_id"]

    assert_oauth_error(await world.exchange(name, task_id), "invalid_authorization_details")
