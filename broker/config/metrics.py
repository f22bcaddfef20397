"""``[metrics]``: whether there is a page for Prometheus, and who may see it."""

from __future__ import annotations

from broker.config.fields import ExistingFile  # noqa: TC001  pydantic reads the annotations below
from broker.config.table import Table


class MetricsSection(Table):
    """``[metrics]``: ``GET /metrics``, for all, or for who sends what ``token_file`` holds."""

    enabled: bool = True
    token_file: ExistingFile | None = None
