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
from tests.engines.estate import Outage, Page, Struck, how_it_ended, set_up
from tests.servers.mariadb import ADMIN_PASSWORD, MariaDB
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

    from pymysql.connections import Connection

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.world import World

ENDED = "Connection was killed|Lost connection"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[MariaDB]:
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="module")
def config(
    engines: tuple[DevStack, Config], server: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Config]:
    page = Page("database.md", "MariaDB", {"mariadb.example:3306": server.place})
    server.as_admin(page.block("sql"))
    with set_up(engines, page, tmp_path_factory.mktemp("set-up"), "mariadb") as made:
        yield made


def login(server: MariaDB, credential: dict[str, Any]) -> Connection[Any]:
    """Log in by the DSN alone."""
    dsn = urlsplit(str(credential["dsn"]))
    assert dsn.scheme == "mysql"
    assert dsn.netloc.rpartition("@")[2] == server.place
    user, password = unquote(dsn.username or ""), unquote(dsn.password or "")
    return server.login(user, password, dsn.path.removeprefix("/"))


def ask(connection: Connection[Any], query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def pieces(connection: Connection[Any]) -> list[tuple[Any, ...]]:
    return ask(connection, "SELECT pieces FROM items WHERE name = 'bolt'")


def refused(server: MariaDB, credential: dict[str, Any]) -> bool:
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        login(server, credential)
    return credential["username"] not in server.accounts()


async def test_with_its_task_a_credential_and_its_open_connections_end(
    world: World, server: MariaDB
) -> None:
    task, other = [await world.open(capabilities=["stock-read"]) for _ in "12"]
    granted = await world.grant(task, "stock-read")
    bystander = await world.grant(other, "stock-read")
    credential = granted["credential"]
    assert credential["type"] == "database"
    with login(server, bystander["credential"]) as theirs:
        idle, busy = login(server, credential), login(server, credential)
        assert pieces(idle) == pieces(busy) == [(12,)]
        working = asyncio.create_task(asyncio.to_thread(ask, busy, "SELECT SLEEP(600)"))

        async def at_work() -> bool:
            return credential["username"] in server.at_work()

        await wait_until(at_work, "a statement is running")

        assert (await world.complete(task))["grants"]["revoked"] == 1

        assert credential["username"] not in server.sessions()
        with pytest.raises(pymysql.err.OperationalError, match=ENDED):
            pieces(idle)
        with pytest.raises(pymysql.err.OperationalError, match=ENDED):
            await working
        assert refused(server, credential)
        assert pieces(theirs) == [(12,)]
    assert await how_it_ended(world, granted) == ("revoked", "lease_lookup")
    await world.complete(other)


class TestOutage(Outage):
    capability = "stock-read"

    def works(self, server: MariaDB, credential: dict[str, Any]) -> bool:
        with login(server, credential) as connection:
            return credential["username"] in server.accounts() and pieces(connection) == [(12,)]

    def refused(self, server: MariaDB, credential: dict[str, Any]) -> bool:
        return refused(server, credential)


async def test_what_was_revoked_stays_so_when_the_server_dies_before_it_is_confirmed(
    world: World, server: MariaDB, struck: Struck
) -> None:
    task = await world.open(capabilities=["stock-read"])
    granted = await world.grant(task, "stock-read")
    struck.at = Step.CONFIRM

    await world.complete(task)
    server.start()

    assert await how_it_ended(world, granted) == ("revoked", "lease_lookup")
    assert refused(server, granted["credential"])


async def test_reconciling_ends_an_account_there_from_every_host_with_its_sessions(
    server: MariaDB,
) -> None:
    account = "v-token-br'\\stray"
    named = "'v-token-br''\\\\stray'"
    for host in ("%", "127.0.0.1"):
        server.as_admin(
            f"CREATE USER {named}@'{host}' IDENTIFIED BY 'x';"
            f"GRANT SELECT ON stock.* TO {named}@'{host}'"
        )
    target = MySQL(lambda: Secret(f"mysql://root:{ADMIN_PASSWORD}@{server.place}"))
    assert account in await target.accounts()
    mine = server.login(account, "x")
    assert pieces(mine) == [(12,)]

    await target.shut(["v-gone", account])

    with pytest.raises(pymysql.err.OperationalError, match=ENDED):
        pieces(mine)
    with pytest.raises(pymysql.err.OperationalError, match="locked"):
        server.login(account, "x")
    assert account in await target.accounts()

    await target.end(account)

    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        server.login(account, "x")
    assert account not in await target.accounts()
    await target.end(account)  # gone is success
