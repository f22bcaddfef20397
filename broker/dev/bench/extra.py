"""Measurements besides the table's: what isn't a goal, and still good to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.dev.bench import cascade, outage, policies
from broker.dev.bench.figures import percentile
from broker.dev.bench.stand import CONFIG, DEPTH, Stand
from broker.dev.engines.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Line:
    """One figure beside another; nothing has to be reached."""

    row: str
    ours: float
    reference: float
    unit: str

    @property
    def ratio(self) -> float:
        """Ours to the reference."""
        return self.ours / self.reference


def chains(say: Callable[[str], None]) -> list[Line]:
    """How long a chain of tasks takes to die, against revoking as many leases directly."""
    with Stand(CONFIG) as stand:
        say("as many leases, directly")
        reference = cascade.theirs(stand.vault)
        say("the chain")
        took = cascade.ours(stand)
    name = f"chain of {DEPTH} with {cascade.GRANTS} grants: root to all dead"
    return [Line(name, took, reference, "s")]


def many_policies(say: Callable[[str], None]) -> list[Line]:
    """What a decision costs by more policies, against one by few."""
    lines: list[Line] = []
    least = policies.COUNTS[0]
    few = policies.alone(least)
    for count in policies.COUNTS:
        say(f"{count} policies")
        found = few if count == least else policies.alone(count)
        for percent, took, base in zip((50, 99), found, few, strict=True):
            name = f"one decision by {count} policies and ours, p{percent}"
            lines.append(Line(name, took, base, "ms"))
    return lines


def backend_away(say: Callable[[str], None]) -> list[Line]:
    """Seconds until grants of three backends are dead, one of which is away for a while.

    The reference is the time that as many leases take that are revoked directly; for issuing, how
    long it takes when nothing else goes on.
    """
    with Stand(outage.CONFIG) as stand:
        cache = outage.Cache(stand.data / "cache", free_port()).start()
        try:
            cache.mount(stand.vault)
            say(f"{outage.GRANTS} grants of three backends")
            seen = outage.measure(stand, cache)
            some = outage.PER_TASK
            third = cascade.theirs(stand.vault, some, f"cache/creds/{outage.CACHE}") / some
        finally:
            cache.stop()
        say("as many leases, directly")
        # Of the two others the half are tokens, which nothing stands behind but the ledger.
        one = cascade.theirs(stand.vault) / cascade.GRANTS / 2
    others = seen.grants - seen.third
    name = f"{others} grants of two backends expire, a third away: to all dead"
    back = f"the third is back: to its {seen.third} dead"
    before, meanwhile = (percentile(t, 99) for t in (seen.before_ms, seen.meanwhile_ms))
    return [
        Line(name, seen.others_dead_s, one * others, "s"),
        Line(back, seen.third_dead_s, third * seen.third, "s"),
        Line("issuing meanwhile, p99", meanwhile, before, "ms"),
    ]
