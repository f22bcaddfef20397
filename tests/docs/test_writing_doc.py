"""``docs/backends/writing.md``: the backend it writes keeps the contract, and serves a task."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import pytest
import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE
from broker.doctor import examine
from tests.docs.blocks import DOCS, laid_over
from tests.docs.key_service import KeyService
from tests.plugins import installed, lay_out
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from broker.config import Config
    from broker.dev.stack import DevStack

PAGE: Final = (DOCS / "backends/writing.md").read_text("utf-8")
BACKEND, TEST = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)
PROJECT, CONFIG = map(tomllib.loads, re.findall(r"(?ms)^```toml\n(.*?)^```", PAGE))
POINTS: Final[dict[str, str]] = PROJECT["project"]["entry-points"]["broker.backends"]
NAME: Final[str] = PROJECT["project"]["name"]
SPOILT: Final = """
from test_keys import *


class Spoilt(KeysTarget):
    def backend(self, ledger):
        made = super().backend(ledger)
        self.spoil(made)
        return made


class SpoiltContract(BackendContract):
    @pytest.fixture
    def target(self, tmp_path):
        with KeyService() as service:
            (tmp_path / "admin").write_text(service.admin)
            made = Spoilt(service, tmp_path / "admin")
            made.spoil = self.spoil
            yield made


class TestItRevokesNothing(SpoiltContract):
    def spoil(self, made):
        async def revoke(grant): ...
        made.revoke = revoke


class TestItAlwaysSaysDead(SpoiltContract):
    def spoil(self, made):
        async def is_live(grant): return False
        made.is_live = is_live


class TestItKnowsOnlyItsOwn(SpoiltContract):
    def spoil(self, made):
        mint, revoke, own = made.mint, made.revoke, set()
        async def minted(grant, task, capability):
            own.add(grant.lease)
            return await mint(grant, task, capability)
        async def revoked(grant):
            if grant.lease in own:
                await revoke(grant)
        made.mint, made.revoke = minted, revoked


class TestItSharesOneKey(SpoiltContract):
    def spoil(self, made):
        one = []
        mint = made.mint
        async def shared(grant, task, capability):
            one.append(await mint(grant, task, capability))
            return one[0]
        made.mint = shared
"""
FOUND: Final = {
    "TestItRevokesNothing": "test_revoked_it_neither_lives_nor_works",
    "TestItAlwaysSaysDead": "test_a_credential_works_lives_and_hides_its_secrets",
    "TestItKnowsOnlyItsOwn": "test_another_replica_sees_it_and_ends_it",
    "TestItSharesOneKey": "test_grants_share_nothing",
}


def outcomes(report: Path) -> Iterator[tuple[str, str, str]]:
    """Each test's class and name, and how it came out."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  pytest's own report
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        yield (
            case.attrib["classname"].rpartition(".")[2],
            case.attrib["name"],
            kinds.pop() if kinds else "passed",
        )


def test_it_passes_the_suite_without_redis_and_what_is_spoilt_does_not(tmp_path: Path) -> None:
    service = (Path(__file__).parent / "key_service.py").read_text("utf-8")
    lay_out(tmp_path, NAME, POINTS, broker_keys=BACKEND, test_keys=TEST, key_service=service)
    (tmp_path / "test_spoilt.py").write_text(SPOILT)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    report = tmp_path / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    spoilt = [f"test_spoilt.py::{of}::{name}" for of, name in FOUND.items()]
    ran = subprocess.run(
        [*command, "test_keys.py", *spoilt],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert report.exists(), ran.stdout + ran.stderr
    found = list(outcomes(report))
    own = {name: how for of, name, how in found if of == "TestKeys"}
    assert len(own) > 20
    assert {name for name, how in own.items() if how == "skipped"} == {
        "test_an_open_session_ends_with_it"
    }, ran.stdout
    assert set(own.values()) == {"passed", "skipped"}, ran.stdout
    for of, name in FOUND.items():
        assert (of, name, "failure") in found, of


@contextmanager
def keys(stack: DevStack, folder: Path) -> Generator[tuple[KeyService, Config]]:
    """The package installed, and the page's configuration laid over the engines'."""
    with (
        installed(folder / "site", NAME, POINTS, broker_keys=BACKEND),
        KeyService() as service,
    ):
        (folder / "admin").write_text(service.admin)
        (folder / "admin").chmod(0o600)
        written: dict[str, Any] = tomllib.loads((stack.data / FILE).read_text("utf-8"))
        (agent,) = (p for p in written["principals"] if p["name"] == "report-writer")
        agent["capabilities"].append(CONFIG["capabilities"][0]["name"])
        document = laid_over(written, CONFIG)
        place = {"url": service.url, "admin_token_file": str(folder / "admin")}
        document["backends"]["tickets"] |= place
        yield service, parse_config(tomli_w.dumps(document), stack.data / FILE)


@pytest.fixture
def tickets(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> Generator[tuple[KeyService, Config]]:
    with keys(engines[0], tmp_path) as made:
        yield made


async def test_a_task_gets_a_key_of_it_and_when_it_ends_the_key_is_dead(
    engines: tuple[DevStack, Config], tickets: tuple[KeyService, Config]
) -> None:
    service, config = tickets
    world = World(engines[0].issuer, config)
    try:
        await world.app.connection.command("FLUSHALL")
        task = await world.open(capabilities=["tickets-key", "orders-read"])
        granted = await world.grant(task, "tickets-key")
        other = await world.grant(task)
        key = granted["credential"]["key"]
        assert granted["credential"]["type"] == "api_key"
        assert service.accepts(key)

        ended = await world.complete(task)

        assert ended["grants"]["revoked"] == 2
        assert not service.accepts(key)
        assert not service.keys
        shown = await world.show_grant(granted["grant_id"])
        assert (shown["state"], shown["backend"]) == ("revoked", "tickets")
        assert (await world.show_grant(other["grant_id"]))["state"] == "revoked"
        assert key not in str([await world.events(task["task_id"]), shown])
    finally:
        await world.close()


def test_the_doctor_names_its_package_and_says_how_it_is(
    tickets: tuple[KeyService, Config],
) -> None:
    async def said() -> dict[str, tuple[str, str]]:
        return {f.check: (f.verdict, f.detail) async for f in examine(config)}

    _, config = tickets
    assert asyncio.run(said())["backend tickets"] == ("ok", "broker-keys 1.0: ok")
    entry = config.backends["tickets"]
    entry.secret_files[0].write_text("another")
    verdict, detail = asyncio.run(said())["backend tickets"]
    assert (verdict, detail) == ("failed", "broker-keys 1.0: the key service said 401")
