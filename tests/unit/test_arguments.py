"""Arguments in a closed world: what isn't declared is never let through (pitfall 20)."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.catalog import TOOL, Capability, Power
from broker.policy.arguments import MAX_TEXT, MAX_TEXTS, REASONS, BadArgument, amount_of, canonical
from broker.policy.schema import ARGUMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

MISSING: Final = object()


def tool(amount: str = "", **arguments: str) -> Capability:
    """A tool; a type with a question mark may be left out."""
    read = {name: (kind.removesuffix("?"), kind.endswith("?")) for name, kind in arguments.items()}
    return Capability("t", Power.READ, TOOL, 1, 1, arguments=read, amount=amount)


def decimal(text: str) -> dict[str, Any]:
    return {"__extn": {"fn": "decimal", "arg": text}}


GOOD: Final[list[tuple[str, object, object]]] = [
    ("string", "", ""),
    ("string", "naïve \U0001f600 \x00", "naïve \U0001f600 \x00"),
    ("string", "x" * MAX_TEXT, "x" * MAX_TEXT),
    ("integer", 0, 0),
    ("integer", -3, -3),
    ("integer", 3.0, 3),
    ("integer", -0.0, 0),
    ("integer", 2**63 - 1, 2**63 - 1),
    ("number", 3, decimal("3.0000")),
    ("number", 0.1, decimal("0.1000")),
    ("number", -2.5, decimal("-2.5000")),
    ("number", 1e3, decimal("1000.0000")),
    ("number", 1e-4, decimal("0.0001")),
    ("number", 922_337_203_685_477, decimal("922337203685477.0000")),
    ("boolean", True, True),
    ("strings", [], []),
    ("strings", ["a", "a"], ["a", "a"]),
    ("strings", ["x"] * MAX_TEXTS, ["x"] * MAX_TEXTS),
]


@pytest.mark.parametrize(("kind", "value", "expected"), GOOD, ids=lambda v: repr(v)[:30])
def test_what_is_of_its_type_is_taken(kind: str, value: object, expected: object) -> None:
    found = canonical(tool(x=kind), {"x": value})
    assert found == {"x": expected}
    assert type(found["x"]) is type(expected)


BAD: Final[list[tuple[str, object, str]]] = [
    ("string", 1, "not_a_string"),
    ("string", None, "not_a_string"),
    ("string", ["a"], "not_a_string"),
    ("string", {"a": "b"}, "not_a_string"),
    ("string", "x" * (MAX_TEXT + 1), "not_a_string"),
    ("string", "\ud800", "not_unicode"),
    ("integer", True, "not_an_integer"),
    ("integer", "3", "not_an_integer"),
    ("integer", 3.5, "not_an_integer"),
    ("integer", None, "not_an_integer"),
    ("integer", [3], "not_an_integer"),
    ("integer", 2**63, "not_an_integer"),
    ("integer", -(2**63), "not_an_integer"),
    ("integer", 10**5000, "not_an_integer"),
    ("integer", 2.0**53, "not_an_integer"),
    ("integer", float("nan"), "not_an_integer"),
    ("integer", float("inf"), "not_an_integer"),
    ("number", True, "not_a_number"),
    ("number", "1.5", "not_a_number"),
    ("number", None, "not_a_number"),
    ("number", 0.00001, "not_a_number"),
    ("number", 1.23456, "not_a_number"),
    ("number", 1e300, "not_a_number"),
    ("number", 10**5000, "not_a_number"),
    ("number", 922_337_203_685_478, "not_a_number"),
    ("number", float("nan"), "not_a_number"),
    ("number", float("inf"), "not_a_number"),
    ("number", -float("inf"), "not_a_number"),
    ("boolean", 0, "not_a_boolean"),
    ("boolean", 1.0, "not_a_boolean"),
    ("boolean", "true", "not_a_boolean"),
    ("boolean", None, "not_a_boolean"),
    ("strings", "a", "not_a_list_of_strings"),
    ("strings", {"a": 1}, "not_a_list_of_strings"),
    ("strings", None, "not_a_list_of_strings"),
    ("strings", ["a"] * (MAX_TEXTS + 1), "not_a_list_of_strings"),
    ("strings", ["a", 1], "not_a_string"),
    ("strings", [["a"]], "not_a_string"),
    ("strings", ["\udc00"], "not_unicode"),
]


@pytest.mark.parametrize(
    ("kind", "value", "reason"), BAD, ids=[f"{n}-{row[2]}" for n, row in enumerate(BAD)]
)
def test_what_is_of_another_type_is_refused(kind: str, value: object, reason: str) -> None:
    for optional in ("", "?"):
        with pytest.raises(BadArgument) as caught:
            canonical(tool(x=f"{kind}{optional}"), {"x": value})
        assert (caught.value.reason, caught.value.name) == (reason, "x")
        assert reason in REASONS


def test_what_is_unknown_or_missing_is_refused() -> None:
    declared = tool(a="string", b="string?")

    assert canonical(declared, {"a": ""}) == {"a": ""}
    for given_, reason, name in (
        ({}, "missing_argument", "a"),
        ({"b": ""}, "missing_argument", "a"),
        ({"a": "", "c": ""}, "unknown_argument", "c"),
        ({"a": "", "A": ""}, "unknown_argument", "A"),
        ({"a": "", "a ": ""}, "unknown_argument", "of another name"),
        ({"a": "", "\x1b[2J": ""}, "unknown_argument", "of another name"),
        ({"a": "", "__proto__": ""}, "unknown_argument", "__proto__"),
        ({"a": "", "x" * 65: ""}, "unknown_argument", "of another name"),
        ({"a": "", "": ""}, "unknown_argument", "of another name"),
    ):
        with pytest.raises(BadArgument) as caught:
            canonical(declared, given_)
        assert (caught.value.reason, caught.value.name) == (reason, name)


@pytest.mark.parametrize(
    ("value", "units"),
    [(0, 0), (-0.0, 0), (1, 10_000), (0.0001, 1), (12.34, 123_400), (10**9, 10**13)],
)
def test_amounts_are_counted_exactly(value: float, units: int) -> None:
    assert amount_of(tool(amount="x", x="number"), {"x": value}) == units


@pytest.mark.parametrize("value", [-0.0001, -1, 10**9 + 1, 1e9 + 0.5])
def test_an_amount_that_would_not_add_up_is_refused(value: float) -> None:
    with pytest.raises(BadArgument, match="amount_out_of_range"):
        amount_of(tool(amount="x", x="number"), {"x": value})


def test_no_sum_of_amounts_grows_beyond_what_is_exact() -> None:
    declared = tool(amount="x", x="number")

    assert amount_of(declared, {"x": 0.0001}, so_far=2**53 - 1) == 1
    with pytest.raises(BadArgument, match="amount_out_of_range"):
        amount_of(declared, {"x": 0.0001}, so_far=2**53)


def test_what_counts_no_amount_adds_none() -> None:
    assert amount_of(tool(x="number"), {"x": 5}) == 0
    assert amount_of(tool(amount="x", x="number?"), {}) == 0


NAMES: Final = st.sampled_from(["a", "b", "c", "to", "A", "a ", "__extn", ""])
VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(width=64)
    | st.text(max_size=5)
    | st.characters(codec=None)
    | st.sampled_from(["1", "true", 2**63, 0.5, 1e22]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
KINDS: Final = st.sampled_from([k + q for k in ARGUMENT_TYPES for q in ("", "?")])


@given(
    kinds=st.dictionaries(st.sampled_from(["a", "b", "c"]), KINDS),
    given_=st.dictionaries(NAMES, VALUES, max_size=4),
)
def test_nothing_that_is_not_declared_is_ever_let_through(
    kinds: dict[str, str], given_: dict[str, Any]
) -> None:
    declared = tool(**kinds)
    try:
        found = canonical(declared, given_)
    except BadArgument:
        return
    needed = {name for name, kind in kinds.items() if not kind.endswith("?")}
    assert needed <= set(found) == set(given_) <= set(kinds)
    for name, value in found.items():
        assert is_of(kinds[name].removesuffix("?"), value)
        assert means_the_same(value, given_[name])
    assert engine_takes(kinds, found)


def is_of(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return type(value) is str
        case "integer":
            return type(value) is int and abs(value) < 2**63
        case "number":
            return type(value) is dict
        case "boolean":
            return type(value) is bool
        case _:
            items: list[object] = value
            return type(value) is list and all(type(item) is str for item in items)


def means_the_same(value: Any, given_: Any) -> bool:
    number: Any = value
    if type(value) is dict:
        return Decimal(number["__extn"]["arg"]) == Decimal(str(given_))
    return value == given_ and isinstance(value, bool) == isinstance(given_, bool)


CEDAR: Final = {
    "string": "String",
    "integer": "Long",
    "number": "decimal",
    "boolean": "Bool",
    "strings": "Set<String>",
}


def engine_takes(kinds: Mapping[str, str], found: Mapping[str, Any]) -> bool:
    """Whether Cedar, with the types that are declared, takes what is let through."""
    members = ", ".join(
        f"{n}{'?' if k.endswith('?') else ''}: {CEDAR[k.removesuffix('?')]}"
        for n, k in kinds.items()
    )
    schema = cedarpy.Schema.from_str(
        f"entity U; action a appliesTo {{ principal: [U], resource: [U], context: {{{members}}} }};"
    )
    policies = cedarpy.PolicySet.from_str("permit(principal, action, resource);")
    who = {"type": "U", "id": "u"}
    request = {
        "principal": who,
        "action": {"type": "Action", "id": "a"},
        "resource": who,
        "context": json.dumps(found),
    }
    engine: Any = cedarpy
    entities = engine.Entities.from_json_str("[]", schema)
    result = engine.is_authorized(request, policies, entities, schema)
    return bool(result.allowed) and not result.diagnostics.errors
