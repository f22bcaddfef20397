"""An OpenID provider to log in at: real keys, real tokens, strict about every request.

Nothing of the broker is used, so that a mistake can't cancel itself out. It logs in whoever comes;
tests change its answers by its members.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.issuers import IssuerKey, jwks

if TYPE_CHECKING:
    from types import TracebackType

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass
class OidcProvider:
    """Its state: codes that were given and for what, refresh tokens that are good."""

    client_id: str = "broker-cli"
    subject: str = "person-7"
    lifetime_s: int = 300
    key: IssuerKey = field(default_factory=IssuerKey.new)
    url: str = ""
    claims: dict[str, Any] = field(default_factory=dict[str, Any])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    redirect: dict[str, str] = field(default_factory=dict[str, str])
    pending: int = 2
    refreshes: bool = True
    codes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    good: set[str] = field(default_factory=set[str])
    revoked: list[str] = field(default_factory=list[str])
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def __enter__(self) -> Self:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query))
                if parts.path == "/authorize":
                    self.send_response(302)
                    self.send_header("location", provider.authorized(query))
                    self.end_headers()
                    return
                self._answer(provider.read(parts.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                form = dict(parse_qsl(body.decode()))
                self._answer(provider.posted(urlsplit(self.path).path, form))

            def _answer(self, document: dict[str, Any] | None) -> None:
                status = 404 if document is None else 400 if "error" in document else 200
                raw = json.dumps(document or {}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def read(self, path: str) -> dict[str, Any] | None:
        match path:
            case "/.well-known/openid-configuration":
                named = ("authorize", "token", "device", "revoke")
                endpoints = ("authorization", "token", "device_authorization", "revocation")
                return {
                    "issuer": self.url,
                    "jwks_uri": f"{self.url}/jwks",
                    **{
                        f"{endpoint}_endpoint": f"{self.url}/{name}"
                        for endpoint, name in zip(endpoints, named, strict=True)
                    },
                    **self.metadata,
                }
            case "/jwks":
                return json.loads(jwks(self.key))
            case _:
                return None

    def authorized(self, query: dict[str, str]) -> str:
        """Log somebody in, and say where their browser goes."""
        self.asked.append(query)
        assert query["response_type"] == "code"
        assert query["client_id"] == self.client_id
        assert "openid" in query["scope"].split()
        assert query["code_challenge_method"] == "S256"
        target = urlsplit(query["redirect_uri"])
        assert (target.scheme, target.hostname) == ("http", "127.0.0.1")
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        back = {"code": code, "state": query["state"], **self.redirect}
        said = {name: value for name, value in back.items() if value}
        return f"{query['redirect_uri']}?{urlencode(said)}"

    def posted(  # noqa: PLR0911  one for each answer
        self, path: str, form: dict[str, str]
    ) -> dict[str, Any] | None:
        self.asked.append(form)
        if form.get("client_id") != self.client_id:
            return {"error": "invalid_client"}
        match path, form.get("grant_type"):
            case "/token", "authorization_code":
                return self._by_code(form)
            case "/token", "refresh_token":
                old = form.get("refresh_token", "")
                if old not in self.good:
                    return {"error": "invalid_grant"}
                self.good.discard(old)  # good for one use
                return self.tokens("")
            case "/token", kind if kind == DEVICE:
                if form.get("device_code") != "dev-1":
                    return {"error": "invalid_grant"}
                self.pending -= 1
                if self.pending >= 0:
                    return {"error": "slow_down" if self.pending else "authorization_pending"}
                return self.tokens("")
            case "/device", _:
                return {
                    "device_code": "dev-1",
                    "user_code": "WDJB-MJHT",
                    "verification_uri": f"{self.url}/activate",
                    "expires_in": 60,
                    "interval": 1,
                }
            case "/revoke", _:
                self.revoked.append(form["token"])
                self.good.discard(form["token"])
                return {}
            case _:
                return None

    def _by_code(self, form: dict[str, str]) -> dict[str, Any]:
        query = self.codes.pop(form.get("code", ""), None)
        if query is None or form.get("redirect_uri") != query["redirect_uri"]:
            return {"error": "invalid_grant"}
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if urlsafe_b64encode(digest).rstrip(b"=").decode() != query["code_challenge"]:
            return {"error": "invalid_grant", "error_description": "the verifier is wrong"}
        return self.tokens(query["nonce"])

    def tokens(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": self.subject,
            "aud": self.client_id,
            "iat": now,
            "exp": now + self.lifetime_s,
            **({"nonce": nonce} if nonce else {}),
            **self.claims,
        }
        answer: dict[str, Any] = {"id_token": self.key.sign(claims), "token_type": "Bearer"}
        if self.refreshes:
            answer["refresh_token"] = secrets.token_urlsafe(16)
            self.good.add(answer["refresh_token"])
        return answer
