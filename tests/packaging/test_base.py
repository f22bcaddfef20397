"""The base package: the SDK and the client commands, and nothing of the server."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from broker import __version__
from broker.cli.main import _COMMANDS  # pyright: ignore[reportPrivateUsage]  all there are
from tests.packaging.bare import modules

if TYPE_CHECKING:
    from tests.packaging.bare import Bare

LIMIT_MS = 150
ENOUGH = 20
NAMES = [name for name, *_ in _COMMANDS]
CLIENT_SIDE = ("broker", "broker.client", "broker.cli")
SHARED = {"clock", "durations", "errors", "ids", "secret", "wire"}
INSTALL_SERVER = "pip install 'broker[server]'"
SERVERS_OWN = [
    ("serve",),
    ("check-config",),
    ("doctor",),
    ("notify", "test", "ops"),
    ("vault", "bootstrap", "--token-file", "x"),
    ("policy", "check"),
    ("policy", "test"),
]

IMPORTED = """
import json, sys
before = set(sys.modules)
import broker.client
from broker.client import *
print(json.dumps(sorted(set(sys.modules) - before)))
"""
NAMES_OF_IT = """
import broker.client as c
for name in c.__all__:
    assert getattr(c, name) is not None
assert set(c.__all__) <= set(dir(c))
"""
TIMED = """
import time
started = time.process_time()
import broker.client
print((time.process_time() - started) * 1000)
"""
HELPS = """
import contextlib, io, json, sys
from broker.cli.main import main
texts = {}
for name in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([name, "--help"]) == 0, name
    texts[name] = out.getvalue()
print(json.dumps(texts))
"""


def test_nothing_else_is_in_the_environment(bare: Bare) -> None:
    listed = bare.script(
        "from importlib.metadata import distributions as d, requires\n"
        "import json; print(json.dumps([one.name for one in d()]))"
    ).json
    assert {name.lower().replace("_", "-") for name in listed} == {*bare.distributions, "broker"}
    for library in ("fastapi", "hvac", "jwt", "pydantic", "redis"):
        assert (
            bare.script(f"from importlib.util import find_spec; print(find_spec('{library}'))").out
            == "None\n"
        )


def test_the_client_imports_no_server_package(bare: Bare) -> None:
    imported: list[str] = bare.script(IMPORTED).json
    theirs = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"broker"}
    assert "httpx2" in theirs
    assert theirs <= modules(bare.distributions)
    ours = {name for name in imported if name.startswith("broker.")}
    parts = {name.split(".")[1] for name in ours}
    assert "client" in parts
    assert parts <= {"client", *SHARED}


def test_each_name_of_the_client_is_found(bare: Bare) -> None:
    assert bare.script(NAMES_OF_IT).code == 0


def test_the_client_imports_quickly(bare: Bare) -> None:
    """The issue's figure: the best of several, of the processor's time, for others run here too."""
    best = min(_until_quick(bare))
    assert best < LIMIT_MS


def _until_quick(bare: Bare) -> list[float]:
    seen: list[float] = []
    while len(seen) < ENOUGH and (not seen or min(seen) >= LIMIT_MS):
        seen.append(float(bare.script(TIMED).out))
    return seen


def test_the_version(bare: Bare) -> None:
    assert bare.broker("--version") == (0, f"{__version__}\n", "")


def test_the_help_of_every_command(bare: Bare) -> None:
    ran = bare.broker("--help")
    assert ran.code == 0
    for name in NAMES:
        assert f" {name} " in ran.out, name
    texts = bare.script(HELPS, *NAMES).json
    for name in NAMES:
        assert texts[name].startswith(f"Usage: broker {name}"), name
    assert "complete" in bare.broker("task", "--help").out


@pytest.mark.parametrize("command", SERVERS_OWN, ids=" ".join)
def test_what_is_the_servers_says_what_to_install(bare: Bare, command: tuple[str, ...]) -> None:
    ran = bare.broker(*command)
    assert (ran.code, ran.out) == (1, "")
    assert INSTALL_SERVER in ran.err
    assert ran.err.count("\n") == 1
    problem = bare.broker(*command, "--json").problem
    assert problem["code"] == "not_installed"
    assert INSTALL_SERVER in problem["detail"]


@pytest.mark.parametrize("command", [("dev",), ("dev", "token", "operator")], ids=" ".join)
def test_what_embeds_servers_says_so_too(bare: Bare, command: tuple[str, ...]) -> None:
    ran = bare.broker(*command)
    assert (ran.code, ran.out) == (1, "")
    assert "pip install 'broker[embedded]'" in ran.err


def test_a_client_command_without_a_broker(bare: Bare) -> None:
    ran = bare.broker("task", "list", "--server", "http://127.0.0.1:9")
    assert ran.code == 4
    assert "BROKER_IDENTITY_TOKEN_FILE" in ran.err
    assert json.loads(bare.broker("task", "list", "--json").err)["error"]["code"]
