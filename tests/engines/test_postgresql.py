"""Credentials for a PostgreSQL that is set up as the page says: issued, used, revoked, and gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

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
