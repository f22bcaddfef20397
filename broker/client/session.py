"""The core: a caller's identity, the token it was exchanged for, and how a call goes. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from broker.client.environment import checked_url, from_environment
from broker.client.errors import (
    ConnectionFailed,
    UnexpectedAnswer,
    from_response,
    from_token_response,
)
from broker.client.messages import Request, Response, get, send_form
from broker.clock import SystemClock
from broker.secret import Secret

if TYPE_CHECKING:
    from broker.client.environment import Identity
    from broker.client.messages import Call, Flow
    from broker.clock import Clock

T = TypeVar("T")

_DELAYS: Final = (0.1, 0.5)
"""Seconds before the second and the third attempt."""
_MARGIN: Final = 30.0
"""Seconds before its expiry at which a token isn't used any more."""
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class _Token:
    value: Secret
    good_until: float


class Session:
    """One caller's conversation with one broker. Holds the access token, in memory only."""

    def __init__(self, url: str, identity: Identity, *, task_id: str | None, clock: Clock) -> None:
        """``task_id`` binds the access token to a task, as an agent's must be."""
        self.url = checked_url(url)
        self._identity = identity
        self._task_id = task_id
        self.clock = clock
        self._token: _Token | None = None
        self._resource: str | None = None

    @classmethod
    def configured(
        cls, url: str | None, identity: Identity | None, task_id: str | None, clock: Clock | None
    ) -> Session:
        """Make a session of what is given, and of the environment for what is None."""
        found = from_environment(url=url)
        return cls(
            url or found.url,
            identity or found.identity,
            task_id=(found.task_id if task_id is None else task_id) or None,
            clock=clock or SystemClock(),
        )

    def run(self, call: Call[T]) -> Flow[T]:
        """Make one call.

        1. Use the token at hand, or exchange the identity for one.
        2. Send the request, again if that is safe.
        3. A token at hand that is refused is exchanged anew, once: a revoked token, or a broker
           with other keys. The request was not looked at, so it is safe to send again.
        4. Read the answer, or raise what it stands for.
        """
        at_hand = self._usable()
        response = yield from self._authorized(call.request, at_hand)
        if response.status == _UNAUTHORIZED and at_hand is not None:
            self._token = None
            response = yield from self._authorized(call.request, None)
        if not response.ok:
            raise from_response(response)
        return call.read(response)

    def _usable(self) -> Secret | None:
        token = self._token
        if token is None or self.clock.monotonic() >= token.good_until:
            return None
        return token.value

    def _authorized(self, request: Request, at_hand: Secret | None) -> Flow[Response]:
        token = at_hand or (yield from self._exchange())
        bearer = f"Bearer {token.reveal()}"
        return (yield from _send(request.with_headers(authorization=bearer)))

    def _exchange(self) -> Flow[Secret]:
        """Exchange the workload JWT for an access token (RFC 8693)."""
        subject = self._identity()
        if self._resource is None:
            self._resource = yield from self._discover()
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject.reveal(),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "resource": self._resource,
        }
        if self._task_id:
            details = [{"type": "broker_task", "task_id": self._task_id}]
            form["authorization_details"] = json.dumps(details, separators=(",", ":"))
        asked_at = self.clock.monotonic()
        response = yield from _send(send_form("/oauth/token", form))
        if not response.ok:
            raise from_token_response(response)
        return self._keep(response, asked_at)

    def _keep(self, response: Response, asked_at: float) -> Secret:
        answer = response.mapping()
        text, lifetime = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(text, str) or not text:
            raise UnexpectedAnswer("The broker's token answer has no access_token")
        if str(answer.get("token_type", "Bearer")).lower() != "bearer":
            raise UnexpectedAnswer("The broker's token is not a bearer token: use a newer client")
        token = Secret(text)
        if isinstance(lifetime, int | float) and lifetime > 0:
            good_until = asked_at + lifetime - min(_MARGIN, lifetime / 5)
            self._token = _Token(token, good_until)
        return token

    def _discover(self) -> Flow[str]:
        """Ask for the broker's issuer URL (RFC 8414); without an answer it is the one we call."""
        response = yield from _send(get("/.well-known/oauth-authorization-server"))
        if response.status >= 500:  # noqa: PLR2004  it may be there in a moment
            raise from_response(response)
        issuer = response.mapping().get("issuer") if response.ok else None
        if isinstance(issuer, str) and urlsplit(issuer).scheme in {"http", "https"}:
            return issuer
        return self.url


def _send(request: Request) -> Flow[Response]:
    """Send a request; again if it never left, or if sending it twice does no harm."""
    for delay in _DELAYS:
        try:
            return (yield request)
        except ConnectionFailed as error:
            if error.sent and not request.repeatable:
                raise
        request = replace(request, delay=delay)
    return (yield request)
