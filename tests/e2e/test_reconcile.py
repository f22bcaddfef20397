"""Reconciling: each side is set back or wiped in turn, and all end in agreement."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import redis

from tests.admin import Admin, own_stack, running
from tests.keys_check import assert_no_immortal_keys
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.engines import OpenBao, Valkey
    from broker.dev.stack import DevStack

PATH: Final = "/v1/reconciliations"
TARGETS: Final = """
[[targets]]
name = "orders"
kind = "postgresql"
dsn_file = "orders-dsn"
accounts = "v-token-br*"
capabilities = ["orders-read", "orders-write"]

[[targets]]
name = "cache"
kind = "valkey"
dsn_file = "cache-dsn"
accounts = "v-token-br*"
capabilities = ["orders-write"]
"""


@dataclass
class Own:
    """Engines that may be set back, and brokers on them, one after the other."""

    stack: DevStack
    config: Config
    admin: Admin
    folder: Path

    @property
    def valkey(self) -> Valkey:
        assert self.stack.valkey is not None
        return self.stack.valkey

    @property
    def openbao(self) -> OpenBao:
        assert self.stack.openbao is not None
        return self.stack.openbao

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncGenerator[World]:
        """A replica that serves, and writes and signs its log."""
        world = World(self.stack.issuer, self.config)
        async with running(world):
            yield world
        await world.http.aclose()

    @contextlib.contextmanager
    def stopped(self, engine: Valkey | OpenBao) -> Generator[Path]:
        """An engine's files, while it doesn't run."""
        engine.stop()
        yield engine.home / ("appendonlydir" if engine is self.stack.valkey else "raft")
        engine.start()

    def back_up(self, engine: Valkey | OpenBao) -> Path:
        to = self.folder / f"backup-{engine.name}"
        with self.stopped(engine) as files:
            shutil.rmtree(to, ignore_errors=True)
            shutil.copytree(files, to)
        return to

    def restore(self, engine: Valkey | OpenBao, backup: Path) -> None:
        with self.stopped(engine) as files:
            shutil.rmtree(files)
            shutil.copytree(backup, files)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config, Path]]:
    folder = tmp_path_factory.mktemp("reconcile")
    for name in ("orders-dsn", "cache-dsn"):
        (folder / name).write_text("not yet")
    with own_stack(folder, TARGETS) as (made, config):
        assert made.postgres is not None
        assert made.valkey is not None
        (folder / "orders-dsn").write_text(made.postgres.admin_dsn.reveal())
        (folder / "cache-dsn").write_text(made.valkey.url)
        yield made, config, folder


@pytest.fixture
async def own(stack: tuple[DevStack, Config, Path]) -> Own:
    made, config, folder = stack
    return Own(made, config, Admin(made), folder)


async def reconcile(world: World, **ask: Any) -> dict[str, Any]:
    answer = await world.call("operator", "POST", PATH, ask)
    assert answer.status_code == 200, answer.text
    assert answer.json()["problems"] == []
    return answer.json()


def found(report: dict[str, Any]) -> set[tuple[str, str]]:
    return {(row["kind"], row["grant_id"] or row["subject"]) for row in report["findings"]}


async def agrees(world: World) -> bool:
    """Whether all sides agree, once what is being ended is gone."""

    async def ask() -> bool:
        return (await reconcile(world))["agreement"]

    return await wait_until(ask, "all sides agree")


async def issuing(world: World, task: dict[str, Any]) -> tuple[int, str]:
    path = f"/v1/tasks/{task['task_id']}/grants"
    answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})
    return answer.status_code, answer.json().get("code", "")


async def state(world: World, grant: dict[str, Any]) -> str:
    return (await world.show_grant(grant["grant_id"]))["state"]


async def test_an_old_ledger_is_held_until_it_was_reconciled_and_kills_nothing_by_surprise(
    own: Own,
) -> None:
    async with own.served() as world:
        over, lasting = await world.open(), await world.open(heartbeat="30s")
        dead = await world.grant(over, ttl="5m")
        lives = await world.grant(lasting, ttl="5m")
        assert await agrees(world)
    backup = own.back_up(own.valkey)
    async with own.served() as world:
        await world.complete(over)
        young = await world.open()
        unknown = await world.grant(young, ttl="5m")
    own.restore(own.valkey, backup)

    async with own.served() as world:
        assert await issuing(world, lasting) == (503, "quarantined")
        ready = await world.http.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["checks"]["reconcile"].startswith("warning: in quarantine since ")
        # Long after what it takes for the last beat and for the deadline.
        await world.sweep(ahead_ms=3_600_000)
        for grant in (lives, unknown):
            assert await logs_in(grant["credential"])
        path = f"/v1/tasks/{lasting['task_id']}/heartbeat"
        assert (await world.call("orchestrator", "POST", path)).status_code == 200

        shown = await reconcile(world)
        [token] = [row for row in shown["findings"] if row["kind"] == "orphan_token"]
        assert "the ledger has no task" in token["evidence"]
        assert ("lease_gone", dead["grant_id"]) in found(shown)
        assert lives["grant_id"] not in str(shown)
        assert await logs_in(unknown["credential"])

        applied = await reconcile(world, apply=True)
        outcomes = {row["kind"]: row["outcome"] for row in applied["findings"]}
        assert outcomes["lease_gone"] == outcomes["orphan_token"] == "done"
        assert await state(world, dead) == "revoked"
        assert await agrees(world)
        assert not await logs_in(unknown["credential"])
        assert await logs_in(lives["credential"])

        assert await issuing(world, lasting) == (503, "quarantined")
        assert (await reconcile(world, apply=True))["quarantine"] is None
        assert await issuing(world, lasting) == (201, "")
        # Silence counts from the end of the quarantine.
        await world.sweep(ahead_ms=20_000)
        assert await logs_in(lives["credential"])
        await world.complete(lasting)
        assert not await logs_in(lives["credential"])


async def test_a_lost_ledger_is_held_and_what_it_knew_is_found_in_vault(own: Own) -> None:
    async with own.served() as world:
        task = await world.open()
        granted = await world.grant(task, ttl="5m")
    with own.stopped(own.valkey) as files:
        shutil.rmtree(files)

    async with own.served() as world:
        fresh = await world.call(
            "orchestrator",
            "POST",
            "/v1/tasks",
            {
                "agent": "report-writer",
                "purpose": "the next report",
                "capabilities": ["orders-api"],
            },
        )
        assert (fresh.status_code, fresh.json()["code"]) == (503, "quarantined")
        assert fresh.headers["retry-after"] == "60"
        shown = await reconcile(world)
        [token] = [row for row in shown["findings"] if row["kind"] == "orphan_token"]
        # Whose account it is can't be known while there is a lease that nobody claims.
        [account] = [row for row in shown["findings"] if row["kind"] == "orphan_account"]
        assert (token["action"], account["action"]) == ("revoke_token", "none")
        assert account["subject"] == granted["credential"]["username"]
        assert await logs_in(granted["credential"])

        applied = await reconcile(world, apply=True)
        assert {row["kind"]: row["outcome"] for row in applied["findings"]} == {
            "orphan_token": "done",
            "unclaimed_lease": "shown",
            "orphan_account": "shown",
        }
        assert await agrees(world)
        assert not await logs_in(granted["credential"])

        released = await reconcile(world, release=True, reason="all of it was test data")
        assert released["quarantine"] is None
        assert (await world.open())["state"] == "active"
        again = await world.call("operator", "POST", PATH, {"release": True, "reason": "twice"})
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        types = [event["type"] for event in (await events(world))]
        wanted = ["quarantine.set", "reconcile.applied", "quarantine.released"]
        assert [kind for kind in types if kind in wanted] == wanted


async def events(world: World) -> list[dict[str, Any]]:
    answer = await world.call("operator", "GET", "/v1/audit/events?limit=500")
    return answer.json()["items"]


async def test_an_old_vault_has_the_dead_again_and_has_forgotten_the_living(own: Own) -> None:
    world = World(own.stack.issuer, own.config)
    over, lasting = await world.open(), await world.open()
    dead, lives = await world.grant(over, ttl="5m"), await world.grant(lasting, ttl="5m")
    backup = own.back_up(own.openbao)
    await world.complete(over)
    forgotten = await world.grant(lasting, ttl="5m")
    own.restore(own.openbao, backup)

    shown = await reconcile(world)
    assert {kind for kind, _ in found(shown)} == {"orphan_token", "resurrected_lease", "lease_gone"}
    assert ("resurrected_lease", dead["grant_id"]) in found(shown)
    assert ("lease_gone", forgotten["grant_id"]) in found(shown)
    # Nothing at all would have ended this one any more.
    assert await logs_in(forgotten["credential"])

    applied = await reconcile(world, apply=True)
    assert applied["outcomes"] == {"done": 3}
    assert await state(world, forgotten) == "revoked"
    assert not await logs_in(forgotten["credential"])
    assert await agrees(world)
    assert await logs_in(lives["credential"])
    await world.complete(lasting)
    assert not await logs_in(lives["credential"])
    assert await agrees(world)
    await world.close()


async def test_a_wiped_target_ends_the_grants_whose_accounts_are_gone(own: Own) -> None:
    world = World(own.stack.issuer, own.config)
    task = await world.open()
    wiped, lives = await world.grant(task), await world.grant(task)
    account = wiped["credential"]["username"]
    await own.admin.sql(f'DROP OWNED BY "{account}"; DROP ROLE "{account}"')

    assert found(await reconcile(world)) == {("account_gone", wiped["grant_id"])}
    assert await state(world, wiped) == "active"
    await reconcile(world, apply=True)

    assert await state(world, wiped) == "revoked"
    assert await logs_in(lives["credential"])
    assert await agrees(world)
    await world.complete(task)
    await world.close()


async def test_only_what_was_shown_is_ended_with_the_sessions_it_has(own: Own) -> None:
    world = World(own.stack.issuer, own.config)
    name = "v-token-br-stray"
    await own.admin.sql(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'x' IN ROLE orders_reader")
    await own.admin.sql(f'CREATE ROLE "{name.removeprefix("v-")}" LOGIN')
    place = own.stack.postgres
    assert place is not None
    session = await psycopg.AsyncConnection.connect(
        f"postgresql://{name}:x@{place.host}:{place.port}/orders", autocommit=True
    )
    cache: Any = redis.Redis.from_url(own.valkey.url)  # pyright: ignore[reportUnknownMemberType]
    cache.execute_command("ACL", "SETUSER", name, "on", ">x", "+@all", "~*")
    visitor: Any = redis.Redis.from_url(own.valkey.url, username=name, password="x")  # pyright: ignore[reportUnknownMemberType]
    assert visitor.ping()

    unseen = await reconcile(world, apply=True)
    assert {(row["place"], row["outcome"]) for row in unseen["findings"]} == {
        ("orders", "new"),
        ("cache", "new"),
    }
    assert (await session.execute("SELECT 1")).rowcount == 1
    seen = await reconcile(world, apply=True)
    assert {(row["subject"], row["outcome"]) for row in seen["findings"]} == {(name, "done")}

    with pytest.raises(psycopg.OperationalError):
        await session.execute("SELECT 1")
    with pytest.raises(redis.AuthenticationError):  # cut off, and not let in again
        visitor.ping()
    assert name not in {str(r[0]) for r in await own.admin.sql("SELECT rolname FROM pg_roles")}
    assert await own.admin.sql("SELECT 1 FROM pg_roles WHERE rolname = 'token-br-stray'")
    assert await agrees(world)
    await assert_no_immortal_keys(world)
    last = await world.call("auditor", "GET", PATH)
    assert last.json()["agreement"]
    cache.close()
    visitor.close()
    await world.close()


async def test_an_old_ledger_is_held_at_once_although_it_says_that_another_writes_the_log(
    own: Own,
) -> None:
    """It was saved while that one served, and its lease isn't over yet. The last test of these."""
    async with own.served() as world:
        task = await world.open()
        await agrees(world)
        backup = own.back_up(own.valkey)
    async with own.served() as world:
        await world.grant(task)
    own.restore(own.valkey, backup)

    async with own.served() as world:
        assert await issuing(world, task) == (503, "quarantined")
