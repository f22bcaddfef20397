"""The keys in use: which one signs now, and which verify."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, Self

from broker.clock import SystemClock
from broker.errors import ConfigError
from broker.identity import jws
from broker.keys.folder import KeyFolder
from broker.keys.key import Algorithm, generate, signing_key
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from broker.clock import Clock
    from broker.identity.jwk import VerificationKey
    from broker.keys.folder import Listing
    from broker.keys.key import PrivateKey, SigningKey

log = get_logger("keys")
_LOOK_S: Final = 1.0
"""Least time between two looks at the folder that unknown key ids cause."""


class KeyRing:
    """Signing keys, lowest number first. All verify; ``signer`` says which one signs."""

    def __init__(self, private_keys: Sequence[PrivateKey], *, clock: Clock | None = None) -> None:
        """Keys without a folder, the last of which signs: for tests. See :meth:`load_or_create`."""
        self._clock = clock or SystemClock()
        self._folder: KeyFolder | None = None
        self._listing: Listing = ()
        self._complaint = ""
        self._looked = self._clock.monotonic()
        self._reloading = threading.Lock()
        self._use(signing_key(key, number=n, created=0) for n, key in enumerate(private_keys, 1))

    @classmethod
    def load_or_create(
        cls,
        directory: Path,
        *,
        clock: Clock | None = None,
        algorithm: Algorithm = Algorithm.ES256,
    ) -> Self:
        """Load the keys in ``directory``, making the first one if there is none.

        Processes that start at once on the same directory end up with the same keys.
        ``algorithm`` is that of the first key only.

        Raises:
            ConfigError: a file or the directory is open to others, unreadable, or no such key.
        """
        ring = cls([], clock=clock)
        folder = KeyFolder(directory)
        try:
            folder.prepare()
            listing, keys = folder.load()
            if not keys:
                with folder.locked(wait=True):
                    # Somebody may have made one while we waited for the lock.
                    listing, keys = folder.load()
                    if not keys:
                        now = int(ring._clock.now())
                        key = generate(algorithm)
                        folder.write(signing_key(key, number=1, created=now, signs_from=now))
                        listing, keys = folder.load()
        except OSError as error:
            raise ConfigError(
                f"signing keys in {directory} can't be used: {error.strerror}"
            ) from error
        ring._folder, ring._listing = folder, listing
        ring._use(keys)
        return ring

    @property
    def folder(self) -> KeyFolder:
        """Where the keys are."""
        assert self._folder is not None  # noqa: S101  only rings made by load_or_create change
        return self._folder

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """The keys, lowest number first."""
        return tuple(self._keys.values())

    @property
    def lowest_file(self) -> int:
        """The lowest number of a key file; below ``keys`` there may be files of dead keys."""
        return self._listing[0][0] if self._listing else 0

    @property
    def signer(self) -> SigningKey:
        """The key that signs now: the highest number of those whose time has come.

        With a clock so far behind that none has, the lowest number: tokens go on being signed.
        """
        keys, now = self.keys, self._clock.now()
        return next((key for key in reversed(keys) if key.signs_from <= now), keys[0])

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JWK Set (RFC 7517 section 5), the next one included."""
        return {"keys": [dict(key.public) for key in self.keys]}

    def sign(self, header: Mapping[str, Any], payload: Mapping[str, Any]) -> str:
        """Return a compact JWS signed by the signer; ``alg`` and ``kid`` are filled in."""
        key = self.signer
        return jws.sign({**header, "kid": key.kid}, payload, key.private_key, key.algorithm.value)

    def find(self, kid: str) -> VerificationKey | None:
        """Return the public key with this id, if it is one of ours.

        For an unknown one the folder is looked at, at most once a second: another replica may
        have made it.
        """
        key = self._keys.get(kid)
        if key is None and self._may_look():
            self.reload()
            key = self._keys.get(kid)
        return key.verification if key else None

    def reload(self) -> bool:
        """Take over what has changed in the folder; says whether the folder is in order.

        A folder that isn't leaves the keys as they are, and is complained about in the log.
        """
        if self._folder is None:
            return True
        with self._reloading:
            try:
                if self._folder.listing() != self._listing:
                    listing, keys = self._folder.load()
                    if not keys:
                        raise ConfigError(f"there are no signing keys in {self._folder.path}")  # noqa: TRY301
                    self._use(keys)
                    self._listing = listing
            except ConfigError as error:
                return self._complain(error.detail)
            except OSError as error:
                return self._complain(f"{self._folder.path} can't be read: {error.strerror}")
            self._complaint = ""
            return True

    def _may_look(self) -> bool:
        now = self._clock.monotonic()
        # Not while another thread looks: this one may be serving requests.
        if now - self._looked < _LOOK_S or self._reloading.locked():
            return False
        self._looked = now
        return True

    def _use(self, keys: Iterable[SigningKey]) -> None:
        # One assignment, so that no reader sees half of a change.
        self._keys = {key.kid: key for key in keys}

    def _complain(self, problem: str) -> bool:
        if problem != self._complaint:
            log.warning("signing keys are not reloaded, the known ones stay", problem=problem)
            self._complaint = problem
        return False
