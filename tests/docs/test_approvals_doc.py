"""docs/approvals.md: what is played there happens, at real servers, in that order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.approvals import ApprovalState
from tests.docs.blocks import DOCS
from tests.docs.playing import Play, played
from tests.http.consenting import ConsentWorld, consent_config, give_rights
from tests.world import logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

TEXT = (DOCS / "approvals.md").read_text("utf-8")
PLAYED = played(TEXT)
WINDOW_OVER_MS = 10 * 60_000 + 1000


@pytest.fixture
async def world(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[ConsentWorld]:
    config = consent_config(engines[0], tmp_path / "policies")
    await give_rights(engines[0], config)
    made = ConsentWorld(engines[0].issuer, config)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def test_what_the_page_plays_happens(world: ConsentWorld) -> None:
    play = Play(world)
    assert len(PLAYED) > 15
    for written in PLAYED:
        if "elevations\n→ 200" in written:
            assert await logs_in(play.credentials[-1]), "until the window is over it is alive"
            await world.sweep(ahead_ms=WINDOW_OVER_MS)
        if "GET /v1/reviews" in written:
            await world.settled(play.task)
        await play.request(written)
    assert len(play.credentials) == 2
    for credential in play.credentials:
        assert not await logs_in(credential)


def test_the_page_names_every_state() -> None:
    for state in ApprovalState:
        assert f"| `{state}` |" in TEXT
