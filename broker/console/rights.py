"""What people may do at the console: roles, and the rights that they give."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from broker.identity.models import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Right(StrEnum):
    """What a page or a form may need."""

    READ = "read"
    """Tasks, grants, agents, approvals, policies: everything but the log."""
    AUDIT = "audit"
    """The log, and what was found in reviews."""
    APPROVE = "approve"
    """Say yes or no to what waits for a human."""
    OPERATE = "operate"
    """Revoke, freeze, suspend, review."""


class ConsoleRole(StrEnum):
    """What a group of the identity provider can make somebody."""

    VIEWER = "viewer"
    APPROVER = "approver"
    OPERATOR = "operator"
    AUDITOR = "auditor"


RIGHTS: Final[Mapping[ConsoleRole, frozenset[Right]]] = {
    ConsoleRole.VIEWER: frozenset({Right.READ}),
    ConsoleRole.APPROVER: frozenset({Right.READ, Right.APPROVE}),
    ConsoleRole.OPERATOR: frozenset(Right),
    ConsoleRole.AUDITOR: frozenset({Right.READ, Right.AUDIT}),
}
ACTING: Final = frozenset({Right.APPROVE, Right.OPERATE})
"""What is done in somebody's name, who must be an operator of the register for it."""

_OF_PRINCIPAL: Final[Mapping[Role, frozenset[Right]]] = {
    Role.OPERATOR: frozenset(Right),
    Role.AUDITOR: RIGHTS[ConsoleRole.AUDITOR],
}


def rights_of(roles: Iterable[ConsoleRole]) -> frozenset[Right]:
    """Return the rights that roles give together."""
    return frozenset[Right]().union(*(RIGHTS[role] for role in roles))


def of_principal(role: Role) -> frozenset[Right]:
    """Return the most that a principal of the register may do at the console."""
    return _OF_PRINCIPAL.get(role, frozenset())
