"""Tools in the configuration: capabilities that are called, not handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from broker.catalog import Capability, Catalog, Power
from broker.config import parse_config
from broker.errors import ConfigError
from broker.policy.cedar import Schema
from broker.policy.schema import ARGUMENT_TYPES

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """\
broker.issuer = "https://broker.example"
redis.url = "unix:///run/valkey/valkey.sock"
"""
TOOL = '[[capabilities]]\nname = "send"\npower = "operate"\nbackend = "tool"\n'
VAULT = '[[capabilities]]\nname = "send"\npower = "read"\nbackend = "vault"\npath = "kv/x"\n'


def catalog(tmp_path: Path, text: str) -> Catalog:
    return parse_config(SMALLEST + text, tmp_path / "config.toml").catalog()


def only(found: Catalog) -> Capability:
    (capability,) = found.capabilities.values()
    return capability


def test_a_tool_is_called_by_its_name_and_takes_no_arguments_unless_they_are_declared(
    tmp_path: Path,
) -> None:
    found = catalog(tmp_path, TOOL)

    assert only(found).is_tool
    assert only(found).power is Power.OPERATE
    assert only(found).arguments == {}
    assert only(found).amount == ""
    assert set(found.tools) == {"send"}


def test_a_tool_says_what_it_is_called_and_what_it_takes(tmp_path: Path) -> None:
    text = (
        'tool = "mail/send:v2"\namount = "cost"\nresource = ["urn:mail", "https://mail.example"]\n'
        'effects = ["egress:internet"]\n[capabilities.arguments]\nto = "string"\n'
        'cost = "number"\ncopies = "integer?"\nurgent = "boolean?"\ncc = "strings?"\n'
    )
    found = catalog(tmp_path, TOOL + text)
    tool = only(found)

    assert found.tools == {"mail/send:v2": tool}
    assert tool.arguments == {
        "to": ("string", False),
        "cost": ("number", False),
        "copies": ("integer", True),
        "urgent": ("boolean", True),
        "cc": ("strings", True),
    }
    assert {kind for kind, _ in tool.arguments.values()} == set(ARGUMENT_TYPES)
    assert tool.amount == "cost"
    assert tool.resources == ("urn:mail", "https://mail.example")
    assert '"call:send"' in Schema([tool]).text


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        (TOOL + 'path = "kv/x"', "path", 'it goes with backend = "vault"'),
        (TOOL + 'dsn = "x://{username}:{password}@h"', "dsn", 'goes with backend = "vault"'),
        (TOOL + 'scope = "mail"', "scope", 'it goes with backend = "token"'),
        (VAULT + 'tool = "send"', "tool", 'it goes with backend = "tool"'),
        (VAULT + 'arguments = { to = "string" }', "arguments", 'goes with backend = "tool"'),
        (VAULT + 'amount = "to"', "amount", 'it goes with backend = "tool"'),
        (TOOL + 'tool = "send mail"', "tool", "is not the name of a tool"),
        (TOOL + "arguments = []", "arguments", "is not a table of at most 64 arguments"),
        (TOOL + 'arguments = { to = "text" }', "arguments", "to: is not a type of an argument"),
        (TOOL + 'arguments = { to = "strin" }', "arguments", 'did you mean "string"'),
        (TOOL + 'arguments = { to = "string??" }', "arguments", "is not a type"),
        (TOOL + "arguments = { to = 1 }", "arguments", "is not a type of an argument"),
        (TOOL + 'arguments = { __extn = "string" }', "arguments", "not the name of an argument"),
        (TOOL + 'arguments = { "a.b" = "string" }', "arguments", "not the name of an argument"),
        (TOOL + f'arguments = {{ {"a" * 65} = "string" }}', "arguments", "not the name of an"),
        (TOOL + 'arguments = { n = "string" }\namount = "n"', "amount", "not an argument that"),
        (TOOL + 'arguments = { n = "number" }\namount = "m"', "amount", "numbers among"),
        (TOOL + 'resource = "x"', "resource[0]", "is not an absolute URI"),
        (TOOL + 'resource = "https://broker.example"', "resource", "the broker's own issuer URL"),
    ],
)
def test_what_cant_be_used_is_said(tmp_path: Path, text: str, key: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog(tmp_path, text)
    problems = cast("list[dict[str, Any]]", caught.value.extra["problems"])
    found = {p["key"]: f"{p['reason']} {p['suggestion']}" for p in problems}

    assert why in found[f"capabilities[0].{key}"]


def test_two_tools_are_not_called_the_same(tmp_path: Path) -> None:
    second = TOOL.replace('"send"', '"mail"') + 'tool = "send"\n'
    with pytest.raises(ConfigError, match=r"capabilities\[0\] is called 'send' as well"):
        catalog(tmp_path, TOOL + second)
    assert len(catalog(tmp_path, TOOL + second.replace('tool = "send"', "")).tools) == 2
    # What is no tool isn't called, so its name is not in the way.
    other = TOOL.replace('"send"', '"mail"').replace('"tool"', '"token"')
    fine = catalog(tmp_path, f'{other}resource = "urn:x"\n{TOOL}tool = "mail"')
    assert set(fine.tools) == {"mail"}
