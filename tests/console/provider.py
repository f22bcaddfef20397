"""An OpenID provider on loopback that signs in whoever a test says, and forgets no rule.

Nothing of the broker is used in it. A test may change what it says: ``claims`` go over those of the
next ID tokens, ``signed_by`` signs them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

import jwt

from tests.issuers import Answer, IssuerKey, jwks
from tests.loopback import Asked, Loopback

if TYPE_CHECKING:
    from types import TracebackType

CLIENT: Final = "broker-console"
SECRET: Final = "canary-client-secret"
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KEY: Final = IssuerKey.new("ES256", "idp-1")


@dataclass
class Provider:
    """Its state: who signs in next, and the codes it has given out."""

    subject: str = "u-alice"
    groups: Any = field(default_factory=lambda: ["ops"])
    claims: dict[str, Any] = field(default_factory=dict[str, Any])
    signed_by: IssuerKey = KEY
    client: str = "secret"  # or "key", or "public"
    client_secret: str = SECRET
    client_key: IssuerKey | None = None
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    tokens: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    redirect_uris: list[str] = field(default_factory=list[str])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self._codes: dict[str, dict[str, str]] = {}
        self._jtis: set[str] = set()
        self._server = Loopback(self._answer)
        self.url = self._server.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.__exit__(exc_type, exc, traceback)

    def _answer(self, asked: Asked) -> Answer:
        parts = urlsplit(asked.path)
        match parts.path:
            case "/.well-known/openid-configuration":
                known = {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/jwks",
                    "end_session_endpoint": f"{self.url}/logout",
                }
                return _json({**known, **self.metadata})
            case "/jwks":
                return Answer(jwks(KEY), headers={"content-type": "application/json"})
            case "/authorize":
                return self._authorize(dict(parse_qsl(parts.query)))
            case "/token":
                return self._token(asked)
            case "/logout":
                return Answer(b"<p>bye", headers={"content-type": "text/html"})
            case _:
                return Answer(status=404)

    def _authorize(self, query: dict[str, str]) -> Answer:
        assert query["client_id"] == CLIENT
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert query["redirect_uri"] in self.redirect_uris
        self.asked.append(query)
        code = secrets.token_urlsafe(8)
        self._codes[code] = query
        back = urlencode({"code": code, "state": query["state"], "iss": self.url})
        return Answer(status=302, headers={"location": f"{query['redirect_uri']}?{back}"})

    def _token(self, asked: Asked) -> Answer:
        form = dict(parse_qsl(asked.body.decode()))
        self.tokens.append(form)
        query = self._codes.pop(form.get("code", ""), None)
        if query is None or not self._is_client(asked, form):
            return _json({"error": "invalid_grant"}, 400)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if challenge != query["code_challenge"] or form["redirect_uri"] != query["redirect_uri"]:
            return _json({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": self.subject,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": query.get("nonce"),
            "auth_time": now,
            "groups": self.groups,
            **self.claims,
        }
        token = self.signed_by.sign({k: v for k, v in claims.items() if v is not None})
        return _json(
            {"access_token": "canary-idp-access", "token_type": "Bearer", "id_token": token}
        )

    def _is_client(self, asked: Asked, form: dict[str, str]) -> bool:
        kind, _, basic = asked.headers.get("authorization", "").partition(" ")
        match self.client:
            case "public":
                return not kind and form.get("client_id") == CLIENT
            case "key":
                return not kind and self._has_signed(form)
            case _:
                name, _, secret = base64.b64decode(basic).decode().partition(":")
                found = unquote_plus(name), unquote_plus(secret)
                return kind == "Basic" and found == (CLIENT, self.client_secret)

    def _has_signed(self, form: dict[str, str]) -> bool:
        """RFC 7523 section 3, and OpenID Connect Core 1.0 section 9."""
        assert self.client_key is not None
        assert form["client_assertion_type"] == ASSERTION
        said = jwt.decode(
            form["client_assertion"],
            self.client_key.private.public_key(),
            algorithms=[self.client_key.algorithm],
            audience=f"{self.url}/token",
            options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]},
        )
        new = said["jti"] not in self._jtis
        self._jtis.add(said["jti"])
        return new and said["iss"] == said["sub"] == CLIENT and said["exp"] - said["iat"] <= 300


def _json(body: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(body).encode(), status, {"content-type": "application/json"})
