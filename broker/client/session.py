"""The core: a caller's identity, the token it was exchanged for, and how a call goes. No I/O."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from broker.client.answers import from_response, from_token_response, text
from broker.client.environment import AUDIENCE, checked_url, from_environment
from broker.client.errors import ConnectionFailed, InvalidRequest, Unauthenticated, UnexpectedAnswer
from broker.client.identity import MintedIdentity
from broker.client.messages import Request, Response, ask_here, get, send_form
from broker.client.reasons import IdentityMissing
from broker.client.retrying import Attempts, Retries
from broker.client.tls import Tls
from broker.clock import SystemClock
from broker.secret import Secret

if TYPE_CHECKING:
    from broker.client.dpop import DpopKey
    from broker.client.identity import Identity
    from broker.client.messages import Call, Flow
    from broker.clock import Clock

T = TypeVar("T")

_MARGIN: Final = 30.0
"""Seconds before its expiry at which a token isn't used any more."""
_UNAUTHORIZED: Final = 401
_METADATA: Final = "/.well-known/oauth-authorization-server"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
_NONCES: Final = 2
"""How often in a row another nonce is taken: the broker's may change just in between."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: Secret
    good_until: float


class Session:
    """One caller's conversation with one broker. Holds the access token, in memory only."""

    def __init__(  # noqa: PLR0913  all that a caller may want otherwise
        self,
        url: str,
        identity: Identity,
        *,
        task_id: str | None,
        clock: Clock,
        audience: str | None = None,
        tls: Tls | None = None,
        dpop: DpopKey | None = None,
        retries: Retries | None = None,
        sealed: bool = False,
    ) -> None:
        """``task_id`` binds the access token to a task, as an agent's must be; ``dpop`` to a key.

        ``audience`` is who minted identities are for, by default the broker's issuer URL. By a
        ``sealed`` token no credential is seen: what is issued comes as a voucher.
        """
        self.url = checked_url(url)
        self._identity = identity
        self._task_id = task_id
        self.clock = clock
        self._audience = audience
        self.tls = tls or Tls()
        self._dpop = dpop
        self._nonce: str | None = None
        self._retries = retries or Retries()
        self._sealed = sealed
        self._presented: Secret | None = None
        self._token: _Token | None = None
        self._resource: str | None = None

    @classmethod
    def configured(  # noqa: PLR0913  as above
        cls,
        url: str | None,
        identity: Identity | None,
        task_id: str | None,
        clock: Clock | None,
        *,
        audience: str | None = None,
        tls: Tls | None = None,
        dpop: DpopKey | Path | str | bool | None = None,
        retries: Retries | None = None,
        own_transport: bool = False,
        sealed: bool = False,
    ) -> Session:
        """Make a session of what is given, and of the environment for what is None.

        ``own_transport`` says that the caller brings its connections, TLS and all.

        Raises:
            InvalidRequest: a setting can't be used, or TLS is set up and wouldn't be spoken.
        """
        clock = clock or SystemClock()
        found = from_environment(url=url, clock=clock, identity=identity)
        if own_transport and tls:
            msg = "either tls or http_transport: a transport of your own brings its own TLS"
            raise InvalidRequest(msg, code="invalid_tls")
        session = cls(
            url or found.url,
            found.identity,
            task_id=(found.task_id if task_id is None else task_id) or None,
            clock=clock,
            audience=audience or found.audience,
            tls=None if own_transport else tls or found.tls,
            dpop=_key(found.dpop if dpop is None else dpop),
            retries=retries,
            sealed=sealed,
        )
        if session.tls and urlsplit(session.url).scheme != "https":
            msg = "TLS files are set, and the broker's URL isn't https: they would not be used"
            raise InvalidRequest(msg, code="invalid_tls")
        return session

    @property
    def task_id(self) -> str | None:
        """The task that the access token is bound to, if it is."""
        return self._task_id

    def presenting(self, token: Secret) -> Session:
        """Return the session of a resource server that acts by a token presented to it."""
        made = copy.copy(self)
        made.__dict__ |= {"_task_id": None, "_sealed": True, "_presented": token, "_token": None}
        return made

    def issuer(self) -> Flow[str]:
        """Return the broker's issuer URL, which it is asked for once."""
        if self._resource is None:
            request = get(_METADATA)
            self._resource = yield from self._discover(Attempts(self._retries, self.clock, request))
        return self._resource

    def run(self, call: Call[T]) -> Flow[T]:
        """Make one call.

        1. Use the token at hand, or exchange the identity for one.
        2. Send the request, again if that is safe.
        3. A token at hand that is refused is exchanged anew, once: a revoked token, or a broker
           with other keys. The request was not looked at, so it is safe to send again.
        4. Read the answer, or raise what it stands for.
        """
        at_hand = self._usable()
        attempts = Attempts(self._retries, self.clock, call.request)
        response = yield from self._authorized(call.request, at_hand, attempts)
        if response.status == _UNAUTHORIZED and at_hand is not None:
            self._token = None
            response = yield from self._authorized(call.request, None, attempts)
        if not response.ok:
            raise from_response(response)
        return call.read(response)

    def _usable(self) -> Secret | None:
        token = self._token
        if token is None or self.clock.monotonic() >= token.good_until:
            return None
        return token.value

    def _authorized(
        self, request: Request, at_hand: Secret | None, attempts: Attempts
    ) -> Flow[Response]:
        token = at_hand or (yield from self._exchange(attempts))
        scheme = "Bearer" if self._dpop is None else "DPoP"
        authorized = request.with_headers(authorization=f"{scheme} {token.reveal()}")
        return (yield from self._send(authorized, attempts, token))

    def _exchange(self, attempts: Attempts) -> Flow[Secret]:
        """Exchange the workload JWT for an access token (RFC 8693).

        An identity that is minted is minted for the broker, so the broker is asked for its name
        before; without any other, nothing is asked of anybody.
        """
        identity, subject = self._identity, None
        if not isinstance(identity, MintedIdentity):
            subject = yield from self._ask_here(ask_here(identity), attempts)
        if self._resource is None:
            self._resource = yield from self._discover(attempts)
        if isinstance(identity, MintedIdentity):
            subject = yield from self._minted(identity, attempts)
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject.reveal() if subject else "",
            "subject_token_type": _JWT,
            "resource": self._resource,
        }
        if self._presented:
            form |= {"actor_token": form["subject_token"], "actor_token_type": _JWT}
            form |= {"subject_token": self._presented.reveal(), "subject_token_type": _ACCESS_TOKEN}
        if self._sealed:
            form["scope"] = "sealed"
        if self._task_id:
            details = [{"type": "broker_task", "task_id": self._task_id}]
            form["authorization_details"] = json.dumps(details, separators=(",", ":"))
        asked_at = self.clock.monotonic()
        # A token that nobody received is of no use to anybody: asking again does no harm.
        request = send_form("/oauth/token", form, repeatable=True)
        response = yield from self._send(request, attempts)
        if not response.ok:
            raise self._refused(response)
        return self._keep(response, asked_at)

    def _ask_here(self, request: Request, attempts: Attempts) -> Flow[Secret]:
        answer = yield from self._send(request, attempts)
        return Secret(answer.content.decode("ascii"))

    def _minted(self, identity: MintedIdentity, attempts: Attempts) -> Flow[Secret]:
        audience = self._audience or self._own_audience()
        if audience is None and identity.needs_audience:
            raise IdentityMissing(
                f"{identity.needs_audience} needs to know whom the token is for, and the broker at "
                f"{self.url} calls itself {self._resource}: set {AUDIENCE} to the audience it wants"
            )
        at_hand = identity.at_hand(audience)
        if at_hand is not None:
            return at_hand
        return (yield from self._ask_here(ask_here(lambda: identity.token(audience)), attempts))

    def _own_audience(self) -> str | None:
        """Return the broker's issuer URL, if it is where the broker is (RFC 8414 section 3.3).

        Else whoever answers at a wrong address could have tokens minted that are for others, and
        use them there.
        """
        issuer = self._resource or ""
        return issuer if _origin(issuer) == _origin(self.url) else None

    def _refused(self, response: Response) -> Exception:
        error = from_token_response(response)
        if isinstance(error, Unauthenticated) and isinstance(self._identity, MintedIdentity):
            self._identity.forget()
        return error

    def _keep(self, response: Response, asked_at: float) -> Secret:
        answer = response.mapping()
        value, lifetime = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(value, str) or not value:
            raise UnexpectedAnswer("The broker's token answer has no access_token")
        kind = str(answer.get("token_type", "Bearer")).lower()
        if self._dpop is not None and kind != "dpop":
            # RFC 9449 section 5: the client asked for a bound token, and has to notice.
            raise UnexpectedAnswer(
                "The broker's token is not bound to our key: its type isn't DPoP"
            )
        if self._dpop is None and kind != "bearer":
            raise UnexpectedAnswer("The broker's token is not a bearer token: use a newer client")
        token = Secret(value)
        if isinstance(lifetime, int | float) and lifetime > 0:
            good_until = asked_at + lifetime - min(_MARGIN, lifetime / 5)
            self._token = _Token(token, good_until)
        return token

    def _discover(self, attempts: Attempts) -> Flow[str]:
        """Ask for the broker's issuer URL (RFC 8414); without an answer it is the one we call."""
        request = get(_METADATA)
        response = yield from self._send(request, attempts)
        if response.status >= 500:  # noqa: PLR2004  it may be there in a moment
            raise from_response(response)
        issuer = text(response.mapping(), "issuer") if response.ok else None
        try:
            checked_url(issuer or "")
        except InvalidRequest:
            return self.url
        return issuer or self.url

    def _send(
        self, request: Request, attempts: Attempts, token: Secret | None = None
    ) -> Flow[Response]:
        """Send a request, again as often as that is safe and of use.

        A request that only lacks the broker's nonce wasn't looked at: again at once, with it.
        """
        nonces = 0
        while True:
            again: Request | None = None
            try:
                response = yield attempts.limited(self._proved(request, token))
            except ConnectionFailed as error:
                again = attempts.after_failure(request, error)
                if again is None:
                    raise
            else:
                self._nonce = response.headers.get("dpop-nonce") or self._nonce
                if self._lacks_nonce(response) and nonces < _NONCES:
                    nonces += 1
                    continue
                again = attempts.after_answer(request, response)
                if again is None:
                    return response
            request = again

    def _proved(self, request: Request, token: Secret | None) -> Request:
        """Add a proof that we hold our key (RFC 9449); a new one each time, as it is good once.

        It names the broker by its public address, which may not be the one we reach it at.
        """
        if self._dpop is None or self._resource is None or request.work is not None:
            return request  # whoever is asked for their name gets no proof
        base = _origin(self._resource) + urlsplit(self.url).path
        proof = self._dpop.proof(
            request.method,
            base + request.path.partition("?")[0],
            now=self.clock.now() + request.delay,
            nonce=self._nonce,
            token=token,
        )
        return request.with_headers(dpop=proof)

    def _lacks_nonce(self, response: Response) -> bool:
        if self._dpop is None or response.status not in {400, _UNAUTHORIZED}:
            return False
        answer = response.mapping()
        said = text(answer, "error") or text(answer, "code")
        return said == "use_dpop_nonce" and "dpop-nonce" in response.headers


def _origin(url: str) -> str:
    """Return the scheme, host and port of a URL, in one spelling."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if port == usual else f":{port}")


def _key(wanted: DpopKey | Path | str | bool) -> DpopKey | None:  # noqa: FBT001  a key, or whether
    """Return the key itself, the one of a file, a new one, or none."""
    if wanted is False:
        return None
    from broker.client.dpop import DpopKey  # noqa: PLC0415  cryptography is slow to import

    if wanted is True:
        return DpopKey.new()
    return DpopKey.load(wanted) if isinstance(wanted, str | Path) else wanted
