"""What watches over agents: reports of risk, effective power, chains, power that nobody uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.ledger.signals import SignalTable
from broker.policing import Policing
from broker.reach import Reach
from broker.reports import Reports
from broker.signals import Detections
from broker.trees import Trees
from broker.watch import Watch

if TYPE_CHECKING:
    from broker.ledger.connection import Connection
    from broker.metrics import Metrics
    from broker.pipeline import Pipeline
    from broker.standing import Standing


@dataclass(frozen=True, slots=True)
class Oversight:
    """Its parts. ``watch`` decides live grants again, whatever the occasion."""

    watch: Watch
    detections: Detections
    reach: Reach
    trees: Trees
    reports: Reports
    policing: Policing

    @classmethod
    def over(
        cls,
        pipeline: Pipeline,
        standing: Standing,
        connection: Connection,
        metrics: Metrics,
        *,
        follow: bool,
    ) -> Oversight:
        """Watch over what a pipeline does; ``follow`` policies that change in their folder."""
        watch, table = Watch(pipeline), SignalTable(connection)
        reach = Reach(pipeline)
        return cls(
            watch=watch,
            detections=Detections(
                table=table, watch=watch, pipeline=pipeline, roster=standing.roster
            ),
            reach=reach,
            trees=Trees(pipeline, reach),
            reports=Reports(standing=standing, pipeline=pipeline),
            policing=Policing(pipeline, watch, metrics, follow=follow),
        )
