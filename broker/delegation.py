"""Delegation only ever shrinks: a child never has more than its parent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """What a task may do: capability names, and until when (epoch milliseconds)."""

    capabilities: frozenset[str]
    expires_at: int


def attenuate(parent: Scope, ask: Scope) -> Scope:
    """Return what a child gets when it asks for ``ask`` below ``parent``.

    Never wider than the parent in anything, and associative along a chain.
    """
    return Scope(parent.capabilities & ask.capabilities, min(parent.expires_at, ask.expires_at))


def widens(parent: Scope, capabilities: frozenset[str]) -> bool:
    """Say whether a child asks for a capability its parent doesn't have."""
    ask = Scope(capabilities, parent.expires_at)
    return attenuate(parent, ask) != ask
