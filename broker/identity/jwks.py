"""An issuer's verification keys, kept fresh.

The cache answers at once while its keys are fresh. Otherwise:

1. Keys older than ``refresh_s``, or than the document itself asks for (but not oftener than
   every ``cooldown_s``), or a changed file: one fetch, which all callers wait for.
2. The fetch failed: the old keys go on serving until they are ``max_stale_s`` old; then, and
   when there never were any, callers get ``Unavailable``, since it isn't the token's fault.
   The next attempt comes after ``cooldown_s``. While attempts keep failing, those who have
   old keys don't wait for them: an endpoint that hangs must not slow every request down.
3. A token no key fits: the issuer may have rotated, so one fetch, at most one per
   ``cooldown_s`` however many such tokens come.
4. A fetch that succeeds replaces everything: an empty set revokes all keys. A source that says
   they are no longer for us takes them away at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from broker.errors import InvalidToken, Unavailable
from broker.identity.jwk import KeySet, parse_key_set
from broker.identity.jwks_sources import KeySourceError, key_source
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.clock import Clock
    from broker.identity.jwks_sources import KeySource
    from broker.identity.jws import Jws
    from broker.identity.models import IssuerSettings, Trust

_log: Final = get_logger(__name__)


class KeysWithdrawn(KeySourceError):
    """The source says that the keys are not, or no longer, for us: the old ones must not serve."""


class Keys(Protocol):
    """What a document with keys in it is read into; never changed, only replaced."""

    @property
    def unusable(self) -> tuple[str, ...]:
        """Of each key left out, why."""
        ...

    @property
    def refresh_s(self) -> int | None:
        """When the document asks to be fetched again, in seconds, if it does."""
        ...

    def __len__(self) -> int: ...

    def knows(self, kid: str | None) -> bool:
        """Say whether a key with this id verifies tokens."""
        ...

    def verifies(self, jws: Jws) -> bool:
        """Say whether one of the keys signed the token."""
        ...


K = TypeVar("K", bound=Keys)


class DocumentCache(Generic[K]):
    """The keys of one issuer; safe for concurrent use within one event loop."""

    def __init__(
        self, settings: Trust, clock: Clock, source: KeySource, parse: Callable[[bytes], K]
    ) -> None:
        """Nothing is fetched until somebody asks.

        ``parse`` raises ``ValueError`` for what says nothing about the keys.
        """
        self._settings = settings
        self._clock = clock
        self._source = source
        self._parse = parse
        self._keys: K | None = None
        self._loaded_at = 0.0
        self._failure: Exception | None = None
        self._retry_at = float("-inf")
        self._miss_at = float("-inf")
        self._flight: asyncio.Task[None] | None = None

    async def keys(self) -> K:
        """Return the issuer's keys, fetched again first when they are due.

        Raises:
            Unavailable: there are none that may still be used.
        """
        now = self._clock.monotonic()
        if self._is_due(now):
            fetching = self._fetch_once()
            failing = now - self._retry_at < self._settings.cooldown_s
            if not failing or self._is_spent(now):
                await asyncio.shield(fetching)
        return self._usable()

    async def keys_after_miss(self) -> K:
        """Return the issuer's keys after a token that none of them verified.

        Raises:
            Unavailable: there are none that may still be used.
        """
        now = self._clock.monotonic()
        if self._flight is not None and not self._flight.done():
            # Not rationed: whoever comes while a fetch is under way costs nothing more, and
            # in a rotation the second token must not fail because the first is still waiting.
            await asyncio.shield(self._flight)
        elif now - self._miss_at >= self._settings.cooldown_s:
            self._miss_at = now
            await asyncio.shield(self._fetch_once())
        return self._usable()

    async def check_signature(self, jws: Jws) -> None:
        """Check that one of the keys signed a token, fetching them again if they may be old.

        Raises:
            InvalidToken: none of them did.
            Unavailable: there are none that may still be used.
        """
        keys = await self.keys()
        if keys.verifies(jws):
            return
        if keys.knows(jws.kid):
            # We have the very key it names: fetching again would serve forgers only.
            raise InvalidToken("the token's signature is wrong")
        newer = await self.keys_after_miss()
        if newer is keys or not newer.verifies(jws):
            raise InvalidToken("the token is signed by no key of its issuer")

    async def aclose(self) -> None:
        """Stop a fetch under way and close connections."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])
        await self._source.aclose()

    def _is_due(self, now: float) -> bool:
        if now < self._retry_at:
            return False
        if self._keys is None or now - self._loaded_at >= self._settings.refresh_s:
            return True
        asked = self._keys.refresh_s
        soon = asked is not None and now - self._loaded_at >= max(asked, self._settings.cooldown_s)
        return soon or self._source.changed()

    def _is_spent(self, now: float) -> bool:
        return self._keys is None or now - self._loaded_at > self._settings.max_stale_s

    def _usable(self) -> K:
        if self._keys is None or self._is_spent(self._clock.monotonic()):
            raise Unavailable(
                f"the verification keys of issuer {self._settings.name!r} can't be had",
                retry_after=self._settings.cooldown_s,
            ) from self._failure
        return self._keys

    def _fetch_once(self) -> asyncio.Task[None]:
        """Start a fetch, or join the one under way: it outlives a caller who gives up."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._fetch())
        return self._flight

    async def _fetch(self) -> None:
        try:
            keys = self._parse(await self._source.fetch())
        except (KeySourceError, ValueError) as error:
            self._failure = error
            if isinstance(error, KeysWithdrawn):
                self._keys = None
            self._retry_at = self._clock.monotonic() + self._settings.cooldown_s
            _log.warning(
                "verification_keys_not_fetched", issuer=self._settings.name, error=str(error)
            )
            return
        if self._keys is None or keys.unusable != self._keys.unusable:
            _log.info(
                "verification_keys_fetched",
                issuer=self._settings.name,
                keys=len(keys),
                unusable=keys.unusable,
            )
        self._keys, self._failure, self._retry_at = keys, None, float("-inf")
        self._loaded_at = self._clock.monotonic()


class KeyCache(DocumentCache[KeySet]):
    """The keys of an issuer that publishes a JWK Set."""

    def __init__(
        self, settings: IssuerSettings, clock: Clock, source: KeySource | None = None
    ) -> None:
        """``source`` takes the place of the one the settings name.

        Raises:
            ConfigError: the settings name a source that can't be trusted.
        """
        super().__init__(settings, clock, source or key_source(settings), parse_key_set)
