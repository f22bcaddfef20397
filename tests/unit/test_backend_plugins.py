"""Backends of other packages are found by their entry points, or it is said why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.backends import BackendContext
from broker.backends.plugins import NoHandles, Plugin, make
from broker.errors import BackendRefused, ConfigError
from broker.secret import Secret
from tests.clocks import ManualClock
from tests.plugins import installed

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

SOURCE = """
from broker.backends import Backend
from broker.errors import ConfigError
from tests.unit.odd_backend import OddBackend, backend

def strict(context):
    raise ConfigError("url is missing")

def clumsy(context):
    raise KeyError("hunter2")

def nameless(context):
    made = OddBackend()
    del made.name
    return made

def other_name(context):
    return OddBackend("other")

def no_backend(context):
    return object()

class Half(Backend):
    name = "odd"

def half(context):
    return Half()
"""
POINTS = ("backend", "strict", "clumsy", "nameless", "other_name", "no_backend", "half")


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    points = {"odd": "odd_package:backend", "lost": "not_there:backend", "gone": "odd_package:gone"}
    points |= {f"odd-{name}": f"odd_package:{name}" for name in POINTS}
    with installed(tmp_path_factory.mktemp("odd"), "odd-package", points, odd_package=SOURCE) as p:
        yield p


def context(**options: object) -> BackendContext:
    def read(path: Path) -> Secret:
        return Secret(path.read_text())

    return BackendContext("odd", options, ManualClock(), NoHandles(), read)


def error(kind: str) -> str:
    with pytest.raises(ConfigError) as caught:
        make(Plugin("odd", kind, 1000), context())
    assert "Traceback" not in caught.value.detail
    assert "hunter2" not in caught.value.detail
    return caught.value.detail


def test_it_is_made_by_its_factory_and_says_of_which_package_it_is() -> None:
    made = make(Plugin("odd", "odd", 1000), context())
    assert made.name == "odd"
    assert made.origin == "odd-package 1.0"


def test_an_unknown_one_names_those_there_are_and_what_to_do() -> None:
    said = error("od")
    assert said.startswith("[backends.odd]: no package here has a backend 'od'")
    assert 'did you mean kind = "odd"?' in said
    assert "installed: gone, lost, odd, odd-backend," in said
    assert "install its package" in said


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("lost", "not_there:backend failed: ModuleNotFoundError"),
        ("gone", "odd_package:gone failed: AttributeError"),
        ("odd-clumsy", "odd_package:clumsy failed: KeyError"),
        ("odd-half", "odd_package:half failed: TypeError"),
        ("odd-strict", "[backends.odd]: url is missing"),
        ("odd-no_backend", "made no subclass of broker.backends.Backend"),
        ("odd-nameless", "another name than its context has"),
        ("odd-other_name", "another name than its context has"),
    ],
)
def test_what_can_not_be_made_is_an_error_of_the_configuration(kind: str, said: str) -> None:
    detail = error(kind)
    assert said in detail
    assert "odd-package 1.0" in detail or kind == "odd-strict"


def test_two_packages_with_the_same_are_named_and_neither_is_taken(
    tmp_path: Path, package: Path
) -> None:
    with installed(tmp_path, "imitator", {"odd": "imitator:backend"}, imitator="1 / 0"):
        assert "imitator 1.0 and odd-package 1.0 both have a backend 'odd'" in error("odd")


def test_nothing_is_imported_that_is_not_named(tmp_path: Path) -> None:
    with installed(tmp_path, "loud", {"loud": "loud:backend"}, loud="raise SystemExit(1)"):
        make(Plugin("odd", "odd", 1000), context())
        assert "loud:backend failed: SystemExit" in error("loud")


def test_a_secret_is_read_from_the_file_that_an_option_names(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    made = context(token_file=file, other="x")
    assert made.secret("token_file").reveal() == "one"
    file.write_text("two")
    assert made.secret("token_file").reveal() == "two"
    for missing in ("key_file", "other"):
        with pytest.raises(ConfigError, match=f"{missing} is missing"):
            made.secret(missing)


async def test_while_it_is_only_looked_at_nothing_is_written_down() -> None:
    with pytest.raises(BackendRefused):
        await NoHandles().handle("tsk_1", "expect", "h", backend="odd", actor="broker")
