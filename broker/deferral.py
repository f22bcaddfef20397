"""The token endpoint while a human has to say yes: for clients that ask to be told of it.

A client that sends ``deferral=true`` is answered ``authorization_pending`` with a ``deferral_code``
and an ``interval``, and asks again, with the same request and the code, until it has its token or a
reason why not. The error codes are those of RFC 8628 section 3.5; the way of asking follows the
Deferred Token Response draft in spirit, and is ours as long as that is a draft.

The code is the approval's id and no secret: each request proves who it is from as ever, and policy
decides again once it is approved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.approvals import ApprovalState
from broker.errors import ApprovalDenied, ApprovalRequired, OAuthError
from broker.refusals import POLL_S

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.ledger.approvals import ApprovalTable
    from broker.ledger.replay import Replay
    from broker.token_request import TokenRequest

_OVER: Final = (ApprovalState.EXPIRED, ApprovalState.CANCELLED, ApprovalState.USED)
_KIND: Final = "deferral"
_EARLY_MS: Final = 500
"""How much sooner than said a client may come, since its clock isn't ours."""


class Deferral:
    """Says how an approval stands, in OAuth's words."""

    def __init__(self, approvals: ApprovalTable, replay: Replay) -> None:
        """All replicas know by ``replay`` who has come when."""
        self._approvals = approvals
        self._replay = replay

    async def look(self, ask: TokenRequest, caller: Caller) -> None:
        """Look at what a client waits for, before anything else is done for it.

        Raises:
            OAuthError: ``slow_down``, ``expired_token``, or ``invalid_grant`` for a code that isn't
                this caller's.
        """
        if not ask.deferral_code:
            return
        approval = await self._approvals.get(ask.deferral_code)
        task_id = caller.task.id if caller.task else ""
        if approval is None or (approval.task_id, approval.requester) != (task_id, caller.name):
            raise OAuthError("invalid_grant", "deferral_code: there is none of this task's")
        # Any of the replicas may have been asked a moment ago.
        if not await self._replay.claim(_KIND, approval.id, POLL_S * 1000 - _EARLY_MS):
            raise OAuthError("slow_down", f"wait {POLL_S} seconds between requests")
        if approval.state in _OVER:
            raise OAuthError("expired_token", f"the approval is {approval.state}: ask anew")

    async def wait(self, ask: TokenRequest, error: ApprovalRequired | ApprovalDenied) -> OAuthError:
        """Return what a client is told whose request waits for a human, or was denied by one."""
        approval_id = str(error.extra.get("approval_id", ""))
        if isinstance(error, ApprovalDenied):
            return OAuthError("access_denied", error.detail)
        if not ask.deferral_code:
            await self._replay.claim(_KIND, approval_id, POLL_S * 1000 - _EARLY_MS)
        return OAuthError(
            "authorization_pending",
            "a human has to approve it; repeat the request with the deferral_code",
            deferral_code=approval_id,
            interval=POLL_S,
        )
