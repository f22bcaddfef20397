"""SPIFFE IDs: read strictly, so that each workload has one name (SPIFFE-ID section 2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

MAX_ID_CHARS: Final = 2048
SCHEME: Final = "spiffe://"

_TRUST_DOMAIN: Final = r"[a-z0-9._-]{1,255}"
_ID: Final = re.compile(rf"spiffe://({_TRUST_DOMAIN})((?:/[A-Za-z0-9._-]+)*)")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """Names a workload, or with an empty ``path`` a trust domain itself."""

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one that is written as it should be: nothing is decoded, folded or resolved.

        Sections 2.1 to 2.3: no user information, port, query, fragment, percent-encoding, upper
        case in the trust domain, empty segment, ``.`` or ``..``; at most 2,048 bytes, all ASCII.

        Raises:
            ValueError: it isn't one.
        """
        found = _ID.fullmatch(text) if len(text) <= MAX_ID_CHARS else None
        if found is None or {".", ".."} & set(found[2].split("/")):
            raise ValueError("not a SPIFFE ID")
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"


def is_trust_domain(name: str) -> bool:
    """Say whether a text is the name of a trust domain (section 2.1)."""
    return re.fullmatch(_TRUST_DOMAIN, name) is not None
