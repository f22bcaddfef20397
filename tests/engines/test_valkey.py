"""Credentials for a real Valkey, through the API: issued, used, revoked, and gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from broker.secret import Secret
from broker.targets.valkey import Valkey as Accounts
from tests.engines.estate import Outage, Page, how_it_ended, set_up
from tests.servers.valkey import ADMIN_PASSWORD, TargetValkey

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.world import World


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[TargetValkey]:
    with TargetValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def config(
    engines: tuple[DevStack, Config],
    server: TargetValkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Config]:
    places = {
        "valkey.example port=6379": f"127.0.0.1 port={server.port}",
        "valkey.example:6379": server.place,
    }
    page = Page("database.md", "Valkey", places)
    server.ask(*page.block("text").split())
    server.ask("SET", "cart:7", "3 bolts")
    with set_up(engines, page, tmp_path_factory.mktemp("set-up"), "valkey") as made:
        server.ask("ACL", "SAVE")  # Vault's own user outlives a restart
        yield made


class Session:
    """One open connection, which isn't opened again by itself."""

    def __init__(self, dsn: str) -> None:
        """Log in, by the DSN alone."""
        self._client = redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            dsn, single_connection_client=True, retry=None, decode_responses=True
        )

    def ask(self, *words: str) -> object:
        return cast("object", self._client.execute_command(*words))  # pyright: ignore[reportUnknownMemberType]

    def close(self) -> None:
        self._client.close()


def refused(server: TargetValkey, credential: dict[str, Any]) -> bool:
    with pytest.raises(redis.AuthenticationError):
        Session(credential["dsn"]).ask("GET", "cart:7")
    return credential["username"] not in server.users()


async def test_with_its_task_a_credential_and_its_open_connections_end(
    world: World, server: TargetValkey
) -> None:
    task, other = [await world.open(capabilities=["carts-read"]) for _ in "12"]
    granted = await world.grant(task, "carts-read")
    bystander = await world.grant(other, "carts-read")
    credential = granted["credential"]
    assert credential["type"] == "database"
    mine, theirs = Session(credential["dsn"]), Session(bystander["credential"]["dsn"])
    assert mine.ask("GET", "cart:7") == theirs.ask("GET", "cart:7") == "3 bolts"
    for beyond in (("GET", "other"), ("SET", "cart:7", "none")):
        with pytest.raises(redis.ResponseError, match=r"(?i)no permissions"):
            mine.ask(*beyond)

    assert (await world.complete(task))["grants"]["revoked"] == 1

    assert f"user={credential['username']}" not in str(server.ask("CLIENT", "LIST"))
    with pytest.raises(redis.ConnectionError):
        mine.ask("GET", "cart:7")
    assert refused(server, credential)
    assert theirs.ask("GET", "cart:7") == "3 bolts"
    theirs.close()
    assert await how_it_ended(world, granted) == ("revoked", "lease_lookup")
    await world.complete(other)


class TestOutage(Outage):
    capability = "carts-read"

    def outlives_a_restart(self, server: TargetValkey) -> None:
        server.ask("ACL", "SAVE")

    def works(self, server: TargetValkey, credential: dict[str, Any]) -> bool:
        session = Session(credential["dsn"])
        try:
            known = credential["username"] in server.users()
            return known and session.ask("GET", "cart:7") == "3 bolts"
        finally:
            session.close()

    def refused(self, server: TargetValkey, credential: dict[str, Any]) -> bool:
        return refused(server, credential)


async def test_an_account_that_a_restart_has_ended_is_confirmed_gone(
    world: World, server: TargetValkey
) -> None:
    task = await world.open(capabilities=["carts-read"])
    granted = await world.grant(task, "carts-read")
    server.kill()
    server.start()
    assert refused(server, granted["credential"])

    await world.complete(task)
    await world.sweep(ahead_ms=600_000)  # Vault's own connection ended with the server, too

    assert await how_it_ended(world, granted) == ("revoked", "lease_lookup")


async def test_an_account_that_reconciling_ends_stays_away_when_the_server_is_restarted(
    server: TargetValkey,
) -> None:
    account = "v-token-br-stray"
    server.ask("ACL", "SETUSER", account, "on", ">x", "+@all", "~*")
    server.ask("ACL", "SAVE")
    target = Accounts(lambda: Secret(f"redis://admin:{ADMIN_PASSWORD}@{server.place}"))
    assert account in await target.accounts()

    await target.end(account)
    server.kill()
    server.start()

    assert account not in await target.accounts()


async def test_an_account_that_was_shut_out_is_one_that_vault_ends(
    world: World, server: TargetValkey
) -> None:
    task = await world.open(capabilities=["carts-read"])
    granted = await world.grant(task, "carts-read")
    session = Session(granted["credential"]["dsn"])
    assert session.ask("GET", "cart:7") == "3 bolts"
    target = Accounts(lambda: Secret(f"redis://admin:{ADMIN_PASSWORD}@{server.place}"))

    await target.shut(["v-gone", granted["credential"]["username"]])

    with pytest.raises(redis.ConnectionError):
        session.ask("GET", "cart:7")
    assert refused(server, granted["credential"])
    assert "v-gone" not in server.users()
    assert (await world.complete(task))["grants"]["revoked"] == 1
    assert await how_it_ended(world, granted) == ("revoked", "lease_lookup")
