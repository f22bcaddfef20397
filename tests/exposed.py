"""What is shown at ``/metrics``, read with Prometheus's own parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import parser as text
from prometheus_client.openmetrics import parser as openmetrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from broker.metrics import Metrics

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
Series = tuple[str, tuple[tuple[str, str], ...]]


class Exposed:
    """One scrape: its families, and each sample by its name and labels."""

    def __init__(self, body: str, media_type: str) -> None:
        library: Any = (
            openmetrics if media_type.startswith("application/openmetrics-text") else text
        )
        found: Iterable[Metric] = library.text_string_to_metric_families(body)
        self.body = body
        self.families = list(found)
        self.samples: dict[Series, float] = {
            (s.name, tuple(sorted(s.labels.items()))): s.value
            for family in self.families
            for s in family.samples
            if not s.name.endswith("_created")
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one sample, or None if there is none."""
        return self.samples.get((f"broker_{name}", tuple(sorted(labels.items()))))

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """All samples of a name, by the values of their labels in the order of those' names."""
        return {
            tuple(value for _, value in labels): found
            for (sample, labels), found in self.samples.items()
            if sample == f"broker_{name}"
        }


def exposed(metrics: Metrics, accept: str = "") -> Exposed:
    """What these metrics show."""
    body, media_type = metrics.exposition(accept)
    return Exposed(body.decode(), media_type)
