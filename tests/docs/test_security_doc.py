"""The threat model: what it says can't be done is held by tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/security.md").read_text("utf-8")
NAMED: Final = sorted(set(re.findall(r"`(tests/[^`]+\.py)::(\w+)`", PAGE)))


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[f"{p}-{n}" for p, n in NAMED])
def test_what_holds_a_claim_is_a_test_that_there_is(path: str, name: str) -> None:
    assert name in functions_of(path)


def test_each_claim_that_something_cant_be_done_says_what_holds_it() -> None:
    claims = re.findall(r"^\| can't \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    assert len(claims) > 30
    assert not [claim for claim, held in claims if "::" not in held and "no call" not in held]


def test_each_test_of_stolen_parts_is_on_the_page() -> None:
    tried = functions_of("tests/e2e/test_threats.py")
    named = {name for path, name in NAMED if path == "tests/e2e/test_threats.py"}
    assert {name for name in tried if name.startswith("test_")} == named
