"""Every class of ``broker.errors``, wherever it is defined, has a status and shows no cause."""

from __future__ import annotations

import importlib
import json
import pkgutil
from typing import TYPE_CHECKING

import pytest

import broker
from broker import errors
from broker.http.problems import STATUS, oauth_problem, problem, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CAUSE = "hunter2-the-private-cause"
NOT_THE_SERVERS = ("broker.cli", "broker.client", "broker.dev", "broker.__main__")
SERVER_STATUSES = {400, 401, 403, 404, 409, 413, 422, 429, 500, 503}


def every_class() -> list[type[errors.BrokerError]]:
    """The tree, after importing every module that could add to it."""
    for module in pkgutil.walk_packages(broker.__path__, "broker."):
        if not module.name.startswith(NOT_THE_SERVERS):
            importlib.import_module(module.name)
    return list(dict.fromkeys(_below(errors.BrokerError)))


def _below(cls: type[errors.BrokerError]) -> Iterator[type[errors.BrokerError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _below(sub)


def made(cls: type[errors.BrokerError]) -> errors.BrokerError:
    """An instance as code raises it: public detail, private cause."""
    error = (
        errors.OAuthError("invalid_target", "the detail")
        if cls is errors.OAuthError
        else cls("the detail", retry_after=7)
    )
    try:
        raise error from RuntimeError(CAUSE)
    except errors.BrokerError as raised:
        return raised


CLASSES = every_class()


def test_the_tree_is_all_there() -> None:
    assert len(CLASSES) > 20
    assert set(STATUS) <= set(CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_a_problem_without_its_cause(cls: type[errors.BrokerError]) -> None:
    error = made(cls)

    answer = problem(error)

    assert answer.status_code == status_of(error)
    assert answer.status_code in SERVER_STATUSES
    assert answer.media_type == "application/problem+json"
    text = bytes(answer.body).decode()
    body = json.loads(text)
    assert set(body) == {"type", "title", "status", "code", "detail"}
    assert body["code"] == cls.code
    assert body["type"] == f"urn:broker:problem:{cls.code}"
    assert body["detail"] == "the detail"
    assert answer.headers["cache-control"] == "no-store"
    assert CAUSE not in text + repr(dict(answer.headers))
    assert (answer.headers.get("retry-after") == "7") == (cls is not errors.OAuthError)
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_an_oauth_error_without_its_cause(cls: type[errors.BrokerError]) -> None:
    answer = oauth_problem(made(cls))

    text = bytes(answer.body).decode()
    body = json.loads(text)
    assert set(body) == {"error", "error_description"}
    assert body["error_description"] == "the detail"
    assert answer.headers["cache-control"] == "no-store"
    assert CAUSE not in text + repr(dict(answer.headers))
    # Our fault is never called the client's: a client would give up instead of trying again.
    if status_of(made(cls)) >= 500:
        assert answer.status_code >= 500
        assert body["error"] in {"server_error", "temporarily_unavailable"}
    else:
        assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_without_a_detail_still_says_something(cls: type[errors.BrokerError]) -> None:
    error = errors.OAuthError("invalid_scope") if cls is errors.OAuthError else cls()

    assert json.loads(bytes(problem(error).body))["detail"]
    assert json.loads(bytes(oauth_problem(error).body))["error_description"]


@pytest.mark.parametrize(
    "detail", ['say "x"', "back\\slash", "dots…", "ключ", "\0\n\r\x7f", "\ud800"]
)
def test_a_description_keeps_to_the_characters_of_rfc_6749(detail: str) -> None:
    answer = oauth_problem(errors.OAuthError("invalid_request", detail))

    description = json.loads(bytes(answer.body))["error_description"]
    assert description
    assert all(" " <= c <= "~" and c not in '"\\' for c in description), description


def test_codes_are_distinct_and_stable_words() -> None:
    owned = [cls for cls in CLASSES if "code" in vars(cls)]

    assert len({cls.code for cls in owned}) == len(owned)
    assert all(cls.code.replace("_", "").isalpha() and cls.code.islower() for cls in owned)
