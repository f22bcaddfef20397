"""Who is calling: where the workload JWT comes from that is exchanged for an access token.

A source is either asked each time, or mints tokens for an audience, which are then kept until
shortly before they expire. ``environment.py`` says which of them is used.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from broker.client.reasons import IdentityMissing
from broker.clock import SystemClock
from broker.secret import Secret

if TYPE_CHECKING:
    from broker.clock import Clock

_MARGIN_S: Final = 60.0
"""How long before its end a token isn't used any more; a short-lived one, a fifth of its life."""


class MintedIdentity:
    """Tokens that are made for an audience. One is kept while it is good; threads may share it."""

    def __init__(
        self,
        mint: Callable[[str | None], Secret],
        *,
        needs_audience: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``mint`` makes a token for an audience, or for None where it isn't known.

        ``needs_audience`` is what to call the source where it can't do without one.
        """
        self._mint = mint
        self.needs_audience = needs_audience
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._kept: _Kept | None = None

    def at_hand(self, audience: str | None) -> Secret | None:
        """Return the token that is kept, if it is good for a while yet; waits for nothing."""
        kept = self._kept
        if kept is None or kept.audience != audience or self._clock.now() >= kept.good_until:
            return None
        return kept.token

    def token(self, audience: str | None) -> Secret:
        """Return a token that is good, and make one for it; the others wait for whoever does.

        Raises:
            Unauthenticated: there is none for us.
            IdentityUnavailable: whoever makes them doesn't answer now.
        """
        with self._lock:
            token = self.at_hand(audience)
            if token is None:
                token = self._mint(audience)
                self._keep(token, audience)
        return token

    def forget(self) -> None:
        """Make another next time: the one that is kept was refused."""
        self._kept = None

    def _keep(self, token: Secret, audience: str | None) -> None:
        now, ends_at = self._clock.now(), expiry(token)
        left = 0.0 if ends_at is None else ends_at - now
        margin = min(_MARGIN_S, left / 5)
        self._kept = _Kept(token, audience, now + left - margin) if left > 0 else None


Identity = Callable[[], Secret] | MintedIdentity
"""Where the caller's workload JWT comes from: a function that is called whenever one is needed, or
what mints them."""


@dataclass(frozen=True, slots=True)
class _Kept:
    token: Secret
    audience: str | None
    good_until: float


def expiry(token: Secret) -> float | None:
    """Return when a JWT expires, in epoch seconds, or None if it doesn't say. Nothing is verified.

    It is the broker that believes a token or not; this is for knowing when to get the next one.
    """
    try:
        payload = token.reveal().split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        ends_at = cast("dict[str, Any]", claims)["exp"] if isinstance(claims, dict) else None
    except (IndexError, KeyError, ValueError, RecursionError):
        return None
    if not isinstance(ends_at, int | float) or isinstance(ends_at, bool):
        return None
    return float(ends_at) if abs(ends_at) < 1e12 else None  # noqa: PLR2004  30,000 years


def token_file(path: str | Path) -> Callable[[], Secret]:
    """Return an identity that reads a workload JWT from a file, anew each time: it is rotated."""

    def read() -> Secret:
        try:
            text = Path(path).read_text("ascii")
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "it is not a token"
            raise IdentityMissing(f"The identity token file {path} can't be read: {why}") from None
        return checked(text, f"The identity token file {path}")

    return read


def fixed(token: str, name: str) -> Callable[[], Secret]:
    """Return an identity that is a token at hand; ``name`` is what it is called in errors."""
    return lambda: checked(token, name)


def checked(text: str, source: str) -> Secret:
    """Return a token, without the white space around it.

    Raises:
        IdentityMissing: it is none, whatever it is: it isn't shown.
    """
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise IdentityMissing(f"{source} holds no token")
    return Secret(token)
