"""The calls that a credential comes with, or lives longer by; see ``calls.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from broker.client.building import Duration, duration, issued, keyed, one, path_to, plain
from broker.client.errors import InvalidRequest
from broker.client.messages import Call, send_json
from broker.client.models import IssuedGrant, RenewedGrant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.secret import Secret

Delivery = Literal["inline", "wrapped", "voucher"]


def request_grant(
    task_id: str,
    capability: str,
    *,
    ttl: Duration | None = None,
    parameters: Mapping[str, Any] | None = None,
    intent: str | None = None,
    delivery: Delivery | None = None,
    wrap_ttl: Duration | None = None,
    idempotency_key: str | None = None,
) -> Call[IssuedGrant]:
    """Ask for a credential under a task. It is delivered once; the broker keeps no copy.

    With ``delivery="wrapped"`` it comes in a wrapping token of Vault's that lives for ``wrap_ttl``,
    for the task's agent to ``unwrap_grant``: whoever carries it there can't read it unnoticed. With
    ``delivery="voucher"`` it comes as a text that is worth nothing to anybody but that agent, who
    gets the credential for it by ``redeem``.

    Raises ``ApprovalRequired`` when a human has to say yes first: ask again, with the same
    arguments, once ``wait_for_approval`` says that it is approved. Raises ``AlreadyDelivered`` when
    the answer with the credential was lost: revoke its ``grant_id`` and ask again.
    """
    document = {
        "capability": capability,
        "ttl": duration(ttl),
        "parameters": None if parameters is None else dict(parameters),
        "intent": intent,
        "delivery": delivery,
        "wrap_ttl": duration(wrap_ttl),
    }
    # Repeated with the same key after a lost answer, this never issues a second credential: it
    # raises AlreadyDelivered, whose `grant_id` can be revoked.
    path = path_to("/v1/tasks", task_id, "grants")
    request = send_json("POST", path, document, repeatable=True)
    return issued(IssuedGrant, keyed(request, idempotency_key, once=True))


def unwrap_grant(grant_id: str, token: Secret | str) -> Call[IssuedGrant]:
    """Open what was delivered wrapped; the task's own agent can, and once.

    Raises ``Conflict``: with the code ``wrapping_intercepted`` somebody else has opened it, with
    ``wrapping_expired`` its time was up. It is revoked then.
    """
    path = path_to("/v1/grants", grant_id, "unwrap")
    return one(IssuedGrant, send_json("POST", path, {"token": plain(token)}))


def redeem(voucher: Secret | str) -> Call[IssuedGrant]:
    """Get the credential that a voucher stands for; the task's own agent can, and once.

    Raises ``InvalidRequest`` when it isn't a voucher of the broker's, and otherwise what
    ``unwrap_grant`` does.
    """
    grant_id, colon, share = plain(voucher).strip().partition(":")
    if not (grant_id and colon and share):
        raise InvalidRequest("A voucher looks like grt_...:...", code="invalid_voucher")
    return unwrap_grant(grant_id, share)


def renew_grant(grant_id: str, *, ttl: Duration | None = None) -> Call[RenewedGrant]:
    """Let a credential live for ``ttl`` from now, or as long as usual; its secret stays.

    Raises ``ApprovalRequired`` as ``request_grant`` does, and ``Conflict`` with the code
    ``not_renewable`` when it lives as long as it may: rotate it then.
    """
    path = path_to("/v1/grants", grant_id, "renew")
    request = send_json("POST", path, {"ttl": duration(ttl)}, repeatable=True)
    return issued(RenewedGrant, request)


def rotate_grant(
    grant_id: str,
    *,
    overlap: Duration | None = None,
    ttl: Duration | None = None,
    delivery: Delivery | None = None,
    wrap_ttl: Duration | None = None,
    idempotency_key: str | None = None,
) -> Call[IssuedGrant]:
    """Ask for another credential in a grant's place, which lives on for ``overlap`` (``"30s"``).

    Raises ``ApprovalRequired`` as ``request_grant`` does; the old one is as it was then, and
    whenever this fails.
    """
    document = {
        "overlap": duration(overlap),
        "ttl": duration(ttl),
        "delivery": delivery,
        "wrap_ttl": duration(wrap_ttl),
    }
    path = path_to("/v1/grants", grant_id, "rotate")
    request = send_json("POST", path, document, repeatable=True)
    return issued(IssuedGrant, keyed(request, idempotency_key, once=True))
