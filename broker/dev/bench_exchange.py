"""Token exchanges a second, against OpenBao's own login by the same workload JWTs.

Both verify a JWT of the same issuer, decide, write what they give out to disk before they answer
(ours with ``appendfsync always``, OpenBao on raft), and log it. The two take turns, so that both
see the same machine; the load comes from a third process.
"""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from broker.clock import SystemClock
from broker.dev import load
from broker.dev.config import subject_of
from broker.dev.issuer import AUDIENCE, ISSUER, DevIssuer
from broker.token_request import EXCHANGE, TYPE_JWT

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

CONNECTIONS: Final = 32
BATCH: Final = 2000
TURNS: Final = 5
AGENT: Final = "report-writer"


class ExchangeBench:
    """Prepares both sides, and measures them."""

    def __init__(self, url: str, data: Path, vault: httpx2.Client) -> None:
        """``url`` is the broker's, ``data`` its folder, ``vault`` speaks as OpenBao's root."""
        self._url = url
        self._issuer = DevIssuer(data, SystemClock())
        self._subject = subject_of(AGENT, data)
        self._vault = vault
        self._set_up(data)

    def _set_up(self, data: Path) -> None:
        """Let OpenBao believe the dev issuer, and give it a role like the broker's token."""
        self._vault.post("sys/auth/jwt", json={"type": "jwt"}).raise_for_status()
        keys = json.loads((data / "issuer.jwks.json").read_text("utf-8"))["keys"]
        config: dict[str, Any] = {"jwt_validation_pubkeys": [_pem(key) for key in keys]}
        self._vault.post("auth/jwt/config", json=config | {"bound_issuer": ISSUER})
        role = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_subject": self._subject,
            "bound_audiences": [AUDIENCE],
            "token_ttl": "15m",
            "token_type": "service",
        }
        self._vault.post("auth/jwt/role/bench", json=role).raise_for_status()

    def measure(self, task_id: str) -> tuple[list[load.Load], list[load.Load]]:
        """Return the turns of ours and of the reference, one after the other."""
        ours: list[load.Load] = []
        theirs: list[load.Load] = []
        for _ in range(TURNS):
            theirs.append(self._turn(str(self._vault.base_url), self._logins()))
            ours.append(self._turn(self._url, self._exchanges(task_id)))
        return ours, theirs

    def _turn(self, url: str, requests: list[str]) -> load.Load:
        parts = urlsplit(url)
        done = load.run(parts.hostname or "", parts.port or 80, requests, connections=CONNECTIONS)
        if set(done.statuses) != {"200"}:
            raise SystemExit(f"{url} refused some of it: {done.statuses}")
        return done

    def _jwts(self) -> list[str]:
        """A fresh JWT for each request: nothing that was verified before can be remembered."""
        return [self._issuer.token(self._subject).reveal() for _ in range(BATCH)]

    def _exchanges(self, task_id: str) -> list[str]:
        detail = quote_plus(json.dumps([{"type": "broker_task", "task_id": task_id}]))
        form = (
            f"grant_type={quote_plus(EXCHANGE)}&subject_token_type={quote_plus(TYPE_JWT)}"
            f"&authorization_details={detail}&subject_token="
        )
        return [
            load.post(
                "/oauth/token",
                form + jwt,
                host=urlsplit(self._url).netloc,
                content_type="application/x-www-form-urlencoded",
            )
            for jwt in self._jwts()
        ]

    def _logins(self) -> list[str]:
        return [
            load.post(
                "/v1/auth/jwt/login",
                json.dumps({"role": "bench", "jwt": jwt}),
                host=self._vault.base_url.host,
                content_type="application/json",
            )
            for jwt in self._jwts()
        ]


def median_rate(turns: list[load.Load]) -> float:
    """Return the median of the turns, in answers a second."""
    return statistics.median(turn.per_second for turn in turns)


def _pem(jwk: dict[str, Any]) -> str:
    key: Any = ECAlgorithm.from_jwk(jwk)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
