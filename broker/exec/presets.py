"""Which variables a child gets a credential in, where nobody says otherwise.

Those that programs of its kind read (``broker.client.conventions``), or one for each member.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.client.conventions import PROGRAMS, assigned
from broker.exec.refusal import Unfit
from broker.secret import Secret

if TYPE_CHECKING:
    from broker.exec.members import Members

NAMES: Final = (*PROGRAMS, "plain", "none")
"""``plain`` is what ``broker grant request --env`` prints, and what kinds without a habit get."""


def preset_of(members: Members) -> str:
    """Return the preset for a credential: by its DSN, or else by its type."""
    return members.kind if assigned(members.kind, members.all, members.place) else "plain"


def variables(name: str, members: Members) -> dict[str, Secret]:
    """Return the variables of a preset.

    Raises:
        Unfit: the credential has nothing that belongs into one.
    """
    if name == "none":
        return {}
    if name == "plain":
        own = {f"BROKER_CREDENTIAL_{_upper(n)}": members.get(n) for n in members.own}
        found = {"BROKER_GRANT_ID": members.get("grant_id"), **own}
        return {variable: value for variable, value in found.items() if value is not None}
    usual = assigned(name, members.all, members.place)
    if not usual:
        raise Unfit(
            f"--env-preset {name}: the credential of {members.capability} has nothing for it; "
            f"it has {', '.join(members.names)}"
        )
    return {n: v if isinstance(v, Secret) else Secret(v) for n, v in usual.items()}


def _upper(name: str) -> str:
    return re.sub("[^A-Z0-9_]", "_", name.upper())
