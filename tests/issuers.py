"""An issuer of workload JWTs to test against: real keys, real tokens, a real HTTP server.

Nothing of the broker is used to make them, so that a mistake can't cancel itself out.
"""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

PRIMITIVES = get_default_algorithms()
PRIMITIVES["Ed25519"] = PRIMITIVES["EdDSA"]  # RFC 9864's name for it
CURVES: Mapping[str, type[ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}


def segment(content: bytes | object) -> str:
    """Encode bytes, or anything else as JSON, as a segment of a token."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class IssuerKey:
    """A key pair that signs by one algorithm."""

    algorithm: str
    kid: str | None
    private: Any

    @classmethod
    def new(cls, algorithm: str = "ES256", kid: str | None = "k1", bits: int = 2048) -> Self:
        """Generate a key pair fit for ``algorithm``."""
        if algorithm in CURVES:
            return cls(algorithm, kid, ec.generate_private_key(CURVES[algorithm]()))
        if algorithm in ("EdDSA", "Ed25519"):
            return cls(algorithm, kid, ed25519.Ed25519PrivateKey.generate())
        return cls(algorithm, kid, rsa.generate_private_key(65537, bits))

    def jwk(self, **changes: object) -> dict[str, Any]:
        """Return the public key as a JWK; a change to None leaves a member out."""
        members = {
            **PRIMITIVES[self.algorithm].to_jwk(self.private.public_key(), as_dict=True),
            "kid": self.kid,
            "use": "sig",
            "key_ops": None,
            **changes,
        }
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, claims: bytes | object, **header: object) -> str:
        """Sign anything at all; a header member given as None is left out."""
        members = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **header}
        head = segment({name: value for name, value in members.items() if value is not None})
        signing_input = f"{head}.{segment(claims)}"
        signature = PRIMITIVES[self.algorithm].sign(signing_input.encode(), self.private)
        return f"{signing_input}.{segment(signature)}"


def jwks(*keys: IssuerKey | dict[str, Any]) -> bytes:
    """Return a JWK Set document."""
    members = [key.jwk() if isinstance(key, IssuerKey) else key for key in keys]
    return json.dumps({"keys": members}).encode()


@dataclass
class Answer:
    """What the server says at one path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])


class IssuerServer:
    """An HTTP server on loopback whose answers a test changes as it goes."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.arrived = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests.append(self.path)
                issuer.arrived.release()
                issuer.open.wait(10)
                answer = issuer.answers.get(self.path, Answer(status=404))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Go down: connections are refused."""
        self.open.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
