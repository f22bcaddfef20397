"""An orchestrator with several agents, each in a child task of its own.

A child has at most what its parent has: each agent is given one capability of the three. One
fails: its task ends and its credential dies, and the others' live on. The end of the root is
the end of everything below it.

    pip install 'broker[embedded]'
    broker dev                                        # leave it running; in another terminal:
    eval "$(broker dev token orchestrator --env)"
    python examples/orchestrator.py
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg

from broker.client import Client

if TYPE_CHECKING:
    from broker.client import RunningTask

Agent = Callable[["RunningTask"], str]


def count_orders(task: RunningTask) -> str:
    """Read with an account that exists for this task alone."""
    with psycopg.connect(task.grant("orders-read").dsn().reveal()) as database:
        row = database.execute("SELECT count(*) FROM orders").fetchone()
    return f"{row[0] if row else 0} orders"


def explain_returns(task: RunningTask) -> str:
    """Read with another; and break halfway."""
    with psycopg.connect(task.grant("orders-read").dsn().reveal()) as database:
        database.execute("SELECT item FROM orders WHERE status = 'returned'")
        raise RuntimeError("the model has no idea")


def tell_the_boss(task: RunningTask) -> str:
    """Call a tool; nobody else's task here may."""

    @task.tool("send-email")
    def send(to: list[str], subject: str) -> str:
        return f"sent {subject!r} to {', '.join(to)}"

    return send(["boss@example.com"], "Orders")


AGENTS: tuple[tuple[str, str, Agent], ...] = (
    ("count the orders", "orders-read", count_orders),
    ("explain the returns", "orders-read", explain_returns),
    ("tell the boss", "send-email", tell_the_boss),
)


def run(root: RunningTask, purpose: str, capability: str, agent: Agent) -> str:
    """Run one agent in a child task; what it raises fails that task."""
    try:
        with root.child("report-writer", purpose, [capability]) as task:
            return f"{purpose}: {agent(task)}"
    except RuntimeError as error:
        return f"{purpose}: failed, {error}"


def main() -> None:
    """Run the agents side by side."""
    everything = ["orders-read", "orders-write", "send-email"]
    with (
        Client() as broker,
        broker.task("order-clerk", "close the week", everything) as root,
        ThreadPoolExecutor() as threads,
    ):
        running = [threads.submit(run, root, *agent) for agent in AGENTS]
        for one in running:
            print(one.result())


if __name__ == "__main__":
    main()
