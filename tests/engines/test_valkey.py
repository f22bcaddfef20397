"""Credentials for a real Valkey, through the API: issued, used, revoked, and gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from broker.secret import Secret
from broker.targets.valkey import Valkey as Accounts
from tests.engines.estate import Page, Struck, how_it_ended, set_up, stuck
from tests.servers.valkey import ADMIN_PASSWORD, TargetValkey
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[TargetValkey]:
    with TargetValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def config(
    engines: tuple[DevStack, Config],
    valkey: TargetValkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Config]:
    places = {
        "valkey.example port=6379": f"127.0.0.1 port={valkey.port}",
        "valkey.example:6379": valkey.place,
    }
    page = Page("database.md", "Valkey", places)
    valkey.ask(*page.block("text").split())
    valkey.ask("SET", "cart:7", "3 bolts")
    with set_up(engines, page, tmp_path_factory.mktemp("set-up"), "valkey") as made:
        valkey.ask("ACL", "SAVE")  # Vault's own user outlives a restart
        yield made


@pytest.fixture
def struck(valkey: TargetValkey) -> Struck:
    return Struck(valkey.kill)


@pytest.fixture
async def carts(
    engines: tuple[DevStack, Config], config: Config, struck: Struck
) -> AsyncGenerator[World]:
    made = World(engines[0].issuer, config, before_step=struck)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


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


def refused(valkey: TargetValkey, credential: dict[str, Any]) -> bool:
    with pytest.raises(redis.AuthenticationError):
        Session(credential["dsn"]).ask("GET", "cart:7")
    return credential["username"] not in valkey.users()


async def test_with_its_task_a_credential_and_its_open_connections_end(
    carts: World, valkey: TargetValkey
) -> None:
    task, other = [await carts.open(capabilities=["carts-read"]) for _ in "12"]
    granted = await carts.grant(task, "carts-read")
    bystander = await carts.grant(other, "carts-read")
    credential = granted["credential"]
    assert credential["type"] == "database"
    mine, theirs = Session(credential["dsn"]), Session(bystander["credential"]["dsn"])
    assert mine.ask("GET", "cart:7") == theirs.ask("GET", "cart:7") == "3 bolts"
    for beyond in (("GET", "other"), ("SET", "cart:7", "none")):
        with pytest.raises(redis.ResponseError, match=r"(?i)no permissions"):
            mine.ask(*beyond)

    assert (await carts.complete(task))["grants"]["revoked"] == 1

    assert f"user={credential['username']}" not in str(valkey.ask("CLIENT", "LIST"))
    with pytest.raises(redis.ConnectionError):
        mine.ask("GET", "cart:7")
    assert refused(valkey, credential)
    assert theirs.ask("GET", "cart:7") == "3 bolts"
    theirs.close()
    assert await how_it_ended(carts, granted) == ("revoked", "lease_lookup")
    await carts.complete(other)


async def test_a_server_that_is_down_leaves_a_grant_revoking_until_it_is_back(
    carts: World, valkey: TargetValkey, struck: Struck
) -> None:
    task = await carts.open(capabilities=["carts-read"])
    granted = await carts.grant(task, "carts-read")
    valkey.ask("ACL", "SAVE")  # or its end would be the account's too

    try:
        await stuck(carts, task, granted, struck)
    finally:
        valkey.start()
    assert granted["credential"]["username"] in valkey.users()
    session = Session(granted["credential"]["dsn"])
    assert session.ask("GET", "cart:7") == "3 bolts"
    session.close()

    await carts.sweep(ahead_ms=600_000)

    assert await how_it_ended(carts, granted) == ("revoked", "lease_lookup")
    assert refused(valkey, granted["credential"])


async def test_an_account_that_a_restart_has_ended_is_confirmed_gone(
    carts: World, valkey: TargetValkey
) -> None:
    task = await carts.open(capabilities=["carts-read"])
    granted = await carts.grant(task, "carts-read")
    valkey.kill()
    valkey.start()
    assert refused(valkey, granted["credential"])

    await carts.complete(task)
    await carts.sweep(ahead_ms=600_000)  # Vault's own connection ended with the server, too

    assert await how_it_ended(carts, granted) == ("revoked", "lease_lookup")


async def test_an_account_that_reconciling_ends_stays_away_when_the_server_is_restarted(
    valkey: TargetValkey,
) -> None:
    account = "v-token-br-stray"
    valkey.ask("ACL", "SETUSER", account, "on", ">x", "+@all", "~*")
    valkey.ask("ACL", "SAVE")
    target = Accounts(lambda: Secret(f"redis://admin:{ADMIN_PASSWORD}@{valkey.place}"))
    assert account in await target.accounts()

    await target.end(account)
    valkey.kill()
    valkey.start()

    assert account not in await target.accounts()
