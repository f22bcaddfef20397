"""Token exchanges a second, against OpenBao's own login by the same workload JWTs.

Both verify a JWT of the same issuer, decide, write what they give out to disk before they answer
(ours with ``appendfsync always``, OpenBao on raft), and log it. The two take turns, so that both
see the same machine; the load comes from a third process.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from broker.dev.bench import load
from broker.dev.bench.figures import Rounds, by_turns
from broker.dev.bench.stand import AGENT, READ
from broker.dev.config import subject_of
from broker.dev.issuer import AUDIENCE, ISSUER
from broker.token_request import EXCHANGE, TYPE_JWT

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.dev.bench.scale import Scale
    from broker.dev.bench.stand import Stand

CONNECTIONS: Final = 32
ROW: Final = "tracked token exchange, throughput"


def measure(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the row's rounds, exchanges and logins a second."""
    _let_openbao_believe(stand)
    task = stand.orchestrator.open_task(AGENT, "bench", [READ], ttl="1h").task_id

    def ours() -> float:
        return load.run(
            stand.url, exchanges(stand, task, scale.requests), connections=CONNECTIONS
        ).per_second

    def theirs() -> float:
        return load.run(
            stand.vault_url, _logins(stand, scale.requests), connections=CONNECTIONS
        ).per_second

    rounds = by_turns(scale.rounds, ours, theirs, on_round)
    stand.orchestrator.complete(task)
    return {ROW: rounds}


def _let_openbao_believe(stand: Stand) -> None:
    """Let OpenBao believe the dev issuer, and give it a role like the broker's token."""
    vault = stand.vault
    vault.post("sys/auth/jwt", json={"type": "jwt"}).raise_for_status()
    keys = json.loads((stand.data / "issuer.jwks.json").read_text("utf-8"))["keys"]
    config: dict[str, Any] = {"jwt_validation_pubkeys": [_pem(key) for key in keys]}
    vault.post("auth/jwt/config", json=config | {"bound_issuer": ISSUER}).raise_for_status()
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_subject": subject_of(AGENT, stand.data),
        "bound_audiences": [AUDIENCE],
        "token_ttl": "15m",
        "token_type": "service",
    }
    vault.post("auth/jwt/role/bench", json=role).raise_for_status()


def _jwts(stand: Stand, count: int) -> list[str]:
    """A fresh JWT for each request: nothing that was verified before can be remembered."""
    fresh = stand.identity(AGENT)
    return [fresh().reveal() for _ in range(count)]


def exchanges(stand: Stand, task_id: str, count: int, url: str = "") -> list[str]:
    """Return so many requests for a task's token, each with a JWT of its own."""
    detail = quote_plus(json.dumps([{"type": "broker_task", "task_id": task_id}]))
    form = (
        f"grant_type={quote_plus(EXCHANGE)}&subject_token_type={quote_plus(TYPE_JWT)}"
        f"&authorization_details={detail}&subject_token="
    )
    kind = "application/x-www-form-urlencoded"
    return [
        load.post("/oauth/token", form + jwt, url=url or stand.url, content_type=kind)
        for jwt in _jwts(stand, count)
    ]


def _logins(stand: Stand, count: int) -> list[str]:
    return [
        load.post(
            "/v1/auth/jwt/login", json.dumps({"role": "bench", "jwt": jwt}), url=stand.vault_url
        )
        for jwt in _jwts(stand, count)
    ]


def _pem(jwk: dict[str, Any]) -> str:
    key: Any = ECAlgorithm.from_jwk(jwk)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
