"""How TLS is spoken: whom the client trusts, and the certificate it shows. Always verified.

There is no way to switch verification off: where the broker's certificate is from a private
authority, that authority's certificate is what to name.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from broker.client.errors import InvalidRequest

_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. They are read again when they change, for connections from then on.

    ``ca_file`` holds the authorities that are trusted *instead of* the system's. ``cert_file`` is
    the client's certificate, with those between it and its authority after it, and ``key_file``
    its key, if that isn't in the same file: unencrypted.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None

    def __bool__(self) -> bool:
        """Whether anything is other than usual."""
        return bool(self.ca_file or self.cert_file or self.key_file)

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            InvalidRequest: one of them is missing, or not what it is for; or there is a key
                without a certificate.
        """
        if self.key_file and not self.cert_file:
            raise _unusable("a client key without its certificate")
        try:
            # Without a file of its own this trusts what the system does.
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            raise _unusable(f"the CA file {self.ca_file}: {_why(error)}") from None
        if self.cert_file:
            self._load_own(context, self.cert_file)
        return context

    def stamp(self) -> _Stamp:
        """Return what is different once a file has changed."""
        return tuple(_stat(path) for path in (self.ca_file, self.cert_file, self.key_file))

    def _load_own(self, context: ssl.SSLContext, cert_file: str | Path) -> None:
        try:
            # The password is asked for on the terminal unless there is one: an empty one opens
            # nothing.
            context.load_cert_chain(cert_file, self.key_file, password="")
        except (OSError, ValueError) as error:
            files = " and ".join(str(path) for path in (cert_file, self.key_file) if path)
            raise _unusable(f"the client certificate of {files}: {_why(error)}") from None


def _stat(path: str | Path | None) -> tuple[int, int, int] | None:
    if path is not None:
        with suppress(OSError):
            found = Path(path).stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
    return None


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "not the right kind of PEM, or the key is another's or encrypted"
    return (error.strerror if isinstance(error, OSError) else None) or "it can't be used"


def _unusable(what: str) -> InvalidRequest:
    return InvalidRequest(f"TLS can't be set up with {what}", code="invalid_tls")
