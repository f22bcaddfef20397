"""An orchestrator with several agents, each in a child task of its own.

A child has at most what its parent has, so each agent is given one capability of the three. One
agent fails: its task ends and its credential dies, and the others' do not. The end of the root is
the end of everything below it.

    pip install 'broker[embedded]'
    broker dev                                        # leave it running; in another terminal:
    eval "$(broker dev token orchestrator --env)"
    python examples/orchestrator.py
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from broker.client import Client

if TYPE_CHECKING:
    from broker.client import RunningTask

Agent = Callable[["RunningTask"], str]


def count_orders(task: RunningTask) -> str:
    """Read with an account that exists for this task, and can do nothing else."""
    with psycopg.connect(task.grant("orders-read").dsn().reveal()) as database:
        row = database.execute("SELECT count(*) FROM orders").fetchone()
    return f"{row[0] if row else 0} orders"


def close_orders(task: RunningTask) -> str:
    """Write with another; and break halfway."""
    with psycopg.connect(task.grant("orders-write").dsn().reveal()) as database:
        database.execute("UPDATE orders SET status = 'shipped' WHERE status = 'paid'")
        raise RuntimeError("the warehouse doesn't answer")


def tell_the_boss(task: RunningTask) -> str:
    """Call a tool; nobody else's task here may."""

    @task.tool("send-email")
    def send(to: list[str], subject: str) -> str:
        return f"sent {subject!r} to {', '.join(to)}"

    return send(["boss@example.com"], "Orders")


AGENTS: dict[str, tuple[str, Agent]] = {
    "orders-read": ("count the orders", count_orders),
    "orders-write": ("close what was paid", close_orders),
    "send-email": ("tell the boss", tell_the_boss),
}


def run(root: RunningTask, capability: str) -> str:
    """Run one agent in a child task; what it raises fails that task."""
    purpose, agent = AGENTS[capability]
    try:
        with root.child(agent="order-clerk", purpose=purpose, capabilities=[capability]) as task:
            return f"{purpose}: {agent(task)}"
    except RuntimeError as error:
        return f"{purpose}: failed, {error}"


def main() -> None:
    """Run the agents side by side."""
    with (
        Client() as broker,
        broker.task(
            agent="order-clerk", purpose="close the week", capabilities=list(AGENTS)
        ) as root,
        ThreadPoolExecutor() as threads,
    ):
        for said in threads.map(partial(run, root), AGENTS):
            print(said)


if __name__ == "__main__":
    main()
