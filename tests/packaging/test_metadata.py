"""What the wheel says of itself, and that the lock has all of it."""

from __future__ import annotations

import zipfile
from email import message_from_bytes
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from tests.packaging.bare import closure

if TYPE_CHECKING:
    from pathlib import Path

BASE = {"cryptography", "cyclopts", "httpx2", "rich"}
EXTRAS = {"server", "embedded", "login", "mcp", "notify", "spiffe", "targets"}


@pytest.fixture(scope="module")
def requirements(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        message = message_from_bytes(archive.read(name))
    assert set(message.get_all("Provides-Extra", [])) >= EXTRAS
    return [Requirement(line) for line in message.get_all("Requires-Dist", [])]


def test_the_base_brings_no_server(requirements: list[Requirement]) -> None:
    base = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert {one.name for one in base} == BASE
    brought = closure([str(one) for one in base])
    assert not brought & {"apscheduler", "fastapi", "hvac", "pydantic", "pyjwt", "redis", "uvicorn"}


def test_embedded_brings_the_server(requirements: list[Requirement]) -> None:
    """By name: what reads the metadata, in broker/cli/extras.py, follows no extra to another."""
    server, embedded = (
        {
            one.name
            for one in requirements
            if one.marker
            and one.marker.evaluate({"extra": extra})
            and not one.marker.evaluate({"extra": ""})
        }
        for extra in ("server", "embedded")
    )
    assert "fastapi" in server
    assert server < embedded
    assert "broker" not in embedded


def test_the_lock_has_what_every_extra_needs(requirements: list[Requirement]) -> None:
    for one in requirements:
        assert one.specifier.contains(metadata.version(one.name), prereleases=True), one


def test_the_wheel_has_the_package_and_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"broker"}
    assert {"broker/py.typed", "broker/ledger/shared.lua"} & set(names)
    assert any(name.startswith("broker/deploy/vault/") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".jwt", ".pem", ".key"))]
