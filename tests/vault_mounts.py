"""Secrets engines that a test mounts in the session's OpenBao, and a broker that uses them."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

import tomli_w

from broker.backends.bootstrap import Bootstrap
from broker.clock import SystemClock
from broker.config import parse_config
from broker.dev.config import FILE
from broker.dev.vault import admin
from tests.admin import Admin
from tests.docs.blocks import DOCS
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from broker.config import Config
    from broker.config.entries import CapabilityEntry
    from broker.dev.stack import DevStack

DAY_MS: Final = 86_400_000


def documented(page: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The capability and the role that a page of ``docs/backends`` shows, and their mount."""
    text = (DOCS / "backends" / page).read_text("utf-8")
    toml, role = (
        re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)[0] for language in ("toml", "json")
    )
    [capability] = tomllib.loads(toml)["capabilities"]
    return capability, json.loads(role), capability["path"].partition("/")[0]


def with_capabilities(
    stack: DevStack, rows: Sequence[dict[str, Any]], **sections: dict[str, Any]
) -> Config:
    """What the agents may have besides; ``sections`` change settings."""
    document: dict[str, Any] = tomllib.loads((stack.data / FILE).read_text("utf-8"))
    document["capabilities"] += [{"power": "read", "backend": "vault", **row} for row in rows]
    for principal in document["principals"]:
        if principal["role"] == "agent":
            principal["capabilities"] += [row["name"] for row in rows]
    for name, changes in sections.items():
        document[name] = {**document.get(name, {}), **changes}
    return parse_config(tomli_w.dumps(document), stack.data / FILE)


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
            api, token_role="broker-task", policy_prefix="broker-cap-", max_ttl_ms=DAY_MS
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
    stack, _ = engines
    config = with_capabilities(stack, capabilities)
    impatient = config.revocation.model_copy(
        update={"attempts": 3, "backoff": 50, "max_backoff": 200}
    )
    await bootstrap(stack, config.capabilities)
    world = World(stack.issuer, config.model_copy(update={"revocation": impatient}))
    await world.app.connection.command("FLUSHALL")
    try:
        yield world
    finally:
        await world.close()


async def over(world: World, task: dict[str, Any]) -> tuple[int, int]:
    """End a task; how many of its grants are revoked then, and how many are being revoked."""
    grants = (await world.complete(task))["grants"]
    return grants["revoked"], grants["revoking"]
