"""Kubernetes service accounts, verified by the API server itself (TokenReview).

The alternative to verifying their tokens with the cluster's keys. It costs a request for each
token, and gains what a signature can't say: that the pod the token is bound to, and its service
account, are still there. So an answer is never kept.

``authentication.k8s.io/v1`` of the Kubernetes API. The API server itself remembers a good token
for ten seconds, and accepts a pod's token while the pod is shutting down.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from broker.errors import ConfigError, InvalidToken, Unavailable
from broker.identity.fetching import Fetcher, FetchError, is_protected
from broker.identity.jws import parse, text
from broker.identity.models import Identity
from broker.identity.oidc import check_meant, check_origin, check_rules
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.clock import Clock
    from broker.identity.jws import Jws
    from broker.identity.models import IssuerSettings

_log: Final = get_logger(__name__)

METHOD: Final = "token-review"
API: Final = "authentication.k8s.io/v1"
PATH: Final = f"/apis/{API}/tokenreviews"
_USERNAME: Final = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
_CLAIM: Final = "kubernetes.io"
_MAX_CHARS: Final = 512


class BadReview(ValueError):
    """An answer of the API server that no TokenReview has; the message holds none of it."""


@dataclass(frozen=True, slots=True)
class Review:
    """What the API server said of a token it accepts.

    ``workload`` has the shape of the ``kubernetes.io`` claim: ``namespace``, ``serviceaccount``
    and, where the token is bound to one, ``pod``, the latter two with ``name`` and ``uid``.
    """

    username: str
    audiences: tuple[str, ...]
    workload: Mapping[str, Any]


class TokenReviewIssuer:
    """One cluster whose API server says who a workload is."""

    def __init__(
        self, settings: IssuerSettings, clock: Clock, fetcher: Fetcher | None = None
    ) -> None:
        """``settings.token_review`` is the API server's address.

        ``fetcher`` takes the place of the one the settings describe.

        Raises:
            ConfigError: tokens would travel unprotected, or ``ca_file`` can't be used.
        """
        server = settings.token_review or ""
        if not is_protected(server, loopback_http=True):
            raise ConfigError(
                f"identity issuer {settings.name!r}: token_review must be an https URL without"
                " user information (http only to a loopback address)"
            )
        self.settings = settings
        self._clock = clock
        self._url = server.removesuffix("/") + PATH
        self._fetcher = fetcher or Fetcher(ca_file=settings.ca_file, token_file=settings.token_file)

    async def verify(self, token: str) -> Identity:
        """Return the identity a token proves, now.

        Raises:
            InvalidToken: it proves none.
            Unavailable: the API server doesn't say.
        """
        return await self.verify_parsed(parse(token))

    async def verify_parsed(self, jws: Jws) -> Identity:
        """Verify a token already taken apart.

        1. What can be refused without asking is: the API server sees no garbage, and no token
           that is meant for others.
        2. The API server accepts it, for our audience.
        3. It speaks of the same workload as the token, whose claims it has verified thereby.
        4. They say what the issuer's rules ask for, the pod's UID among them.

        Raises:
            InvalidToken: it proves no identity.
            Unavailable: the API server doesn't say.
        """
        # 1.
        check_origin(jws, self.settings)
        expires_at = check_meant(jws.claims, self.settings, self._clock.now())
        # 2.
        review = await self._ask(jws.compact)
        if review is None:
            raise InvalidToken("the API server of the token's cluster doesn't accept it")
        if self.settings.audience not in review.audiences:
            raise InvalidToken("the token is meant for another audience")
        # 3.
        claims = _merged(jws.claims, review)
        # 4.
        check_rules(claims, self.settings)
        return Identity(
            issuer_name=self.settings.name,
            issuer=self.settings.issuer,
            subject=text(claims, "sub"),
            method=METHOD,
            expires_at=expires_at,
            claims=claims,
        )

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _ask(self, token: str) -> Review | None:
        """Return what the API server says of a token; None if it doesn't accept it."""
        request = {
            "apiVersion": API,
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.settings.audience]},
        }
        try:
            return read_review(await self._fetcher.post(self._url, request))
        except (FetchError, BadReview) as error:
            _log.warning("token_not_reviewed", issuer=self.settings.name, error=str(error))
            raise Unavailable(
                f"the API server of issuer {self.settings.name!r} can't be asked about tokens",
                retry_after=self.settings.cooldown_s,
            ) from error


def read_review(document: bytes) -> Review | None:
    """Read a TokenReview that an API server answered with; None if it doesn't accept the token.

    Raises:
        BadReview: the answer is none, or not about a service account.
    """
    try:
        content: Any = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise BadReview("the API server's answer is not JSON") from error
    answer = _table(content)
    if answer.get("kind") != "TokenReview" or answer.get("apiVersion") != API:
        raise BadReview("the API server's answer is no TokenReview")
    status = _table(answer.get("status"))
    # An error is there when the token couldn't be checked, and also when it was and is bad.
    if status.get("authenticated") is not True or status.get("error"):
        return None
    user = _table(status.get("user"))
    username = _text(user.get("username"))
    names = _USERNAME.fullmatch(username)
    if names is None:
        # A person's token, or another authenticator's: authenticated, and no workload.
        return None
    extra = _table(user.get("extra", {}))
    pod = {"name": _single(extra.get(_POD_NAME)), "uid": _single(extra.get(_POD_UID))}
    workload: dict[str, Any] = {
        "namespace": names[1],
        "serviceaccount": {"name": names[2], "uid": _text(user.get("uid"))},
    }
    if any(pod.values()):
        workload["pod"] = {name: value for name, value in pod.items() if value is not None}
    audiences = tuple(_text(item) for item in _list(status.get("audiences", [])))
    return Review(username, audiences, workload)


def _merged(claims: Mapping[str, Any], review: Review) -> dict[str, Any]:
    """Return a token's claims with what the review says of the workload.

    Raises:
        InvalidToken: they disagree, so the review isn't of this token.
    """
    stated = claims.get(_CLAIM, {})
    own = cast("dict[str, Any]", stated) if isinstance(stated, dict) else {}
    merged = {**own, **_overlaid(own, review.workload)}
    if claims.get("sub", review.username) != review.username:
        raise _other_workload()
    return {**claims, "sub": review.username, _CLAIM: merged}


def _overlaid(own: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Put what was said of a workload over the same members of its own claim."""
    result: dict[str, Any] = {}
    for name, value in said.items():
        mine = own.get(name)
        if isinstance(value, dict):
            table = cast("dict[str, Any]", mine) if isinstance(mine, dict) else {}
            result[name] = {**table, **_overlaid(table, cast("dict[str, Any]", value))}
        elif mine is not None and mine != value:
            raise _other_workload()
        else:
            result[name] = value
    return result


def _other_workload() -> InvalidToken:
    return InvalidToken("the API server of the token's cluster speaks of another workload")


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadReview("the API server's answer lacks an object where a TokenReview has one")
    return cast("dict[str, Any]", value)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise BadReview("the API server's answer lacks a list where a TokenReview has one")
    return cast("list[Any]", value)


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_CHARS or not value.isprintable():
        raise BadReview("the API server's answer lacks a text where a TokenReview has one")
    return value


def _single(value: object) -> str | None:
    """Return the one value of an ``extra`` (a list of texts), or None without one."""
    if value is None:
        return None
    values = _list(value)
    if len(values) != 1:
        raise BadReview("the API server's answer names several pods")
    return _text(values[0])
