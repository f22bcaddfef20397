"""A backend of another package that fails: no 500, no grant lost, nothing told that isn't ours."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, Final

import pytest
import tomli_w

from broker.backends import Prepared
from broker.cli.main import main
from broker.config import parse_config
from broker.dev.config import FILE
from tests.docs.blocks import laid_over
from tests.plugins import installed
from tests.unit.odd_backend import SECRET, OddBackend, leak
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

POINTS: Final = {"odd": "tests.unit.odd_backend:backend", "broken": "not_there:backend"}
ODD: Final[dict[str, Any]] = {
    "backends": {"odd": {"timeout": "1s"}},
    "capabilities": [{"name": "odd-key", "power": "read", "backend": "odd"}],
    "revocation": {"backoff": "1s", "max_backoff": "1s"},
}


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    with installed(tmp_path_factory.mktemp("odd"), "odd-package", POINTS):
        yield


def written(stack: DevStack, more: dict[str, Any] = ODD) -> str:
    document: dict[str, Any] = tomllib.loads((stack.data / FILE).read_text("utf-8"))
    (agent,) = (p for p in document["principals"] if p["name"] == "report-writer")
    agent["capabilities"].append("odd-key")
    return tomli_w.dumps(laid_over(document, more))


class OddWorld(World):
    """A replica with the odd backend; ``odd`` says what it does."""

    @property
    def backend(self) -> OddBackend:
        inner = vars(self.app.pipeline.backends["odd"])["_inner"]
        assert isinstance(inner, OddBackend)
        return inner

    async def ask(self, task: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        path, ask = f"/v1/tasks/{task['task_id']}/grants", {"capability": "odd-key"}
        answer = await self.call(task["agent"], "POST", path, ask, task_id=task["task_id"])
        assert answer.is_success or SECRET not in answer.text
        return answer.status_code, answer.json()

    async def grants(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        path = f"/v1/grants?task_id={task['task_id']}"
        return (await self.call("operator", "GET", path)).json()["items"]


@pytest.fixture
async def world(engines: tuple[DevStack, Config]) -> AsyncGenerator[OddWorld]:
    stack, _ = engines
    made = OddWorld(stack.issuer, parse_config(written(stack), stack.data / FILE))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("call", "does", "left"),
    [
        ("prepare", leak, []),
        ("prepare", Prepared, []),
        ("check", leak, []),
        ("mint", leak, ["revoked"]),
        ("mint", lambda: None, ["revoked"]),
    ],
    ids=["prepare", "prepares-nothing", "check", "mint", "mints-nothing"],
)
async def test_issuing_is_refused_and_what_may_have_been_made_is_ended(
    world: OddWorld, call: str, does: Any, left: list[str]
) -> None:
    task = await world.open(capabilities=["odd-key"])
    world.backend.odd[call] = does

    status, problem = await world.ask(task)

    assert (status, problem["code"]) == (503, "backend_unavailable")

    async def settled() -> bool:
        await world.sweep(ahead_ms=2000)
        return [grant["state"] for grant in await world.grants(task)] == left

    await wait_until(settled, "it is dead, if there is anything")
    assert not world.backend.accounts
    del world.backend.odd[call]

    async def issued() -> bool:
        return (await world.ask(task))[0] == 201

    await wait_until(issued, "it is asked again when it may answer")


@pytest.mark.parametrize("call", ["revoke", "is_live"])
async def test_what_cannot_be_revoked_is_not_forgotten_and_dies_when_it_can(
    world: OddWorld, call: str
) -> None:
    task = await world.open(capabilities=["odd-key"])
    _, granted = await world.ask(task)
    world.backend.odd[call] = leak

    assert (await world.complete(task))["grants"]["revoking"] == 1

    shown = await world.show_grant(granted["grant_id"])
    assert (shown["state"], shown["error"]) == ("revoking", f"backend 'odd', {call}: RuntimeError")
    world.backend.odd.clear()

    async def dead() -> bool:
        await world.sweep(ahead_ms=2000)
        return (await world.show_grant(granted["grant_id"]))["state"] == "revoked"

    await wait_until(dead, "it is confirmed dead")
    assert not world.backend.accounts
    assert SECRET not in str(await world.events(task["task_id"]))


async def test_what_nobody_can_list_is_not_said_to_agree(world: OddWorld) -> None:
    ask = {"backend": "odd"}
    report = (await world.call("operator", "POST", "/v1/reconciliations", ask)).json()

    assert not report["agreement"]
    assert report["problems"] == ["odd: it doesn't list what it made, so nothing was compared"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("od", "no package here has a backend 'od'"),
        ("broken", "not_there:backend failed: ModuleNotFoundError"),
    ],
    ids=["not-there", "broken"],
)
def test_one_that_is_not_there_or_broken_is_a_matter_of_the_configuration(
    engines: tuple[DevStack, Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    said: str,
) -> None:
    file = tmp_path / "config.toml"
    document: dict[str, Any] = tomllib.loads(written(engines[0]))
    document["backends"]["odd"]["kind"] = kind
    file.write_text(tomli_w.dumps(document))
    assert main(["check-config", "--config", str(file)]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert main(["doctor", "--config", str(file), "--json"]) == 1
    (finding,) = [
        found
        for found in json.loads(capsys.readouterr().out)["findings"]
        if found["check"] == "backend odd"
    ]
    assert finding["verdict"] == "failed"
    assert said in finding["detail"]
    assert "installed" in finding["advice"] or "reinstall odd-package 1.0" in finding["advice"]

    document["backends"]["odd"]["kind"] = "odd"
    file.write_text(tomli_w.dumps(document))
    assert main(["check-config", "--config", str(file)]) == 0
    assert "1 backends" in capsys.readouterr().out
