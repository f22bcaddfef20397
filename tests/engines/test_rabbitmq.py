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
from tests.engines.estate import Page, Struck, how_it_ended, set_up, stuck
from tests.servers.rabbitmq import ADMIN, ADMIN_PASSWORD, RabbitMQ
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from broker.config import Config
    from broker.dev.stack import DevStack

QUEUE = "invoices"


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Generator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="module")
def config(
    engines: tuple[DevStack, Config], rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Config]:
    places = {
        "http://rabbitmq.example:15672": rabbitmq.api,
        "rabbitmq.example:5672": rabbitmq.place,
    }
    page = Page("rabbitmq.md", "Setting it up", places)
    rabbitmq.as_admin(page.block("text"))
    with connect(f"amqp://{ADMIN}:{ADMIN_PASSWORD}@{rabbitmq.place}/%2F") as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", QUEUE, b"42.00", pika.BasicProperties(delivery_mode=2))
    with set_up(engines, page, tmp_path_factory.mktemp("set-up"), "rabbitmq") as made:
        yield made


@pytest.fixture
def struck(rabbitmq: RabbitMQ) -> Struck:
    return Struck(rabbitmq.kill)


@pytest.fixture
async def queues(
    engines: tuple[DevStack, Config], config: Config, struck: Struck
) -> AsyncGenerator[World]:
    made = World(engines[0].issuer, config, before_step=struck)
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


def connect(dsn: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(dsn))


def peek(connection: pika.BlockingConnection) -> bytes | None:
    """Read a message, and leave it where it is."""
    channel: Any = connection.channel()
    found = channel.basic_get(QUEUE)
    channel.close()
    return found[2]


def refused(rabbitmq: RabbitMQ, credential: dict[str, Any]) -> bool:
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
        connect(credential["dsn"])
    return credential["username"] not in rabbitmq.users()


async def test_with_its_task_a_credential_and_its_open_connections_end(
    queues: World, rabbitmq: RabbitMQ
) -> None:
    task, other = [await queues.open(capabilities=["invoices-read"]) for _ in "12"]
    granted = await queues.grant(task, "invoices-read")
    bystander = await queues.grant(other, "invoices-read")
    credential = granted["credential"]
    assert credential["type"] == "rabbitmq"
    with connect(bystander["credential"]["dsn"]) as theirs:
        mine = connect(credential["dsn"])
        assert peek(mine) == peek(theirs) == b"42.00"
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            mine.channel().queue_purge("others")

        assert (await queues.complete(task))["grants"]["revoked"] == 1

        async def closed() -> bool:
            try:
                mine.process_data_events(0)
            except pika.exceptions.ConnectionClosedByBroker as error:
                return "is deleted" in error.reply_text
            return False

        await wait_until(closed, "RabbitMQ has closed the connection")
        assert refused(rabbitmq, credential)
        assert peek(theirs) == b"42.00"
    assert await how_it_ended(queues, granted) == ("revoked", "lease_lookup")
    await queues.complete(other)


async def test_a_server_that_is_down_leaves_a_grant_revoking_until_it_is_back(
    queues: World, rabbitmq: RabbitMQ, struck: Struck
) -> None:
    task = await queues.open(capabilities=["invoices-read"])
    granted = await queues.grant(task, "invoices-read")

    try:
        await stuck(queues, task, granted, struck)
    finally:
        rabbitmq.start()
    assert granted["credential"]["username"] in rabbitmq.users()
    with connect(granted["credential"]["dsn"]) as connection:
        assert peek(connection) == b"42.00"

    await queues.sweep(ahead_ms=600_000)

    assert await how_it_ended(queues, granted) == ("revoked", "lease_lookup")
    assert refused(rabbitmq, granted["credential"])


async def test_reconciling_ends_an_account_there_and_takes_no_404_for_an_empty_list(
    rabbitmq: RabbitMQ,
) -> None:
    account, url = "v-token-br/stray", rabbitmq.api.replace("//", f"//{ADMIN}:{ADMIN_PASSWORD}@")
    rabbitmq.http.put(f"users/{quote(account, safe='')}", json={"password": "x", "tags": ""})
    rabbitmq.http.put(
        f"permissions/%2F/{quote(account, safe='')}",
        json={"configure": "", "write": "", "read": ".*"},
    )
    target = Management(lambda: Secret(url))
    assert account in await target.accounts()
    with pytest.raises(BackendRefused, match="404"):
        await Management(lambda: Secret(f"{url}/elsewhere")).accounts()

    mine = connect(f"amqp://{quote(account, safe='')}:x@{rabbitmq.place}/%2F")
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
