"""What is closed goes: nothing of the process keeps a replica that has served."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

from tests.world import World

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack


async def test_a_replica_that_has_served_is_not_kept(engines: tuple[DevStack, Config]) -> None:
    world = World(engines[0].issuer, engines[1])
    await world.empty()
    for path in ("/readyz", "/metrics", "/.well-known/oauth-authorization-server"):
        assert (await world.http.get(path)).status_code == 200
    await world.open()
    pipeline = weakref.ref(world.app.pipeline)

    await world.close()
    del world
    gc.collect()

    assert pipeline() is None
