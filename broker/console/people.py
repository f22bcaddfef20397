"""From a proved person to what they may do here, and to the caller that the broker knows them as.

Two things say that together. The groups of the identity provider say which roles somebody has; the
register of principals says who they are to the broker. Who only reads needs the first. Who acts,
approves or revokes, is an operator of the register: there they have an owner and can be suspended,
and there approvals look for the people whose yes counts. The lesser of the two holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from broker.access import Caller, person_name
from broker.catalog import Principal, PrincipalState
from broker.console.rights import ACTING, ConsoleRole, Right, of_principal, rights_of
from broker.errors import AccessDenied
from broker.identity.models import Role

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from broker.access import Directory
    from broker.catalog import Catalog
    from broker.identity.models import Identity

BY_OIDC: Final = "console:oidc"
BY_LINK: Final = "console:link"
_MAX_GROUPS: Final = 1000
_MAX_NAME: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who has just signed in: ``key`` is who they are to whoever vouches for them.

    ``principal`` is their name in the register, or empty.
    """

    key: str
    shown: str
    principal: str
    method: str
    rights: frozenset[Right]


class People:
    """Knows who may come in."""

    def __init__(
        self,
        catalog: Catalog,
        directory: Directory,
        *,
        groups_claim: str,
        roles: Mapping[ConsoleRole, Collection[str]],
    ) -> None:
        """``roles`` are the groups that give each role; ``groups_claim`` names a person's."""
        self._catalog = catalog
        self._directory = directory
        self._claim = groups_claim
        self._roles = roles

    async def by_groups(self, identity: Identity) -> Person:
        """Return somebody whom the identity provider vouches for.

        Raises:
            AccessDenied: none of their groups has a role here, or they were suspended.
        """
        groups = _groups(identity.claims.get(self._claim))
        rights = rights_of(role for role, names in self._roles.items() if groups & set(names))
        if not rights:
            raise AccessDenied("None of your groups may use the console: ask who runs the broker.")
        principal = await self._principal(identity)
        if principal is not None:
            rights &= of_principal(principal.role)
        return self._person(identity, principal, BY_OIDC, rights - self._unnamed(principal))

    async def by_link(self, identity: Identity) -> Person:
        """Return the principal that a link was made for.

        Raises:
            AccessDenied: it is nobody who may use the console.
        """
        principal = await self._principal(identity)
        rights = of_principal(principal.role) if principal is not None else frozenset[Right]()
        if not rights:
            raise AccessDenied("The link is for nobody who may use the console.")
        return self._person(identity, principal, BY_LINK, rights)

    def caller(self, principal: str, key: str, method: str, rights: frozenset[Right]) -> Caller:
        """Return who a person is to the broker now, with no more power than their rights.

        Raises:
            AccessDenied: they were suspended or retired since, or aren't an operator any more.
        """
        if not principal:
            known = Principal(name=key, role=Role.AUDITOR, owner=key)
            return Caller(principal=known, method=method)
        found = self._catalog.principals.get(principal)
        if found is None or found.state is not PrincipalState.ACTIVE:
            raise AccessDenied(f"{principal} may not act at the moment: ask an operator.")
        if not rights <= of_principal(found.role):
            raise AccessDenied(f"{principal} may do less than before: sign in again.")
        role = Role.OPERATOR if rights & ACTING else Role.AUDITOR
        return Caller(principal=replace(found, role=role), method=method)

    async def _principal(self, identity: Identity) -> Principal | None:
        principal = self._catalog.principal_of(identity)
        if principal is None and await self._directory.refresh():
            principal = self._catalog.principal_of(identity)
        if principal is None:
            return None
        if principal.state is not PrincipalState.ACTIVE:
            raise AccessDenied(f"{principal.name} is {principal.state}: ask an operator.")
        self._directory.used(principal.name)
        return principal

    @staticmethod
    def _unnamed(principal: Principal | None) -> frozenset[Right]:
        return ACTING if principal is None else frozenset()

    @staticmethod
    def _person(
        identity: Identity, principal: Principal | None, method: str, rights: frozenset[Right]
    ) -> Person:
        if not rights:
            raise AccessDenied("You may do nothing here: your groups and your principal differ.")
        claimed: Any = identity.claims.get("name") or identity.claims.get("preferred_username")
        key = person_name(identity)
        shown = principal.name if principal is not None else key
        if isinstance(claimed, str) and claimed.isprintable():
            shown = claimed[:_MAX_NAME]
        return Person(
            key=key,
            shown=shown,
            principal=principal.name if principal is not None else "",
            method=method,
            rights=rights,
        )


def _groups(claim: object) -> frozenset[str]:
    """Read the groups of an ID token; what isn't a list of texts, or one text, is no group."""
    if isinstance(claim, str):
        return frozenset((claim,))
    if not isinstance(claim, list):
        return frozenset()
    listed = cast("list[object]", claim)[:_MAX_GROUPS]
    return frozenset(group for group in listed if isinstance(group, str))
