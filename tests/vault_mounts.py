"""Secrets engines that a test mounts in the session's OpenBao, and a broker that uses them."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

from broker.backends.bootstrap import Bootstrap
from broker.clock import SystemClock
from broker.config.entries import CapabilityEntry
from broker.dev.vault import admin
from tests.admin import Admin
from tests.docs.blocks import DOCS
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from broker.config import Config
    from broker.dev.stack import DevStack

HOUR_MS: Final = 3_600_000


def documented(page: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The capability and the role that a page of ``docs/backends`` shows, and their mount."""
    text = (DOCS / "backends" / page).read_text("utf-8")
    toml, role = (
        re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)[0] for language in ("toml", "json")
    )
    [capability] = tomllib.loads(toml)["capabilities"]
    return capability, json.loads(role), capability["path"].partition("/")[0]


@contextlib.asynccontextmanager
async def mounted(stack: DevStack, kind: str, path: str) -> AsyncGenerator[Admin]:
    """One engine, gone again afterwards with all that it made."""
    root = Admin(stack)
    await root.vault("POST", f"sys/mounts/{path}", {"type": kind})
    try:
        yield root
    finally:
        await root.vault("DELETE", f"sys/mounts/{path}")


async def bootstrap(
    stack: DevStack,
    capabilities: Iterable[CapabilityEntry],
    on_progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Write Vault's policies for capabilities, as ``broker vault bootstrap`` does."""
    assert stack.openbao is not None
    api = admin(stack.openbao, SystemClock())
    try:
        writes = Bootstrap(
            api, token_role="broker-task", policy_prefix="broker-cap-", max_ttl_ms=HOUR_MS
        )
        await writes.policies([c.entry() for c in capabilities], on_progress=on_progress)
    finally:
        api.close()


@contextlib.asynccontextmanager
async def broker_with(
    engines: tuple[DevStack, Config], *capabilities: dict[str, Any]
) -> AsyncGenerator[World]:
    """A broker on an empty ledger whose agents may have these capabilities too.

    It tries again soon what it can't revoke, and is stuck after three times.
    """
    stack, config = engines
    entries = [
        CapabilityEntry.model_validate({"power": "read", "backend": "vault", **fields})
        for fields in capabilities
    ]
    names = tuple(entry.name for entry in entries)
    principals = tuple(
        p.model_copy(update={"capabilities": (*p.capabilities, *names)}) if p.role == "agent" else p
        for p in config.principals
    )
    every = (*config.capabilities, *entries)
    impatient = config.revocation.model_copy(
        update={"attempts": 3, "backoff": 50, "max_backoff": 200}
    )
    more = {"capabilities": every, "principals": principals, "revocation": impatient}
    await bootstrap(stack, every)
    world = World(stack.issuer, config.model_copy(update=more))
    await world.app.connection.command("FLUSHALL")
    try:
        yield world
    finally:
        await world.close()


async def over(world: World, task: dict[str, Any]) -> tuple[int, int]:
    """End a task; how many of its grants are revoked then, and how many are being revoked."""
    grants = (await world.complete(task))["grants"]
    return grants["revoked"], grants["revoking"]
