"""What a backend does: verbs over grants and handles.

A backend needs five members: ``name``, ``prepare``, ``mint``, ``revoke``, ``is_live``. It is a
subclass of ``Backend`` and inherits the rest. Whoever writes one gets the contract suite for free
(``broker.testing``; ``docs/backends/writing.md``). The pipeline in ``pipeline.py`` is the only
caller, and calls in the order of its steps.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from broker.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.catalog import Capability
    from broker.grants import Grant
    from broker.secret import Secret
    from broker.tasks import Task


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of a credential before it exists, written down at step 4.

    ``lease`` is set by backends that choose the lease's id themselves; ``handle`` names what can
    kill the credential without its lease. One of the two there must be, or nothing is minted.
    """

    handle: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Minted:
    """A credential fresh from the backend, for one delivery.

    ``fields`` holds what the caller gets, secrets wrapped; ``lifetime_ms`` is how long the
    backend lets it live at most; ``account`` is what the target knows it by, where that has a name.
    ``withheld`` says why nobody may have it, although it was made: it is not what its capability
    promises. It goes on record as what can't be revoked, and is ended as far as it can be.
    """

    lease: str
    lifetime_ms: int
    type: str
    fields: Mapping[str, str | Secret]
    account: str = ""
    withheld: str = ""


class Backend(Protocol):
    """One kind of place that makes credentials.

    Every method raises ``BackendRefused`` when the backend answered no and did nothing, and
    ``BackendUnavailable`` when nobody knows what it did. ``BackendDown``, a refusal, says that it
    can't be reached at all: then it isn't asked to issue until a probe gets through.
    """

    name: str
    """The name by which capabilities and the ledger refer to it."""

    @abstractmethod
    async def prepare(
        self, task: Task, capability: Capability, elevation: str = "", until_ms: int = 0
    ) -> Prepared:
        """Make ready to mint for a task, so that what is minted can be killed whatever happens.

        With the id of one of its ``elevation``s the capability needn't be among the task's own. A
        handle that is made then is for that elevation alone: it gives that one capability, and
        ends by the backend's own clock at ``until_ms``, the end of the window (epoch ms), or with
        the task.
        """
        ...

    @abstractmethod
    async def mint(self, grant: Grant, task: Task, capability: Capability) -> Minted:
        """Step 5: make the credential, under the grant's lease if one was chosen for it."""
        ...

    @abstractmethod
    async def revoke(self, grant: Grant) -> None:
        """Step 9: end a credential by its lease. Idempotent: "already gone" is success."""
        ...

    @abstractmethod
    async def is_live(self, grant: Grant) -> bool:
        """Step 10: look the credential up at the backend by its lease."""
        ...

    # What follows has an answer already, for backends that have no more to say.

    def check(self, capability: Capability, parameters: Mapping[str, Any]) -> None:
        """Refuse parameters that a capability doesn't take, before anything is asked of it.

        Raises:
            InvalidRequest: naming the parameter. Without more said, for any.
        """
        if parameters:
            names = ", ".join(sorted(parameters))
            msg = f"Capability {capability.name!r} takes no parameters (given: {names})."
            raise InvalidRequest(msg, field="parameters")

    def evidence(self, grant: Grant) -> str:  # noqa: ARG002
        """Say in a word by what ``is_live`` knows, such as ``lease_lookup``."""
        return "lookup"

    async def rotate(self, capability: Capability) -> bool:  # noqa: ARG002
        """Change what stands behind a capability and may have been seen: after break-glass.

        False when there is nothing to change. May be called again when nobody knows whether it
        was done. Credentials that are live stay live, and can still be revoked.
        """
        return False

    async def revoke_handle(self, task: Task, handle: str) -> None:
        """End everything that hangs from a task's handle. Idempotent.

        Whoever prepares handles must say how they end, and how that is seen.
        """

    async def handle_is_live(self, task: Task, handle: str, lost: Sequence[Grant]) -> bool:  # noqa: ARG002
        """Look a handle up, and with it the ``lost`` grants whose leases were never learnt."""
        return False

    def outlives(self, grant: Grant) -> int | None:  # noqa: ARG002
        """Return for how long what is gone with its handle may live all the same, in milliseconds.

        None if it has no end. Asked of a grant whose lease was never learnt, once its handle is
        confirmed gone.
        """
        return 0

    def forget(self, task_id: str) -> None:
        """Drop whatever is kept in memory for a task, under elevations too."""

    async def health(self) -> str:
        """Say in a few words how it is: ``ok``, or what is wrong."""
        return "ok"

    async def close(self) -> None:
        """Close connections."""


@runtime_checkable
class Renewable(Protocol):
    """A backend that can let what it made live longer; one that can't hasn't this method.

    The broker's own alone are asked: what others made is rotated when its time at them is up.
    """

    async def renew(self, grant: Grant, lifetime_ms: int) -> int:
        """Let a credential live for ``lifetime_ms`` from now; returns for how long it does.

        It may be less than was asked for. Idempotent.

        Raises:
            NotRenewable: it is gone, or can't live longer than it does.
            BackendRefused, BackendUnavailable: as ``Backend`` says.
        """
        ...


class HandleStore(Protocol):
    """Where a backend writes its handles down (the ledger)."""

    async def handle(
        self,
        task_id: str,
        op: str,
        handle: str,
        *,
        backend: str,
        actor: str,
        value: str = "",
        refused: bool = False,
        elevation: str = "",
    ) -> str:
        """Apply ``expect``, ``record``, ``retire`` or ``drop`` to a handle of a task.

        ``elevation`` is given with ``expect``, for a handle that goes when the elevation ends.
        """
        ...
