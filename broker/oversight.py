"""What watches over agents: reports of risk, effective power, chains, power that nobody uses.

And over what the ledger says: whether it is what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.ledger.signals import SignalTable
from broker.policing import Policing
from broker.reach import Reach
from broker.reconcile.desk import ReconcileDesk, ReconcileRules
from broker.reports import Reports
from broker.signals import Detections
from broker.trees import Trees
from broker.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.backends.vault_look import VaultLook
    from broker.ledger.connection import Connection
    from broker.metrics import Metrics
    from broker.pipeline import Pipeline
    from broker.standing import Standing
    from broker.targets.protocol import Target


@dataclass(frozen=True, slots=True)
class Oversight:
    """Its parts. ``watch`` decides live grants again, whatever the occasion."""

    watch: Watch
    detections: Detections
    reach: Reach
    trees: Trees
    reports: Reports
    policing: Policing
    reconcile: ReconcileDesk

    @classmethod
    def over(
        cls,
        pipeline: Pipeline,
        standing: Standing,
        connection: Connection,
        metrics: Metrics,
        *,
        follow: bool,
        look: VaultLook | None = None,
        targets: Sequence[Target] = (),
        rules: ReconcileRules | None = None,
    ) -> Oversight:
        """Watch over what a pipeline does; ``follow`` policies that change in their folder.

        ``look``, ``targets`` and ``rules`` are for reconciling.
        """
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
            reconcile=ReconcileDesk(
                pipeline,
                connection,
                look=look,
                targets=targets,
                rules=rules or ReconcileRules(),
                metrics=metrics,
            ),
        )

    async def states(self) -> dict[str, str]:
        """Say in a word how its parts are.

        Raises:
            LedgerUnavailable: nobody knows.
        """
        bad = self.policing.problem
        return {
            "policy": "warning: the policies in their folder can't be used" if bad else "ok",
            "reconcile": await self.reconcile.state(),
        }
