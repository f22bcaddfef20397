"""Problems together: all at once, each on its line, whatever is in the file."""

from __future__ import annotations

import datetime as dt
import json
import logging
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import Config, load_config, parse_config
from broker.config.problems import UNNAMED, Fault, Loc, config_error, key_lines
from broker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATH = Path("/nowhere/config.toml")
EXAMPLE = (Path(__file__).parents[2] / "config.example.toml").read_text(encoding="utf-8")


def error_of(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, PATH)
    return caught.value


def problems_of(error: ConfigError) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", error.extra["problems"])


# ── together ─────────────────────────────────────────────────────────────────────────────────────


def test_all_problems_are_listed_in_the_order_of_the_file() -> None:
    text = """\
[brokr]
issuer = "https://broker.example"

[redis]
url = "redis://:hunter2@r.example"
shards = "64"

[[principals]]
name = "writer"
role = "agent"
owner = ""
identity = { issuer = "ci", subject = "x" }
capabilities = ["orders-raed"]

[[capabilities]]
name = "orders-read"
power = "reed"
backend = "vault"
path = "sys/x"
"""
    error = error_of(text)
    assert [(problem["line"], problem["key"]) for problem in problems_of(error)] == [
        (1, "broker"),
        (1, "brokr"),
        (5, "redis.url"),
        (6, "redis.shards"),
        (11, "principals[0].owner"),
        (12, "principals[0].identity.issuer"),
        (13, "principals[0].capabilities[0]"),
        (17, "capabilities[0].power"),
        (18, "capabilities[0].backend"),
        (19, "capabilities[0].path"),
    ]
    assert error.detail.startswith(
        f"{PATH} has 10 problems:\n{PATH}:1: broker: this section is mis"
    )
    assert "\n    add [broker] with issuer\n" in error.detail
    assert '\n    did you mean "orders-read"?\n' in error.detail


def test_a_faulty_field_does_not_hide_the_rules_of_its_table() -> None:
    text = """\
broker.issuer = "https://broker.example"
redis.url = "redis://r.example"
[vault]
address = "https://v.example"
auth = "approle"
timeout = 5
role = "x"
"""
    assert [problem["key"] for problem in problems_of(error_of(text))] == [
        "vault.role_id_file",
        "vault.secret_id_file",
        "vault.timeout",
        "vault.role",
    ]


def test_neither_the_error_nor_its_causes_hold_what_the_file_held() -> None:
    error = error_of('[redis]\nurl = "redis://:hunter2@r"\npassword = "hunter2"\n[broker]\n')
    assert error.__cause__ is None
    assert error.__context__ is None
    record = logging.LogRecord("x", 40, "x", 1, "x", None, (ConfigError, error, None))
    assert "hunter2" not in logging.Formatter().format(record) + json.dumps(error.extra)


# ── files that can't be read ─────────────────────────────────────────────────────────────────────


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(Path("config.toml"))
    assert str(tmp_path / "config.toml") in caught.value.detail
    assert "config.example.toml" in caught.value.detail


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        load_config(tmp_path)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"[broker]\nissuer = '\xff'\n")
    with pytest.raises(ConfigError, match=r"config.toml:2: is not UTF-8 text"):
        load_config(path)


def test_too_big(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"#" * (5 << 20))
    with pytest.raises(ConfigError, match="is over 4096 KiB"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[broker]\nissuer = hunter2", ":2:10: not valid TOML: invalid value"),
        ("[broker]\n[broker]", ":2:8: not valid TOML: cannot declare"),
        ('a = "hunter2', ":1: not valid TOML: unterminated string"),
        ("a = " + "[" * 5000, ": not valid TOML: arrays or tables are nested too deeply"),
        ("a = " + "1" * 5000, ": not valid TOML: exceeds the limit"),
    ],
    ids=["value", "twice", "end", "deep", "long"],
)
def test_not_toml(text: str, said: str) -> None:
    detail = error_of(text).detail
    assert f"{PATH}{said}" in detail
    assert "hunter2" not in detail


# ── lines ────────────────────────────────────────────────────────────────────────────────────────

TRICKY = '''\
# [comment]
top = 1 # [no.table]
dotted . "a.b" . 'c' = { d = 1, e = [1, 2] }

[one]
text = """
[two]
x = \\"""1\\"""
""" # still [one]
lit = \'\'\'
[[three]]\'\'\'
many = [ # [[
    "]", # ]
    [1, { k = '}' }],
]
quotes = """a"""""
last = ""
[ "th\\u0072ee" . x ] # ]
[[arr]]
k = 1
[[ arr . sub ]]
k = 1
[[arr.sub]]
k = 2
[arr.sub.t]
k = 1979-05-27T07:32:00Z
[[arr]]
[[arr.sub]]
"\\U0001F600" = 1
'''


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_lines_of_keys(newline: str) -> None:
    text = TRICKY.replace("\n", newline)
    tomllib.loads(text)
    assert key_lines(text) == {
        ("top",): 2,
        ("dotted",): 3,
        ("dotted", "a.b"): 3,
        ("dotted", "a.b", "c"): 3,
        ("one",): 5,
        ("one", "text"): 6,
        ("one", "lit"): 10,
        ("one", "many"): 12,
        ("one", "quotes"): 16,
        ("one", "last"): 17,
        ("three",): 18,
        ("three", "x"): 18,
        ("arr",): 19,
        ("arr", 0): 19,
        ("arr", 0, "k"): 20,
        ("arr", 0, "sub"): 21,
        ("arr", 0, "sub", 0): 21,
        ("arr", 0, "sub", 0, "k"): 22,
        ("arr", 0, "sub", 1): 23,
        ("arr", 0, "sub", 1, "k"): 24,
        ("arr", 0, "sub", 1, "t"): 25,
        ("arr", 0, "sub", 1, "t", "k"): 26,
        ("arr", 1): 27,
        ("arr", 1, "sub"): 28,
        ("arr", 1, "sub", 0): 28,
        ("arr", 1, "sub", 0, "\U0001f600"): 29,
    }


def test_what_has_no_line_of_its_own_gets_that_of_what_is_around_it() -> None:
    places: list[Loc] = [("a", "b", 3), ("a", "c"), ("x",), ()]
    error = config_error(PATH, "\n[a]\nb = [\n1]", [(place, Fault("bad")) for place in places])
    assert [(p["line"], p["key"]) for p in problems_of(error)] == [
        (1, "x"),
        (1, ""),
        (2, "a.c"),
        (3, "a.b[3]"),
    ]


# ── anything at all ──────────────────────────────────────────────────────────────────────────────

words = st.sampled_from(["vault", "ci", "5m", "https://x.example", "../x", "\x00", "redis://u:p@h"])
keys = st.sampled_from(
    sorted({key for field in Config.model_fields for key in (field, "name", "issuer", "auth")})
) | st.text(max_size=5)
scalars = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | words
    | st.text(max_size=20)
    | st.datetimes()
    | st.dates()
    | st.times()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)


def toml(value: object) -> str:
    """Write a value as TOML, tables inline."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = (c if c.isprintable() and c not in '\\"' else f"\\U{ord(c):08X}" for c in value)
        return f'"{"".join(plain)}"'
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value).items()
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, cast("list[object]", value))) + "]"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return repr(value)


def whole(data: dict[str, Any]) -> str:
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in data.items())


def check(text: str) -> None:
    """Whatever it is: a configuration, or an error in plain words and in its place."""
    try:
        parse_config(text, PATH)
    except ConfigError as error:
        problems = cast("list[dict[str, Any]]", error.extra.get("problems", []))
    else:
        problems = []
    for problem in problems:
        assert 1 <= problem["line"] <= text.count("\n") + 1
        assert problem["reason"] not in {"", UNNAMED}


@given(st.dictionaries(keys, values, max_size=6))
@settings(deadline=None)
def test_any_table(data: dict[str, Any]) -> None:
    text = whole(data)
    tomllib.loads(text)
    check(text)


def ways(value: object, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to everything in a parsed file."""
    if isinstance(value, dict):
        inner: Iterable[tuple[Any, object]] = cast("dict[str, object]", value).items()
    else:
        inner = enumerate(cast("list[object]", value)) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*way, key)
        yield from ways(item, (*way, key))


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """The example, with a few values replaced, removed, renamed or added."""
    data = tomllib.loads(EXAMPLE)
    for _ in range(draw(st.integers(1, 4))):
        *way, last = draw(st.sampled_from([*ways(data), ("new",)]))
        table: Any = data
        for key in way:
            table = table[key]
        change = draw(st.sampled_from(["replace", "remove", "rename", "add"]))
        if isinstance(last, int):
            table[last : last + (change != "add")] = [] if change == "remove" else [draw(values)]
        elif change in {"replace", "add"}:
            table[last if change == "replace" else draw(keys)] = draw(values)
        elif last in table:
            value: object = table.pop(last)
            table.update({} if change == "remove" else {draw(keys): value})
    return data


@given(spoiled())
@settings(max_examples=300, deadline=None)
def test_any_change_to_the_example(data: dict[str, Any]) -> None:
    check(whole(data))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_to_its_text(data: st.DataObject) -> None:
    text = EXAMPLE
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 40)))
        junk = st.sampled_from(["", '"', "'''", "[", "]]", "\n", "=", "#", ".", '"""', "{"])
        text = text[:start] + data.draw(junk | st.text(max_size=5)) + text[end:]
    check(text)
