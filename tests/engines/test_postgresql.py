"""Credentials for a PostgreSQL that is set up as the page says: issued, used, revoked, and gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from broker.secret import Secret
from broker.targets.postgresql import PostgreSQL
from tests.admin import Admin
from tests.engines.estate import Page, how_it_ended, set_up
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture(scope="module")
def config(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Generator[Config]:
    postgres = engines[0].postgres
    assert postgres is not None
    place = f"{postgres.host}:{postgres.port}"
    page = Page("database.md", "PostgreSQL", {"postgresql.example:5432": place})
    with psycopg.connect(postgres.admin_dsn.reveal(), autocommit=True) as connection:
        connection.execute(page.block("sql").encode())
        with set_up(engines, page, tmp_path_factory.mktemp("set-up"), "postgresql") as made:
            yield made
        for role in ("vault_sales", "sales_reader", "sales_owner"):
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


async def test_with_its_task_a_credential_and_its_open_connections_end(
    world: World, engines: tuple[DevStack, Config]
) -> None:
    task = await world.open(capabilities=["sales-read"])
    granted = await world.grant(task, "sales-read")
    credential: dict[str, Any] = granted["credential"]
    assert credential["type"] == "database"
    mine = await psycopg.AsyncConnection.connect(credential["dsn"], autocommit=True)
    await mine.execute("SELECT count(*) FROM orders")

    assert (await world.complete(task))["grants"]["revoked"] == 1

    with pytest.raises(psycopg.OperationalError):
        await mine.execute("SELECT 1")
    assert not await logs_in(credential)
    assert credential["username"] not in await Admin(engines[0]).roles()
    assert await how_it_ended(world, granted) == ("revoked", "lease_lookup")


async def test_its_accounts_are_ended_by_the_role_that_makes_them(
    engines: tuple[DevStack, Config],
) -> None:
    """No superuser, as the page allows; and an account whose name wants quoting.

    One that somebody else made keeps none of its own in.
    """
    postgres, account, others = engines[0].postgres, "v-x'\"y", "v-others"
    assert postgres is not None
    place = f"{postgres.host}:{postgres.port}/orders"
    named = sql.Identifier(account)
    with psycopg.connect(postgres.admin_dsn.reveal(), autocommit=True) as admin:
        admin.execute("CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'm'")
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(sql.Identifier(others)))
        admin.execute("GRANT CONNECT ON DATABASE orders TO maker WITH GRANT OPTION")
        try:
            with psycopg.connect(f"postgresql://maker:m@{place}", autocommit=True) as maker:
                maker.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(named))
                maker.execute(sql.SQL("GRANT CONNECT ON DATABASE orders TO {}").format(named))
            mine = await psycopg.AsyncConnection.connect(
                f"postgresql://{place}", user=account, password="x", autocommit=True
            )
            target = PostgreSQL(lambda: Secret(f"postgresql://maker:m@{place}"))
            assert account in await target.accounts()

            assert await target.shut([others, "v-gone", account]) == [others]

            with pytest.raises(psycopg.OperationalError):
                await mine.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
                psycopg.connect(f"postgresql://{place}", user=account, password="x")
            assert account in await target.accounts()
            kept = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"
            admin.execute(kept, ["maker"])
            assert await target.shut([account]) == []  # by a new connection
            await target.close()

            await target.end(account)

            assert account not in await target.accounts()
            await target.end(account)  # gone is success
        finally:
            for role in (*({account, others} & await Admin(engines[0]).roles()), "maker"):
                text = sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}")
                admin.execute(text.format(sql.Identifier(role)))
