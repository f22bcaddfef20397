"""A wrapping token in two parts, of which neither opens anything.

Who carries a wrapping token can open it at Vault. A voucher is for carriers that mustn't: a model,
and all that reads what a model reads. The carrier has a random key, the ledger the token enciphered
with it, and only the broker ever has both, for as long as it takes to open.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from broker.secret import Secret

_KEY_BYTES: Final = 16
_PURPOSE: Final = b"broker voucher"


def split(token: Secret) -> tuple[Secret, str]:
    """Return the carrier's part, and the ledger's in hexadecimal."""
    key = secrets.token_urlsafe(_KEY_BYTES)
    return Secret(key), _enciphered(token.reveal().encode(), key).hex()


def joined(key: Secret, share: str) -> Secret:
    """Return the token of two parts that belong together; of any others a text that is none."""
    return Secret(_enciphered(bytes.fromhex(share), key.reveal()).decode("utf-8", "replace"))


def _enciphered(text: bytes, key: str) -> bytes:
    """Add a key stream of the text's length; added again it gives the text.

    A key is used for one token and never again, which is what makes this safe.
    """
    stream = hashlib.shake_256(_PURPOSE + key.encode()).digest(len(text))
    return bytes(a ^ b for a, b in zip(text, stream, strict=True))
