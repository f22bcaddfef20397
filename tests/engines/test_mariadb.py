"""Credentials for a real MariaDB, through the API: issued, used, revoked, and gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pymysql
import pytest

from broker.secret import Secret
from broker.steps import Step
from broker.targets.mysql import MySQL
from tests.engines.estate import Page, Struck, how_it_ended, set_up, stuck
from tests.servers.mariadb import ADMIN_PASSWORD, MariaDB
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from pymysql.connections import Connection

    from broker.config import Config
    from broker.dev.stack import DevStack

ENDED = "Connection was killed|Lost connection"


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Generator[MariaDB]:
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="module")
def config(
    engines: tuple[DevStack, Config], mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Config]:
    page = Page("database.md", "MariaDB", {"mariadb.example:3306": mariadb.place})
    mariadb.as_admin(page.block("sql"))
    with set_up(engines, page, tmp_path_factory.mktemp("set-up"), "mariadb") as made:
        yield made


@pytest.fixture
def struck(mariadb: MariaDB) -> Struck:
    return Struck(mariadb.kill)


@pytest.fixture
async def stock(
    engines: tuple[DevStack, Config], config: Config, struck: Struck
) -> AsyncGenerator[World]:
    made = World(engines[0].issuer, config, before_step=struck)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


def login(mariadb: MariaDB, credential: dict[str, Any]) -> Connection[Any]:
    """Log in by the DSN alone."""
    dsn = urlsplit(str(credential["dsn"]))
    assert dsn.scheme == "mysql"
    assert dsn.netloc.rpartition("@")[2] == mariadb.place
    user, password = unquote(dsn.username or ""), unquote(dsn.password or "")
    return mariadb.login(user, password, dsn.path.removeprefix("/"))


def ask(connection: Connection[Any], query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def pieces(connection: Connection[Any]) -> list[tuple[Any, ...]]:
    return ask(connection, "SELECT pieces FROM items WHERE name = 'bolt'")


def refused(mariadb: MariaDB, credential: dict[str, Any]) -> bool:
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        login(mariadb, credential)
    return credential["username"] not in mariadb.accounts()


async def test_with_its_task_a_credential_and_its_open_connections_end(
    stock: World, mariadb: MariaDB
) -> None:
    task, other = [await stock.open(capabilities=["stock-read"]) for _ in "12"]
    granted = await stock.grant(task, "stock-read")
    bystander = await stock.grant(other, "stock-read")
    credential = granted["credential"]
    assert credential["type"] == "database"
    with login(mariadb, bystander["credential"]) as theirs:
        idle, busy = login(mariadb, credential), login(mariadb, credential)
        assert pieces(idle) == pieces(busy) == [(12,)]
        working = asyncio.create_task(asyncio.to_thread(ask, busy, "SELECT SLEEP(600)"))

        async def at_work() -> bool:
            return credential["username"] in mariadb.at_work()

        await wait_until(at_work, "a statement is running")

        assert (await stock.complete(task))["grants"]["revoked"] == 1

        assert credential["username"] not in mariadb.sessions()
        with pytest.raises(pymysql.err.OperationalError, match=ENDED):
            pieces(idle)
        with pytest.raises(pymysql.err.OperationalError, match=ENDED):
            await working
        assert refused(mariadb, credential)
        assert pieces(theirs) == [(12,)]
    assert await how_it_ended(stock, granted) == ("revoked", "lease_lookup")
    await stock.complete(other)


async def test_a_server_that_is_down_leaves_a_grant_revoking_until_it_is_back(
    stock: World, mariadb: MariaDB, struck: Struck
) -> None:
    task = await stock.open(capabilities=["stock-read"])
    granted = await stock.grant(task, "stock-read")

    try:
        await stuck(stock, task, granted, struck)
    finally:
        mariadb.start()
    assert granted["credential"]["username"] in mariadb.accounts()
    with login(mariadb, granted["credential"]) as connection:
        assert pieces(connection) == [(12,)]

    await stock.sweep(ahead_ms=600_000)

    assert await how_it_ended(stock, granted) == ("revoked", "lease_lookup")
    assert refused(mariadb, granted["credential"])


async def test_what_was_revoked_stays_so_when_the_server_dies_before_it_is_confirmed(
    stock: World, mariadb: MariaDB, struck: Struck
) -> None:
    task = await stock.open(capabilities=["stock-read"])
    granted = await stock.grant(task, "stock-read")
    struck.at = Step.CONFIRM

    await stock.complete(task)
    mariadb.start()

    assert await how_it_ended(stock, granted) == ("revoked", "lease_lookup")
    assert refused(mariadb, granted["credential"])


async def test_reconciling_ends_an_account_there_from_every_host_with_its_sessions(
    mariadb: MariaDB,
) -> None:
    account = "v-token-br'\\stray"
    named = "'v-token-br''\\\\stray'"
    for host in ("%", "127.0.0.1"):
        mariadb.as_admin(
            f"CREATE USER {named}@'{host}' IDENTIFIED BY 'x';"
            f"GRANT SELECT ON stock.* TO {named}@'{host}'"
        )
    target = MySQL(lambda: Secret(f"mysql://root:{ADMIN_PASSWORD}@{mariadb.place}"))
    assert account in await target.accounts()
    mine = mariadb.login(account, "x")
    assert pieces(mine) == [(12,)]

    await target.end(account)

    with pytest.raises(pymysql.err.OperationalError, match=ENDED):
        pieces(mine)
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        mariadb.login(account, "x")
    assert account not in await target.accounts()
    await target.end(account)  # gone is success
