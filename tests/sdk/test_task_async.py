"""What only an event loop can do to a task: cancel it, at any moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.client import AsyncClient, Client, TaskEnded, ToolDenied
from tests.sdk.world import logs_in

if TYPE_CHECKING:
    from tests.sdk.world import Sdk

ASK: Any = ("report-writer", "the weekly report", ["orders-read", "customer-lookup"])


async def of(sdk: Sdk, task_id: str, kind: str) -> list[dict[str, Any]]:
    return await asyncio.to_thread(sdk.events, task_id, kind)


async def test_a_cancelled_body_cancels_its_task_and_the_end_is_not_cut_short(sdk: Sdk) -> None:
    opened: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def body(client: AsyncClient) -> None:
        async with client.task(*ASK) as task:
            orders = await task.grant("orders-read")
            opened.set_result((task.task_id, orders.dsn().reveal()))
            await asyncio.Event().wait()

    async with AsyncClient(sdk.url, sdk.identity("orchestrator")) as client:
        running = asyncio.create_task(body(client))
        task_id, dsn = await opened
        running.cancel()
        await asyncio.sleep(0)
        running.cancel()  # again, while it is completing
        with pytest.raises(asyncio.CancelledError):
            await running
    shown = await asyncio.to_thread(sdk.shown, task_id)
    assert (shown["state"], shown["summary"]) == ("cancelled", "asyncio.exceptions.CancelledError")
    assert not await asyncio.to_thread(logs_in, dsn)


async def test_a_time_limit_around_the_block_is_a_cancellation(sdk: Sdk) -> None:
    async with AsyncClient(sdk.url, sdk.identity("orchestrator")) as client:
        task = client.task(*ASK)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2), task:
                await asyncio.Event().wait()
    assert task.end is not None
    assert task.end.state == "cancelled"


async def test_a_cancelled_tool_is_reported_and_an_asynchronous_one_is_awaited(sdk: Sdk) -> None:
    begun = asyncio.Event()
    async with (
        AsyncClient(sdk.url, sdk.identity("orchestrator")) as client,
        client.task(*ASK) as task,
    ):

        @task.tool("customer-lookup")
        async def look_up(customer: str) -> str:
            if customer == "slow":
                begun.set()
                await asyncio.Event().wait()
            return customer

        assert await look_up("c-7") == "c-7"
        slow = asyncio.create_task(look_up("slow"))
        await begun.wait()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow

        def dispatch(_: str, arguments: Any) -> Any:
            return look_through(arguments)

        guarded = task.guard(dispatch)
        assert await guarded("customer-lookup", {"customer": "c-8"}) == {"customer": "c-8"}
        with pytest.raises(ToolDenied):
            await guarded("rm", {})
    outcomes = [e["outcome"] for e in await of(sdk, task.task_id, "execution")]
    assert outcomes == ["succeeded", "failed", "succeeded"]


async def look_through(arguments: Any) -> Any:
    return dict(arguments)


async def test_a_task_that_blocks_guards_asynchronous_tools_too(sdk: Sdk) -> None:
    client = Client(sdk.url, sdk.identity("orchestrator"))
    task = await asyncio.to_thread(client.task(*ASK).open)

    @task.tool("customer-lookup")
    async def look_up(customer: str) -> str:
        return customer

    @task.tool("customer-lookup")
    def mistaken(customer: str) -> Any:
        return look_through(customer)

    assert await look_up("c-7") == "c-7"
    with pytest.raises(TypeError, match="asynchronous"):
        await asyncio.to_thread(mistaken, "c-7")
    await asyncio.to_thread(task.complete)
    with pytest.raises(TaskEnded):
        await look_up("c-7")
    client.close()
    outcomes = [e["outcome"] for e in await of(sdk, task.task_id, "execution")]
    assert outcomes == ["succeeded", "not_executed"]


async def test_cancelled_while_opening_nothing_stays_open(sdk: Sdk) -> None:
    async with AsyncClient(sdk.url, sdk.identity("orchestrator")) as client:
        await client.get_task(
            (await client.open_task("report-writer", "warm", ["orders-read"])).task_id
        )
        opening = asyncio.create_task(client.task("report-writer", "cut", ["orders-read"]).open())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        states = [t.state async for t in client.iter_tasks() if t.purpose == "cut"]
    assert set(states) <= {"cancelled"}
