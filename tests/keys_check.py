"""No key of the ledger lives for ever unless it is one of the tables that do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from broker.ledger.keys import EXPIRING, PERSISTENT, PREFIX

if TYPE_CHECKING:
    from tests.world import World

NAME: Final = re.compile(rf"{PREFIX}:\{{s[0-9a-f]{{2}}\}}:(?P<kind>[a-z]+)(?::.+)?")
NO_EXPIRY: Final = -1


async def assert_no_immortal_keys(world: World) -> list[str]:
    """Every key is a table, or of a kind that expires and has an expiry; returns the keys."""
    redis: Any = world.app.connection.client
    found: list[str] = []
    async for raw in redis.scan_iter(count=1000):
        key: str = raw.decode()
        found.append(key)
        match = NAME.fullmatch(key)
        assert match, f"{key}: not a name that keys.py makes"
        kind = match["kind"]
        lives_for = await redis.pttl(key)
        if kind in PERSISTENT and key.endswith(f":{kind}"):
            assert lives_for == NO_EXPIRY, f"{key}: a table would vanish"
        else:
            assert kind in EXPIRING, f"{key}: neither a table nor of a kind that expires"
            assert lives_for != NO_EXPIRY, f"{key}: lives for ever"
    return found
