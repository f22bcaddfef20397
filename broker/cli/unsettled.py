"""Grants that an order to revoke left behind, said in the same words by every command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.cli import output
from broker.cli.text import plural

if TYPE_CHECKING:
    from broker.client import GrantCounts, Revocation


def tell(
    counts: GrantCounts | Revocation, look: str = "broker grant list --state revoking"
) -> None:
    """Say how many are not confirmed dead, and how many nobody will confirm.

    ``look`` is the command that lists the former.
    """
    if counts.revoking:
        output.note(f"{plural(counts.revoking, 'grant')} not yet confirmed dead: {look}")
    if counts.abandoned:
        output.note(
            f"{plural(counts.abandoned, 'grant')} given up, never confirmed dead: "
            "broker grant list --state abandoned"
        )
