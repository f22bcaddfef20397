"""How a program comes to run a task: it opens one, or joins one that somebody else has opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker.client import calls
from broker.client.building import Duration, seconds
from broker.client.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from broker.client.messages import Call
    from broker.client.models import Task
    from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class Opening:
    """The call by which a task is opened or found; sent twice it does no more than sent once.

    ``beats`` says whether it is kept alive, ``ends`` whether it is ended with the block, and
    ``patience`` how many seconds the end waits until all its credentials are confirmed dead.
    """

    call: Callable[[str | None], Call[Task]]
    beats: bool
    ends: bool
    patience: float


def task(  # noqa: PLR0913  the members of the request
    agent: str,
    purpose: str,
    capabilities: Sequence[str],
    *,
    ttl: Duration | None = None,
    heartbeat: Duration | None = "1m",
    on_behalf_of: Secret | str | None = None,
    context: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    parent_task_id: str | None = None,
    confirm_within: Duration = "10s",
) -> Opening:
    """Open a task for as long as a ``with`` block lasts, and keep it alive.

    It ends ``completed``, or ``failed`` when an exception leaves the block, or ``cancelled`` by an
    interrupt, a cancellation, SIGTERM, SIGHUP, or the end of the program. The end waits until every
    credential under it is confirmed dead, for ``confirm_within`` at most. Whatever happens to the
    program, the broker ends the task once its ``heartbeat`` is missed; None asks for none.
    """
    call = calls.open_task(
        agent,
        purpose,
        capabilities,
        ttl=ttl,
        parent_task_id=parent_task_id,
        on_behalf_of=on_behalf_of,
        context=context,
        heartbeat=heartbeat,
        limits=limits,
    )
    return Opening(
        lambda _: call, heartbeat is not None, ends=True, patience=seconds(confirm_within)
    )


def join(
    task_id: str | None = None,
    *,
    heartbeat: bool = False,
    end: bool = False,
    confirm_within: Duration = "10s",
) -> Opening:
    """Work under a task that is open already; without an id under the client's own.

    An agent's client has one: its ``task_id``, or ``BROKER_TASK_ID``. With ``heartbeat`` the task
    is kept alive meanwhile, and with ``end`` it ends with the block, as that of ``task`` does.
    """

    def call(own: str | None) -> Call[Task]:
        found = task_id or own
        if found is None:
            raise InvalidRequest(
                "There is no task to join: give its id, or set BROKER_TASK_ID", code="no_task"
            )
        return calls.get_task(found)

    return Opening(call, heartbeat, ends=end, patience=seconds(confirm_within))
