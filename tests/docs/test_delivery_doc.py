"""docs/delivery.md: what is played there happens, and its Python notices who was there before."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.secret import Secret
from broker.wrapping import Sign
from tests.docs.blocks import DOCS, blocks, configuration
from tests.docs.playing import Play, played
from tests.http.consenting import ConsentWorld, consent_config, give_rights
from tests.world import logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

TEXT: Final = (DOCS / "delivery.md").read_text("utf-8")


@pytest.fixture
async def world(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[ConsentWorld]:
    config = consent_config(engines[0], tmp_path / "policies")
    await give_rights(engines[0], config)
    made = ConsentWorld(engines[0].issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def spend(world: ConsentWorld, token: str) -> None:
    assert world.app.vault is not None
    await world.app.vault.as_holder(Secret(token), "post", "sys/wrapping/unwrap")


async def test_what_the_page_plays_happens(world: ConsentWorld) -> None:
    play = Play(world)
    requests = played(TEXT)
    assert len(requests) == 13
    for written in requests:
        if "wrapping_intercepted" in written:
            await spend(world, play.known["TOKEN"])
        await play.request(written)
    *_, old, new = play.credentials
    assert await logs_in(new)
    await world.sweep(ahead_ms=21_000)
    assert await logs_in(new)
    assert not await logs_in(old)


async def test_its_python_opens_it_at_vault_and_notices_who_was_there_before(
    world: ConsentWorld,
) -> None:
    names: dict[str, Any] = {}
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", TEXT)
    exec(code, names)  # noqa: S102  our own page
    opened: Callable[[str, str, str], dict[str, str]] = names["opened"]
    assert world.config.vault is not None
    address = world.config.vault.address
    task = await world.open()
    first, second, third = [await world.grant(task, delivery="wrapped") for _ in "123"]

    content = await asyncio.to_thread(
        opened, address, first["credential"]["token"], first["grant_id"]
    )
    assert await logs_in(content)
    await spend(world, second["credential"]["token"])
    for carried, meant in ((second, second), (third, first)):
        token = carried["credential"]["token"]
        with pytest.raises(names["Intercepted"]):
            await asyncio.to_thread(opened, address, token, meant["grant_id"])


def test_its_capability_can_be_used(engines: tuple[DevStack, Config]) -> None:
    config = configuration(engines[0], blocks("delivery.md")["Renewal"], as_written=False)

    assert config.catalog().capabilities["orders-long"].renewable_ms == 10_800_000


@pytest.mark.parametrize("sign", Sign)
def test_the_page_names_every_sign(sign: Sign) -> None:
    assert f"`{sign}`" in TEXT
