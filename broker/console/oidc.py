"""Sign-in by OpenID Connect: authorization code with PKCE, this broker as the client.

What belongs to one sign-in, its verifier, its nonce and the end of its state, is derived from a
secret that only the browser holds, in a cookie. So nothing is kept here, an answer that another
browser has begun is worth nothing, and whoever reads the ledger learns nothing.

The requests are written by Authlib, sent by our own fetcher, and the ID token is verified as any
other token of its issuer, for the console as its audience; then Authlib checks what OpenID Connect
Core 1.0 section 3.1.3.7 asks for beyond that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote_plus, urlencode

from authlib.common.errors import AuthlibBaseError
from authlib.oauth2 import rfc7636
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749 import parameters
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from broker.config import read_secret_file
from broker.errors import AccessDenied, ConfigError, InvalidToken, Unavailable
from broker.identity.fetching import Fetcher, FetchError, is_protected
from broker.identity.jws import parse
from broker.identity.oidc import JwtIssuer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.clock import Clock
    from broker.identity.models import Identity, IssuerSettings

BEGUN_S: Final = 600
"""How long signing in may take."""
ASSERTION_S: Final = 60
"""How long the proof of which client asks is good (RFC 7523)."""
RSA_BITS: Final = 2048
_REFUSED: Final = "The sign-in was not begun in this browser, or too long ago: begin again."
_MAX_CHARS: Final = 4000
# Authlib is untyped.
_PARAMETERS: Any = parameters
_PKCE: Any = rfc7636


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Who the console is to the identity provider; without a file it is a public client."""

    issuer: IssuerSettings
    client_id: str
    redirect_uri: str
    scopes: Sequence[str] = ("openid",)
    secret_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in under way: where to go afterwards, and whether it has to be a new proof."""

    at: int
    way_back: str
    fresh: bool


class SignInClient:
    """Signs people in at one identity provider."""

    def __init__(self, settings: ClientSettings, clock: Clock) -> None:
        """Nothing is asked of the provider yet, but its files are looked at.

        Raises:
            ConfigError: the issuer can't be asked safely, or there is no secret or key in its file.
        """
        issuer = settings.issuer
        if not is_protected(issuer.issuer, loopback_http=True):
            raise ConfigError(f"[console] issuer {issuer.name!r}: its URL must be https")
        self.settings = settings
        self._clock = clock
        self._authentication("")
        self._fetcher = Fetcher(ca_file=issuer.ca_file)
        # An ID token is for the client, where a workload's token is for the broker.
        self._verifier = JwtIssuer(replace(issuer, audience=settings.client_id), clock)

    async def begin(self, secret: str, way_back: str, *, fresh: bool) -> str:
        """Return the URL at the provider where somebody signs in (section 3.1.2.1).

        ``secret`` is the browser's; ``fresh`` asks them to prove anew who they are.

        Raises:
            Unavailable: the provider doesn't say where that is.
        """
        state = _sealed(secret, Begun(int(self._clock.now()), way_back, fresh))
        again = {"prompt": "login", "max_age": "0"} if fresh else {}
        verifier = _derived(secret, "verifier", state)
        return _PARAMETERS.prepare_grant_uri(
            await self._endpoint("authorization_endpoint"),
            self.settings.client_id,
            "code",
            redirect_uri=self.settings.redirect_uri,
            scope=" ".join(self.settings.scopes),
            state=state,
            nonce=_derived(secret, "nonce", state),
            code_challenge=_PKCE.create_s256_code_challenge(verifier),
            code_challenge_method="S256",
            **again,
        )

    def begun(self, secret: str, answer: Mapping[str, str]) -> Begun:
        """Return which sign-in the provider's answer belongs to (RFC 6749 section 10.12).

        Raises:
            AccessDenied: none that this browser has begun, or another provider's (RFC 9207).
        """
        begun = _opened(secret, answer.get("state", ""))
        if begun is None or not 0 <= self._clock.now() - begun.at <= BEGUN_S:
            raise AccessDenied(_REFUSED)
        if answer.get("iss", self.settings.issuer.issuer) != self.settings.issuer.issuer:
            raise AccessDenied("The answer is another provider's: begin again.")
        return begun

    async def finish(self, secret: str, answer: Mapping[str, str], begun: Begun) -> Identity:
        """Return who signed in: the code is exchanged for an ID token, and that is verified.

        Raises:
            AccessDenied: the provider said no, or what it said can't be believed.
            Unavailable: it doesn't answer.
        """
        if "code" not in answer:
            raise AccessDenied("The provider didn't sign you in. Begin again, or ask who runs it.")
        state = answer["state"]
        token = await self._exchange(answer["code"], _derived(secret, "verifier", state))
        raw = token.get("id_token")
        if not isinstance(raw, str):
            raise AccessDenied("The provider sent no ID token.")
        try:
            jws = parse(raw)
            identity = await self._verifier.verify_parsed(jws)
            self._check(identity, jws.algorithm, token, _derived(secret, "nonce", state))
        except (InvalidToken, JoseError, AuthlibBaseError) as error:
            why = (
                error.detail if isinstance(error, InvalidToken) else "a claim is not as it must be"
            )
            raise AccessDenied(f"The provider's ID token is refused: {why}.") from error
        if begun.fresh and not self._is_fresh(identity.claims, begun):
            raise AccessDenied("The provider didn't ask you to prove anew who you are.")
        return identity

    async def way_out(self, after: str) -> str:
        """Return where to end the session at the provider too, or nothing (RP-Initiated Logout)."""
        try:
            address = await self._endpoint("end_session_endpoint")
        except Unavailable:
            return ""
        query = {"client_id": self.settings.client_id, "post_logout_redirect_uri": after}
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._verifier.aclose()

    def _check(
        self, identity: Identity, algorithm: str, token: Mapping[str, Any], nonce: str
    ) -> None:
        params = {
            "client_id": self.settings.client_id,
            "nonce": nonce,
            "access_token": token.get("access_token"),
        }
        claims: Any = CodeIDToken(dict(identity.claims), {"alg": algorithm}, {}, params)
        claims.validate(now=int(self._clock.now()), leeway=self.settings.issuer.leeway_s)

    def _is_fresh(self, claims: Mapping[str, Any], begun: Begun) -> bool:
        at = claims.get("auth_time")
        earliest = begun.at - self.settings.issuer.leeway_s
        return isinstance(at, int | float) and not isinstance(at, bool) and at >= earliest

    async def _exchange(self, code: str, verifier: str) -> dict[str, Any]:
        body: str = _PARAMETERS.prepare_token_request(
            "authorization_code",
            code=code,
            redirect_uri=self.settings.redirect_uri,
            code_verifier=verifier,
        )
        uri = await self._endpoint("token_endpoint")
        client = self._authentication(uri)
        uri, headers, body = client.prepare("POST", uri, {"Accept": "application/json"}, body)
        try:
            return _object(await self._fetcher.submit(uri, body, headers))
        except FetchError as error:
            # 400 is its no to the code; which of the two it was is nobody's to see here.
            raise AccessDenied("The provider refused the sign-in, or didn't answer.") from error

    def _authentication(self, uri: str) -> Any:  # noqa: ANN401  Authlib is untyped
        settings = self.settings
        if settings.key_file is not None:
            key, algorithm = _signing_key(settings.key_file)
            now = int(self._clock.now())
            claims = {"iat": now, "exp": now + ASSERTION_S}
            return ClientAuth(settings.client_id, key, PrivateKeyJWT(uri, claims, alg=algorithm))
        if settings.secret_file is not None:
            secret = read_secret_file(settings.secret_file).reveal()
            # RFC 6749 section 2.3.1: both are written as in a form before they are joined.
            who, secret = quote_plus(settings.client_id), quote_plus(secret)
            return ClientAuth(who, secret, "client_secret_basic")
        return ClientAuth(settings.client_id, "", "none")

    async def _endpoint(self, name: str) -> str:
        issuer = self.settings.issuer.issuer
        address = issuer.removesuffix("/") + "/.well-known/openid-configuration"
        try:
            metadata = _object(await self._fetcher.get(address))
        except FetchError as error:
            raise Unavailable("The identity provider doesn't answer. Try again shortly.") from error
        # OpenID Connect Discovery 1.0 section 4.3.
        if metadata.get("issuer") != issuer:
            raise Unavailable("The identity provider's metadata is of another issuer.")
        found = metadata.get(name)
        local = issuer.startswith("http:")
        if not isinstance(found, str) or not is_protected(found, loopback_http=local):
            raise Unavailable(f"The identity provider's metadata has no {name} with https.")
        return found


def _signing_key(file: Path) -> tuple[Any, str]:
    """Return the private key in a file, and what it signs with: ES256 or RS256.

    Raises:
        ConfigError: it is neither.
    """
    pem = read_secret_file(file).reveal()
    for kind, algorithm in ((ECKey, "ES256"), (RSAKey, "RS256")):
        try:
            key: Any = kind.import_key(pem)
        except (TypeError, ValueError, JoseError):  # TypeError: a password is missing
            continue
        if key.is_private and (
            key.curve_name == "P-256" if kind is ECKey else key.raw_value.key_size >= RSA_BITS
        ):
            return key, algorithm
    raise ConfigError(
        f"[console] client_key_file {file}: no private key that can be used\n"
        f"    write an EC key (P-256), or an RSA key of {RSA_BITS} bits or more, in PEM"
    )


def _object(document: bytes) -> dict[str, Any]:
    try:
        content: Any = json.loads(document)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Unavailable("The identity provider's answer is not a JSON object.")
    return cast("dict[str, Any]", content)


def _derived(secret: str, what: str, state: str) -> str:
    mac = hmac.new(secret.encode(), f"{what}|{state}".encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(mac).decode().rstrip("=")


def _sealed(secret: str, begun: Begun) -> str:
    text = json.dumps([begun.at, begun.way_back, begun.fresh]).encode()
    body = urlsafe_b64encode(text).decode().rstrip("=")
    return f"{body}.{_derived(secret, 'state', body)}"


def _opened(secret: str, state: str) -> Begun | None:
    body, _, seal = state.partition(".")
    expected = _derived(secret, "state", body)
    if (
        not secret
        or len(state) > _MAX_CHARS
        or not hmac.compare_digest(seal.encode("utf-8", "replace"), expected.encode())
    ):
        return None
    at, way_back, fresh = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return Begun(at, way_back, fresh)
