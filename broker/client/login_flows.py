"""How a person logs in from a program on their machine, by OpenID Connect.

In a browser here: the authorization code flow with PKCE, back to a free port of loopback (RFC 8252,
RFC 7636). In a browser elsewhere: the device grant (RFC 8628). What comes of both is an ID token,
which the broker verifies as it does any workload's; here only what protects the person is checked.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode, urlsplit

import httpx2

from broker.client import transport
from broker.client.answers import from_response
from broker.client.errors import (
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    UnexpectedAnswer,
)
from broker.client.login import Login, ended
from broker.client.loopback import Loopback
from broker.clock import SystemClock
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.clock import Clock

WAIT_S: Final = 300.0
"""How long a person may take in their browser."""
_DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL_S: Final = 5
_NOT_FOUND: Final = 404
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class LoginAt:
    """What a broker says of logging in: at which issuer, as which client, for what."""

    server: str
    issuer: str
    client_id: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Provider:
    """The endpoints of an issuer; what it doesn't have is empty."""

    authorization: str
    token: str
    device: str
    revocation: str
    names_itself: bool


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person is to open where, and what they are to type there."""

    url: str
    complete_url: str
    user_code: str


class LoginFlows:
    """The two ways to a login, and on from one."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
        timeout: float = 15.0,
    ) -> None:
        """``timeout`` in seconds is that of each request."""
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._timeout = timeout

    def where(self, server: str) -> LoginAt:
        """Ask a broker where people log in.

        Raises:
            NotFound: nobody does.
            InvalidRequest: what it names could be read by anybody on the way.
        """
        try:
            with httpx2.Client(**transport.settings(self._timeout)) as http:
                answer = transport.received(http.get(f"{server}/v1/login"))
        except httpx2.RequestError as error:
            raise transport.failed(server, error) from error
        if answer.status == _NOT_FOUND:
            msg = f"Nobody logs in at {server}: its configuration has no [login]"
            raise NotFound(msg, code="no_login")
        if not answer.ok:
            raise from_response(answer)
        said = answer.mapping()
        issuer, client_id = said.get("issuer"), said.get("client_id")
        scopes = said.get("scopes")
        if not (
            isinstance(issuer, str) and isinstance(client_id, str) and isinstance(scopes, list)
        ):
            raise UnexpectedAnswer("The broker doesn't say where to log in")
        _check_safe(server, "broker")
        _check_safe(issuer, "issuer")
        words = tuple(str(scope) for scope in cast("list[object]", scopes))
        return LoginAt(server, issuer, client_id, words)

    def provider(self, issuer: str) -> Provider:
        """Ask an issuer for its endpoints (OpenID Connect Discovery 1.0 section 4)."""
        said = self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration", issuer)
        if said.get("issuer") != issuer:
            raise Unauthenticated(
                f"What is at {issuer} says that it is another issuer", code="login_failed"
            )
        named = {
            name: str(said.get(f"{name}_endpoint") or "")
            for name in ("authorization", "token", "device_authorization", "revocation")
        }
        for name, url in named.items():
            if url:
                _check_safe(url, f"{name} endpoint")
        if not (named["authorization"] and named["token"]):
            raise UnexpectedAnswer(f"The issuer {issuer} doesn't say where to log in")
        return Provider(
            authorization=named["authorization"],
            token=named["token"],
            device=named["device_authorization"],
            revocation=named["revocation"],
            names_itself=said.get("authorization_response_iss_parameter_supported") is True,
        )

    def in_browser(
        self, at: LoginAt, open_url: Callable[[str], None], wait_s: float = WAIT_S
    ) -> Login:
        """Have a person log in in a browser on this machine; ``open_url`` is shown where.

        Raises:
            Unauthenticated: they didn't, or not in time.
        """
        provider = self.provider(at.issuer)
        state, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        verifier = secrets.token_urlsafe(64)
        digest = hashlib.sha256(verifier.encode()).digest()
        with Loopback(state) as loopback:
            asked = {
                "response_type": "code",
                "client_id": at.client_id,
                "redirect_uri": loopback.url,
                "scope": _scopes(at),
                "state": state,
                "nonce": nonce,
                "code_challenge": urlsafe_b64encode(digest).rstrip(b"=").decode(),
                "code_challenge_method": "S256",
            }
            joint = "&" if urlsplit(provider.authorization).query else "?"
            open_url(f"{provider.authorization}{joint}{urlencode(asked)}")
            came = loopback.wait(wait_s)
        if came is None:
            raise Unauthenticated("Nobody logged in in time", code="login_failed")
        # RFC 9207: an answer that another issuer sent isn't this one's.
        if ("iss" in came or provider.names_itself) and came.get("iss") != at.issuer:
            raise Unauthenticated("Another issuer answered than was asked", code="login_failed")
        if "code" not in came:
            raise _refused(came)
        form = {
            "grant_type": "authorization_code",
            "code": came["code"],
            "redirect_uri": loopback.url,
            "client_id": at.client_id,
            "code_verifier": verifier,
        }
        return self._login(at, provider, self._token(provider.token, form, at.issuer), nonce)

    def elsewhere(self, at: LoginAt, show: Callable[[DeviceCode], None]) -> Login:
        """Have a person log in in a browser anywhere; ``show`` is given what they need for it.

        Raises:
            Unauthenticated: they didn't, or not in time, or the issuer has no such way.
        """
        provider = self.provider(at.issuer)
        if not provider.device:
            msg = f"The issuer {at.issuer} has no login for devices"
            raise Unauthenticated(msg, code="login_failed")
        asked = {"client_id": at.client_id, "scope": _scopes(at)}
        said = self._ask("POST", provider.device, at.issuer, asked)
        code, url = said.get("device_code"), str(said.get("verification_uri") or "")
        if not isinstance(code, str) or not url:
            raise _refused(said)
        complete = str(said.get("verification_uri_complete") or "")
        for each in filter(None, (url, complete)):
            _check_safe(each, "page to log in on")
        show(DeviceCode(url, complete, str(said.get("user_code") or "")))
        pause = max(_number(said.get("interval")) or _INTERVAL_S, 1)
        until = self._clock.monotonic() + min(_number(said.get("expires_in")) or WAIT_S, 3600)
        form = {"grant_type": _DEVICE, "device_code": code, "client_id": at.client_id}
        while self._clock.monotonic() < until:
            self._sleep(pause)
            answer = self._ask("POST", provider.token, at.issuer, form)
            match answer.get("error"):
                case "authorization_pending":
                    continue
                case "slow_down":
                    pause += _INTERVAL_S
                case _:
                    return self._login(at, provider, _granted(answer), nonce="")
        raise Unauthenticated("Nobody logged in in time", code="login_failed")

    def renew(self, login: Login) -> Login:
        """Get the next token of a login (RFC 6749 section 6).

        Raises:
            Unauthenticated: the issuer says that the login is over.
        """
        form = {
            "grant_type": "refresh_token",
            "refresh_token": login.refresh_token.reveal(),
            "client_id": login.client_id,
        }
        answer = self._ask("POST", login.token_endpoint, login.issuer, form)
        if answer.get("error") or not answer.get("id_token"):
            raise ended(login.server)
        at = LoginAt(login.server, login.issuer, login.client_id, ())
        return self._made(at, login.token_endpoint, answer, nonce="")

    def revoke(self, login: Login) -> bool:
        """Tell the issuer that a login's refresh token is to be dead (RFC 7009); if it listens."""
        if not login.refresh_token.reveal():
            return False
        provider = self.provider(login.issuer)
        if not provider.revocation:
            return False
        token = login.refresh_token.reveal()
        form = {"token": token, "token_type_hint": "refresh_token", "client_id": login.client_id}
        return not self._ask("POST", provider.revocation, login.issuer, form).get("error")

    def _token(self, url: str, form: Mapping[str, str], issuer: str) -> dict[str, Any]:
        return _granted(self._ask("POST", url, issuer, form))

    def _login(
        self, at: LoginAt, provider: Provider, answer: Mapping[str, Any], nonce: str
    ) -> Login:
        return self._made(at, provider.token, answer, nonce)

    def _made(
        self, at: LoginAt, token_endpoint: str, answer: Mapping[str, Any], nonce: str
    ) -> Login:
        """Read the answer with tokens (OpenID Connect Core 1.0 sections 3.1.3.7 and 12.2).

        It came straight from the issuer, so the signature is left to the broker (point 6 there).
        """
        token = answer.get("id_token")
        claims = _claims(token)
        audience = claims.get("aud")
        meant = cast("list[object]", audience if isinstance(audience, list) else [audience])
        expires_at = _number(claims.get("exp"))
        good = claims.get("iss") == at.issuer and at.client_id in meant
        if nonce:
            good = good and claims.get("nonce") == nonce
        if not good or expires_at <= self._clock.now():
            msg = "The issuer's ID token isn't for this login"
            raise Unauthenticated(msg, code="login_failed")
        refresh = answer.get("refresh_token")
        return Login(
            server=at.server,
            issuer=at.issuer,
            client_id=at.client_id,
            token_endpoint=token_endpoint,
            token=Secret(str(token)),
            expires_at=expires_at,
            refresh_token=Secret(refresh if isinstance(refresh, str) else ""),
        )

    def _ask(
        self, method: str, url: str, issuer: str, form: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send a request to an issuer; whatever JSON object it answers, an error of its too."""
        try:
            with httpx2.Client(**transport.settings(self._timeout)) as http:
                answer = http.request(method, url, data=dict(form) if form else None)
        except httpx2.RequestError as error:
            msg = f"The issuer {issuer} can't be reached: {type(error).__name__}"
            raise ConnectionFailed(msg) from None  # the error may hold the form
        said = transport.received(answer).mapping()
        if answer.status_code >= 400 and "error" not in said:  # noqa: PLR2004
            msg = f"The issuer {issuer} answers {answer.status_code} without a reason"
            raise UnexpectedAnswer(msg, status=answer.status_code)
        return said


def _granted(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("error") or not answer.get("id_token"):
        raise _refused(answer)
    return answer


def _refused(said: Mapping[str, Any]) -> Unauthenticated:
    why = str(said.get("error") or "it gave no ID token: is openid among the scopes?")
    more = said.get("error_description")
    detail = f"The issuer doesn't log you in: {why}" + (f" ({more})" if more else "")
    return Unauthenticated(detail[:500], code="login_failed")


def _scopes(at: LoginAt) -> str:
    return " ".join(dict.fromkeys(("openid", *at.scopes)))


def _claims(token: object) -> dict[str, Any]:
    try:
        body = str(token).split(".")[1]
        found = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        found = None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _check_safe(url: str, what: str) -> None:
    """Refuse a URL that anybody on the way could read and change."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host, parts = "", urlsplit("")
    local = parts.scheme == "http" and host in _LOCAL
    if not host or not (parts.scheme == "https" or local) or "@" in parts.netloc:
        raise InvalidRequest(
            f"The {what} must be reached by https to log in, unless it is on this machine",
            code="login_unsafe",
        )
