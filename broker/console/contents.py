"""What the console consists of: a line for each of its parts, in the order of the navigation."""

from __future__ import annotations

from typing import Final, NamedTuple

from broker.console import (
    agents,
    approvals,
    audit,
    grants,
    now,
    owners,
    policy,
    reviews,
    revoke,
    sign_in,
    tasks,
)
from broker.console.rights import Right
from broker.console.routing import Pages


class Chapter(NamedTuple):
    """Pages about one thing; ``path`` is their first, and ``needs`` who finds it in the navigation.

    Without a ``label`` they are in no navigation.
    """

    label: str
    path: str
    needs: Right
    pages: Pages


CHAPTERS: Final = (
    Chapter("Now", "/", Right.READ, now.pages),
    Chapter("Tasks", "/tasks", Right.READ, tasks.pages),
    Chapter("", "/grants", Right.READ, grants.pages),
    Chapter("Approvals", "/approvals", Right.READ, approvals.pages),
    Chapter("Revoke", "/revoke", Right.OPERATE, revoke.pages),
    Chapter("Agents", "/agents", Right.READ, agents.pages),
    Chapter("", "/owners", Right.READ, owners.pages),
    Chapter("Audit", "/audit", Right.AUDIT, audit.pages),
    Chapter("Policy", "/policy", Right.READ, policy.pages),
    Chapter("Reviews", "/reviews", Right.AUDIT, reviews.pages),
    Chapter("", "/sign-in", Right.READ, sign_in.pages),
)
