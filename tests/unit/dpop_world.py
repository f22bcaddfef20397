"""A request, a sender, and its proofs, good ones and others."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import InvalidDpopProof
from broker.identity.dpop import Proof, verify_proof
from tests.clocks import ManualClock
from tests.possession import Sender

URL = "https://broker.example/oauth/token"
NOW = ManualClock().now()
WINDOW_S = 60
TOKEN = "header.payload.signature"
SENDER = Sender()


def verified(proof: str, **changes: Any) -> Proof:
    request: dict[str, Any] = {
        "method": "POST",
        "url": URL,
        "now": NOW,
        "window_s": WINDOW_S,
        "access_token": None,
        **changes,
    }
    return verify_proof(proof, **request)


def refusal(proof: str, **changes: Any) -> str:
    with pytest.raises(InvalidDpopProof) as caught:
        verified(proof, **changes)
    return caught.value.detail


def proof(sender: Sender = SENDER, **changes: Any) -> str:
    return sender.proof("POST", URL, NOW, **changes)
