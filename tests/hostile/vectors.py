"""Hostile tokens as data, in the manner of Wycheproof: each with an id, a comment, and a result.

A vector is made from a good token (`Good`) by one change, and is otherwise as good as it was:
signed again where the change isn't the signature itself, so that nothing else is why it is refused.
Nothing of the broker is used to make them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from tests.issuers import PRIMITIVES, IssuerKey, segment

if TYPE_CHECKING:
    from collections.abc import Mapping

FORM: Final = "form"
"""Seen without a key: it must cost no signature check, and no key may be fetched for it."""
SIGNATURE: Final = "signature"
"""Seen by checking the signature alone."""
BY_ID: Final = "by-id"
"""About the key that ``kid`` names: no matter to who doesn't look it up."""
OWN_KEY: Final = "own-key"
"""About a key in the header: the business of whoever lets a token bring one."""

Flag = Literal["form", "signature", "by-id", "own-key"]


class Absent:
    """Stands for a member that isn't there; None is JSON's null."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent()


@dataclass(frozen=True)
class Vector:
    """One token; ``valid`` says that it has to be accepted, since not all that is odd is bad.

    Where ``valid`` is None both will do, and anything else that happens won't.
    """

    id: str
    comment: str
    token: str
    flags: frozenset[Flag] = frozenset()
    valid: bool | None = False


def vector(
    id: str,  # noqa: A002
    comment: str,
    token: str,
    *flags: Flag,
    valid: bool | None = False,
) -> Vector:
    """Write a vector."""
    return Vector(id, comment, token, frozenset(flags), valid)


def changed(members: Mapping[str, Any], **changes: object) -> dict[str, Any]:
    """Return members with some put in place of others, or left out."""
    merged = {**members, **changes}
    return {name: value for name, value in merged.items() if value is not ABSENT}


def raw_signature(key: IssuerKey, signing_input: str) -> bytes:
    """Sign any text at all by the key's own algorithm."""
    return PRIMITIVES[key.algorithm].sign(signing_input.encode("utf-8"), key.private)


def signed(key: IssuerKey, *parts: str) -> str:
    """Sign the parts as they are written, whatever they are."""
    text = ".".join(parts)
    return f"{text}.{segment(raw_signature(key, text))}"


@dataclass(frozen=True)
class Good:
    """A token that is accepted, in parts. ``header`` has no ``alg``: that is the key's."""

    key: IssuerKey
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    rsa: Good | None = field(default=None, repr=False)
    """The same token signed by an RSA key that is accepted too."""

    @property
    def head(self) -> dict[str, Any]:
        """The whole header."""
        return {"alg": self.key.algorithm, **self.header}

    @property
    def token(self) -> str:
        """The good token."""
        return self.sign()

    def sign(
        self, header: object = None, claims: object = None, key: IssuerKey | None = None
    ) -> str:
        """Sign with another header or payload: any JSON, or bytes that are none."""
        return signed(
            key or self.key,
            segment(self.head if header is None else header),
            segment(self.claims if claims is None else claims),
        )

    def with_header(self, **changes: object) -> str:
        """Sign with other header members; ``ABSENT`` leaves one out."""
        return self.sign(header=changed(self.head, **changes))

    def with_claims(self, **changes: object) -> str:
        """Sign with other claims; ``ABSENT`` leaves one out."""
        return self.sign(claims=changed(self.claims, **changes))

    def payload(self, **changes: object) -> bytes:
        """The payload as text, to be spoiled."""
        return json.dumps(changed(self.claims, **changes)).encode()

    def saying(self, **changes: object) -> Good:
        """Another good token, with other claims."""
        return replace(self, claims=changed(self.claims, **changes))

    def parts(self) -> tuple[str, str, str]:
        """The good token's three segments."""
        head, payload, signature = self.token.split(".")
        return head, payload, signature
