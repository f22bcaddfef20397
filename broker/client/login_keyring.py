"""The keyring of the operating system, by the ``keyring`` library where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.client.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable

_SERVICE: Final = "broker"
_RECOMMENDED: Final = 1
"""The least priority of a keyring that the library recommends; plain files have less."""


class Keyring:
    """Where secrets of a person are kept for them, encrypted, by the system that they log in to."""

    def missing(self) -> str:
        """Say why there is none; empty if there is one."""
        try:
            import keyring  # noqa: PLC0415  optional, and slow to import
        except ImportError:
            return "the keyring library isn't installed: pip install 'broker[login]'"
        backend = keyring.get_keyring()
        if backend.priority < _RECOMMENDED:
            return "this system has no keyring that is running and encrypted"
        return ""

    def get(self, server: str) -> str:
        """Return what is kept for a broker, or nothing."""
        return _asked(lambda library: library.get_password(_SERVICE, server)) or ""

    def set(self, server: str, text: str) -> None:
        """Keep a text for a broker."""
        _asked(lambda library: library.set_password(_SERVICE, server, text))

    def delete(self, server: str) -> None:
        """Delete what is kept for a broker; nothing is no error."""
        if self.get(server):
            _asked(lambda library: library.delete_password(_SERVICE, server))


def _asked(call: Callable[[Any], str | None]) -> str | None:
    try:
        import keyring  # noqa: PLC0415  as above
        from keyring.errors import KeyringError  # noqa: PLC0415
    except ImportError:
        msg = "The login is in a keyring, and the keyring library isn't installed any more"
        raise Unauthenticated(msg, code="keyring_unavailable") from None
    try:
        return call(keyring)
    except KeyringError as error:
        msg = f"The keyring doesn't give it: {error or type(error).__name__}"
        raise Unauthenticated(msg, code="keyring_unavailable") from None
