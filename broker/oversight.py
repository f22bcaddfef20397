"""What watches over agents: reports of risk, effective power, power that nobody uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.ledger.signals import SignalTable
from broker.reach import Reach
from broker.reports import Reports
from broker.signals import Detections
from broker.watch import Watch

if TYPE_CHECKING:
    from broker.ledger.connection import Connection
    from broker.pipeline import Pipeline
    from broker.standing import Standing


@dataclass(frozen=True, slots=True)
class Oversight:
    """Its parts. ``watch`` decides live grants again, whatever the occasion."""

    watch: Watch
    detections: Detections
    reach: Reach
    reports: Reports

    @classmethod
    def over(cls, pipeline: Pipeline, standing: Standing, connection: Connection) -> Oversight:
        """Watch over what a pipeline does."""
        watch, table = Watch(pipeline), SignalTable(connection)
        return cls(
            watch=watch,
            detections=Detections(
                table=table, watch=watch, pipeline=pipeline, roster=standing.roster
            ),
            reach=Reach(pipeline),
            reports=Reports(standing=standing, pipeline=pipeline),
        )
