"""A JWT-SVID from the SPIFFE Workload API, which an agent serves on this machine."""

from __future__ import annotations

from typing import Any, Final, cast

from spiffe import WorkloadApiClient
from spiffe.errors import PySpiffeError

from broker.client.reasons import IdentityMissing, IdentityUnavailable

_PASSING: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"})


def fetch_svid(socket: str, audience: str, timeout: float) -> str:
    """Ask the agent for a JWT-SVID for an audience; the first, where the workload has several.

    Raises:
        IdentityMissing: the agent has none for this workload, or isn't there to be asked.
        IdentityUnavailable: it doesn't answer now.
    """
    try:
        # A new channel each time: an agent that was restarted is simply asked again.
        with WorkloadApiClient(socket) as client:
            return client.fetch_jwt_svid({audience}, timeout=timeout).token
    except PySpiffeError as error:
        raise _failed(socket, error) from None


def _failed(socket: str, error: PySpiffeError) -> IdentityMissing | IdentityUnavailable:
    """Say what is wrong. The library's words aren't repeated: they may quote what came."""
    cause = cast("Any", error.__cause__)
    status: str = cause.code().name if hasattr(cause, "code") else ""
    if status in _PASSING:
        return IdentityUnavailable(f"The SPIFFE agent at {socket} gave no answer: {status}")
    if status == "PERMISSION_DENIED":
        return IdentityMissing(
            f"The SPIFFE agent at {socket} has no identity for this workload: register it"
        )
    why = status or "no agent there, or no JWT-SVID came"
    return IdentityMissing(f"The SPIFFE agent at {socket} gave no JWT-SVID: {why}")
