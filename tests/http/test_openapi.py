"""The OpenAPI document says what the routes do, and is the one that is committed."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from jsonschema_rs import meta
from pydantic import BaseModel

from broker.http import shapes
from broker.http.openapi import answers, written
from broker.http.problems import STATUS
from tests.http.test_error_tree import CLASSES

if TYPE_CHECKING:
    from tests.world import World

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final[dict[str, Any]] = json.loads((ROOT / "docs/openapi.json").read_text("utf-8"))
"""The committed one, which the first test compares: each worker of pytest would make it anew."""
PROBLEM: Final = "application/problem+json"
FORM: Final = "application/x-www-form-urlencoded"

OPERATIONS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    operation["operationId"]: (path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for operation in methods.values()
}
each_operation = pytest.mark.parametrize(
    ("path", "operation"), OPERATIONS.values(), ids=OPERATIONS.keys()
)


async def test_the_committed_document_is_the_one_served(world: World) -> None:
    answer = await world.http.get("/openapi.json")

    assert answer.status_code == 200
    committed = (ROOT / "docs/openapi.json").read_text("utf-8")
    assert written(answer.json()) == committed, "run `make openapi` and commit docs/openapi.json"


@each_operation
def test_an_operation_says_what_it_answers(path: str, operation: dict[str, Any]) -> None:
    stated = operation["responses"]
    good = [status for status in stated if status.startswith("2")]
    assert len(good) >= 1, "state its answers: responses=answers(…)"
    assert "413" in stated
    for status in good:
        for content in stated[status].get("content", {}).values():
            assert content["schema"], (status, "names no shape: responses=answers(…)")
            assert content["schema"] == {"type": "string"} or "$ref" in content["schema"]
    for status in set(stated) - set(good):
        kinds = set(stated[status]["content"])
        assert kinds == ({PROBLEM} if path.startswith("/v1/") or status == "413" else kinds)
        assert kinds <= {PROBLEM, "application/json"}
    assert operation["summary"]
    assert not operation["summary"].endswith(".")


@each_operation
def test_an_operation_needs_a_token_or_says_that_it_does_not(
    path: str, operation: dict[str, Any]
) -> None:
    if path == "/v1/login":  # whoever isn't logged in yet asks where to
        assert operation["security"] == []
    elif path.startswith("/v1/"):
        assert "security" not in operation
        assert "401" in operation["responses"]
    assert DOCUMENT["security"] == [{"bearer": []}, {"dpop": []}]


def test_a_route_that_the_configuration_switches_says_so() -> None:
    """What isn't there without a section is in the document all the same, and says 404."""
    path, login = OPERATIONS["show_login"]

    assert path == "/v1/login"
    assert login["responses"].keys() >= {"200", "404"}
    assert login["security"] == []
    assert not any("console" in path for path in DOCUMENT["paths"])  # pages aren't the API


@each_operation
def test_links_name_operations_and_their_parameters(path: str, operation: dict[str, Any]) -> None:
    for answer in operation["responses"].values():
        for link in answer.get("links", {}).values():
            _, target = OPERATIONS[link["operationId"]]
            names = {str(parameter["name"]) for parameter in target["parameters"]}
            assert set(link["parameters"]) <= names


def test_operations_have_names_of_their_own() -> None:
    assert len(OPERATIONS) == sum(len(methods) for methods in DOCUMENT["paths"].values())


def test_there_is_no_form_of_fastapis_own() -> None:
    assert "ValidationError" not in written(DOCUMENT)


def test_every_reference_leads_somewhere_and_every_shape_is_used() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    named = re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', written(DOCUMENT))

    assert set(named) == set(schemas)


def test_every_shape_is_a_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_the_codes_of_problems_are_those_of_the_error_tree() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    stated = {
        code
        for name, schema in schemas.items()
        if re.fullmatch(r"Problem\d+", name)
        for code in schema["properties"]["code"]["enum"]
    }
    internal = {"internal_error", "config_invalid", "oauth_error"}

    assert stated == {cls.code for cls in CLASSES} - internal


def test_every_member_that_a_problem_is_given_is_stated() -> None:
    names = {cls.__name__ for cls in CLASSES} - {"OAuthError", "ConfigError"}
    given = {
        (keyword.arg, path.name)
        for path in (ROOT / "broker").rglob("*.py")
        if path.parent.name != "client"  # its errors are its own
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
        for keyword in node.keywords
    }
    not_members = {"retry_after", "headers", "nonce", "head", None}
    stated = DOCUMENT["components"]["schemas"]["Problem400"]["properties"]

    assert {pair for pair in given if pair[0] not in {*stated, *not_members}} == set()
    assert {name for name, _ in given} >= {"decision_id", "field", "state"}


@pytest.mark.parametrize("shape", [c for c in vars(shapes).values() if isinstance(c, type)])
def test_every_member_of_a_shape_is_required(shape: type) -> None:
    if issubclass(shape, BaseModel):
        assert all(field.is_required() for field in shape.model_fields.values())


def test_what_is_always_refused_need_not_be_named() -> None:
    assert list(answers(200, shapes.Task, 404)) == [200, 401, 404, 413, 503]
    assert list(answers(200, shapes.Task, 400, oauth=True)) == [200, 400, 413, 503]


def test_a_status_that_no_error_has_cannot_be_stated() -> None:
    assert 418 not in STATUS.values()
    with pytest.raises(KeyError):
        answers(200, shapes.Task, 418)
