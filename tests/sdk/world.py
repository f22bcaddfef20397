"""A broker over HTTP with people, tools and a database, and what a test asks of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE
from broker.secret import Secret
from tests.http.consenting import ConsentWorld, consent_document, give_rights
from tests.http.served import Served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.dev.stack import DevStack

WITHIN_S: Final = 30.0
_POLL_S: Final = 0.02
BRIEF: Final[dict[str, Any]] = {
    "name": "orders-brief",
    "power": "read",
    "backend": "vault",
    "path": "database/creds/orders-read",
    "ttl": "3s",
    "max_ttl": "4s",
}
LASTING: Final[dict[str, Any]] = {**BRIEF, "name": "orders-lasting", "renewable_for": "3h"}


def eventually(ask: Callable[[], Any], what: str) -> Any:
    """The first answer that is true; the world is swept between two of them."""
    deadline = time.monotonic() + WITHIN_S
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s: {what}"
        time.sleep(_POLL_S)
    return answer


class Sdk(Served):
    """What programs are run against."""

    def __init__(self, stack: DevStack, policies: Path) -> None:
        document = consent_document(stack, policies)
        dsn = next(row["dsn"] for row in document["capabilities"] if row.get("dsn"))
        document["capabilities"] += [{**row, "dsn": dsn} for row in (BRIEF, LASTING)]
        for principal in document["principals"]:
            if principal["name"] in {"report-writer", "order-clerk"}:
                principal["capabilities"] += ["orders-brief", "orders-lasting"]
        config = parse_config(tomli_w.dumps(document), stack.data / FILE)
        super().__init__(lambda: ConsentWorld(stack.issuer, config))
        self.run(give_rights(stack, config))
        self.clean()

    def identity(self, name: str) -> Callable[[], Secret]:
        """What a client proves itself by."""
        return lambda: Secret(self.world.identity(name))

    def shown(self, task_id: str) -> dict[str, Any]:
        return self.run(self.world.show_task(task_id))

    def sweep(self) -> None:
        self.run(self.world.sweep())

    def swept_until(self, ask: Callable[[], Any], what: str) -> Any:
        """As ``eventually``, while the broker does what its jobs do."""

        def again() -> Any:
            self.sweep()
            return ask()

        return eventually(again, what)

    def events(self, task_id: str, kind: str) -> list[dict[str, Any]]:
        return [e["data"] for e in self.run(self.world.events(task_id)) if e["type"] == kind]

    def approval_of(self, approval_id: str) -> dict[str, Any]:
        """An approval as those see it who decide on it."""
        path = f"/v1/approvals/{approval_id}"
        return self.run(self.world.call("alice", "GET", path)).json()

    def say(self, approval_id: str, *, yes: bool) -> None:
        """Approve or deny, as a person."""
        word = "approve" if yes else "deny"
        self.call("alice", "POST", f"/v1/approvals/{approval_id}/{word}", {"reason": "seen"})

    def end(self, task_id: str) -> None:
        """End a task as its orchestrator, behind the back of whoever runs it."""
        self.call("orchestrator", "POST", f"/v1/tasks/{task_id}/complete", {"outcome": "cancelled"})


def logs_in(dsn: str) -> bool:
    """Whether PostgreSQL lets a credential in and answers it."""
    try:
        connection = psycopg.connect(dsn, connect_timeout=5)
    except psycopg.OperationalError:
        return False
    with connection:
        connection.execute("SELECT count(*) FROM orders")
    connection.close()
    return True
