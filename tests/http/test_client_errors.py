"""Every code that a broker answers with has a class of its own in the client, and its page."""

from __future__ import annotations

import inspect
import json
import re
from typing import Final

import pytest

import broker.client
from broker import errors as server
from broker.client import BrokerClientError, answers, reasons
from broker.client import errors as client
from broker.client.messages import Response
from broker.http.problems import oauth_problem, problem
from tests.docs.blocks import DOCS
from tests.http.test_error_tree import CLASSES, made

PAGE: Final = (DOCS / "sdk-connection.md").read_text("utf-8")
CODES: Final = {
    cls.code: cls
    for cls in reversed(CLASSES)
    if cls.__module__ == server.__name__ and cls is not server.OAuthError
}
OTHERS: Final = [cls for cls in CLASSES if cls.__module__ != server.__name__]
"""Errors of a part of the server alone, which the API has no business with."""
HERE_ONLY: Final = {
    client.BrokerClientError,
    client.ConnectionFailed,
    client.UnexpectedAnswer,
    reasons.IdentityUnavailable,
    reasons.IdentityMissing,
}
"""What no broker answers."""


def oauth_codes() -> set[str]:
    """What the token endpoint's source says as an ``error``, wherever it is written."""
    source = "".join(
        file.read_text("utf-8")
        for file in (DOCS.parent / "broker").rglob("*.py")
        if "client" not in file.parts and "dev" not in file.parts
    )
    raised = re.findall(r'OAuthError\(\s*"([a-z_]+)"', source)
    mapped = {json.loads(bytes(oauth_problem(made(cls)).body))["error"] for cls in CLASSES}
    return {*raised, *mapped}


def kinds() -> set[type[BrokerClientError]]:
    return {
        kind
        for module in (client, reasons)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, BrokerClientError)
    }


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_code_of_the_api_has_a_class(code: str) -> None:
    answer = problem(made(CODES[code]))
    error = answers.from_response(
        Response(answer.status_code, dict(answer.headers), bytes(answer.body))
    )
    assert type(error).code == code, f"{code} is only a {type(error).__name__}"
    assert (error.code, error.detail) == (code, "the detail")


@pytest.mark.parametrize("cls", OTHERS)
def test_a_part_of_the_server_is_told_apart_by_its_status(cls: type[server.BrokerError]) -> None:
    answer = problem(made(cls))
    error = answers.from_response(Response(answer.status_code, {}, bytes(answer.body)))
    told = client.Unavailable | client.NotFound | client.InvalidRequest | client.Unauthenticated
    assert isinstance(error, told)
    assert error.code == cls.code


def test_families_of_the_server_are_families_of_the_client() -> None:
    families = {
        server.Conflict: client.Conflict,
        server.QuotaExceeded: client.RateLimited,
        server.AuthenticationError: client.Unauthenticated,
        server.AccessDenied: client.Denied,
        server.Unavailable: client.Unavailable,
    }
    for cls in CODES.values():
        for family, ours in families.items():
            if issubclass(cls, family) and cls is not server.ApprovalRequired:  # a yes may come
                assert issubclass(answers.BY_CODE[cls.code], ours), cls


def test_every_error_of_the_token_endpoint_has_a_class() -> None:
    codes = oauth_codes()
    assert len(codes) > 12
    assert codes <= set(answers.BY_OAUTH_ERROR) | {"access_denied"}
    for code in codes:
        body = json.dumps({"error": code, "error_description": "Since."}).encode()
        error = answers.from_token_response(Response(400, {}, body))
        assert error.code == code
        assert type(error) is answers.BY_OAUTH_ERROR[code]


def test_each_class_is_for_one_code_at_each_place() -> None:
    assert len(set(answers.BY_CODE.values())) == len(answers.BY_CODE)
    assert len(set(answers.BY_OAUTH_ERROR.values())) == len(answers.BY_OAUTH_ERROR)
    told = {*answers.BY_CODE.values(), *answers.BY_OAUTH_ERROR.values()}
    assert kinds() - told == HERE_ONLY


def test_no_class_of_the_client_is_for_a_code_that_is_gone() -> None:
    assert set(answers.BY_CODE) <= set(CODES)
    assert set(answers.BY_OAUTH_ERROR) <= oauth_codes()


def test_each_class_is_public_drawn_in_the_tree_and_on_the_page() -> None:
    for kind in kinds():
        assert kind.__name__ in broker.client.__all__
        assert re.search(rf"\b{kind.__name__}\b", client.__doc__ or "")
        assert kind.__doc__
        if kind is not BrokerClientError:
            assert re.search(rf"(?m)^\|.*`{kind.__name__}`.*\|$", PAGE), kind.__name__
    for code in {*answers.BY_CODE, *answers.BY_OAUTH_ERROR}:
        assert f"`{code}`" in PAGE, code


@pytest.mark.parametrize("code", ["connection_failed", "unexpected_answer", "client_error", "new"])
@pytest.mark.parametrize(
    ("status", "kind"), [(403, client.Denied), (409, client.Conflict), (503, client.Unavailable)]
)
def test_other_codes_fall_back_to_what_the_status_stands_for(
    code: str, status: int, kind: type[BrokerClientError]
) -> None:
    body = json.dumps({"code": code, "detail": "Why."}).encode()
    assert type(answers.from_response(Response(status, {}, body))) is kind
