"""Credentials for a real RabbitMQ, through the API: issued, used, revoked, and gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pika
import pika.exceptions
import pytest

from broker.errors import BackendRefused
from broker.secret import Secret
from broker.targets.rabbitmq import RabbitMQ as Management
from tests.engines.estate import Outage, Page, how_it_ended, set_up
from tests.servers.rabbitmq import ADMIN, ADMIN_PASSWORD, RabbitMQ
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.world import World

QUEUE = "invoices"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="module")
def config(
    engines: tuple[DevStack, Config], server: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Config]:
    places = {
        "http://rabbitmq.example:15672": server.api,
        "rabbitmq.example:5672": server.place,
    }
    page = Page("rabbitmq.md", "Setting it up", places)
    server.as_admin(page.block("text"))
    with connect(f"amqp://{ADMIN}:{ADMIN_PASSWORD}@{server.place}/%2F") as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", QUEUE, b"42.00", pika.BasicProperties(delivery_mode=2))
    with set_up(engines, page, tmp_path_factory.mktemp("set-up"), "rabbitmq") as made:
        yield made


def connect(dsn: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(dsn))


def peek(connection: pika.BlockingConnection) -> bytes | None:
    """Read a message, and leave it where it is."""
    channel: Any = connection.channel()
    found = channel.basic_get(QUEUE)
    channel.close()
    return found[2]


def refused(server: RabbitMQ, credential: dict[str, Any]) -> bool:
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
        connect(credential["dsn"])
    return credential["username"] not in server.users()


async def test_with_its_task_a_credential_and_its_open_connections_end(
    world: World, server: RabbitMQ
) -> None:
    task, other = [await world.open(capabilities=["invoices-read"]) for _ in "12"]
    granted = await world.grant(task, "invoices-read")
    bystander = await world.grant(other, "invoices-read")
    credential = granted["credential"]
    assert credential["type"] == "rabbitmq"
    with connect(bystander["credential"]["dsn"]) as theirs:
        mine = connect(credential["dsn"])
        assert peek(mine) == peek(theirs) == b"42.00"
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            mine.channel().queue_purge("others")

        assert (await world.complete(task))["grants"]["revoked"] == 1

        async def closed() -> bool:
            try:
                mine.process_data_events(0)
            except pika.exceptions.ConnectionClosedByBroker as error:
                return "is deleted" in error.reply_text
            return False

        await wait_until(closed, "RabbitMQ has closed the connection")
        assert refused(server, credential)
        assert peek(theirs) == b"42.00"
    assert await how_it_ended(world, granted) == ("revoked", "lease_lookup")
    await world.complete(other)


class TestOutage(Outage):
    capability = "invoices-read"

    def works(self, server: RabbitMQ, credential: dict[str, Any]) -> bool:
        with connect(credential["dsn"]) as connection:
            return credential["username"] in server.users() and peek(connection) == b"42.00"

    def refused(self, server: RabbitMQ, credential: dict[str, Any]) -> bool:
        return refused(server, credential)


async def test_reconciling_ends_an_account_there_and_takes_no_404_for_an_empty_list(
    server: RabbitMQ,
) -> None:
    account, url = "v-token-br/stray", server.api.replace("//", f"//{ADMIN}:{ADMIN_PASSWORD}@")
    server.http.put(f"users/{quote(account, safe='')}", json={"password": "x", "tags": ""})
    server.http.put(
        f"permissions/%2F/{quote(account, safe='')}",
        json={"configure": "", "write": "", "read": ".*"},
    )
    target = Management(lambda: Secret(url))
    assert account in await target.accounts()
    with pytest.raises(BackendRefused, match="404"):
        await Management(lambda: Secret(f"{url}/elsewhere")).accounts()

    mine = connect(f"amqp://{quote(account, safe='')}:x@{server.place}/%2F")
    await target.end(account)

    async def closed() -> bool:
        try:
            mine.process_data_events(0)
        except pika.exceptions.AMQPConnectionError:
            return True
        return False

    await wait_until(closed, "RabbitMQ has closed the connection")
    assert account not in await target.accounts()
    await target.end(account)  # gone is success
