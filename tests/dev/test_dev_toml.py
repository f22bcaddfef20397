"""What ``broker dev`` writes as TOML reads back the same."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.dev import toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
VALUE = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)


@given(st.dictionaries(TEXT, VALUE, max_size=5))
def test_it_reads_back_the_same(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml.dumps(document)) == document


ODD: list[dict[str, Any]] = [
    {"a": {"b": {"c": [{"d": 1}, {}]}}, "z": 1},
    {"rows": [{"x": date(2026, 1, 2)}, {"y": float("inf")}], "none": []},
    {"quoted key": {"": 'a"b\\c\n\x7f\x00'}},
    {"a": {}, "b": [], "c": [[]], "d": [{}]},
]


@pytest.mark.parametrize("document", ODD)
def test_odd_documents_read_back_the_same(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml.dumps(document)) == document


def test_the_example_configuration_reads_back_the_same() -> None:
    text = (Path(__file__).parents[2] / "config.example.toml").read_text("utf-8")
    document = tomllib.loads(text)
    assert tomllib.loads(toml.dumps(document)) == document
