"""``[review]``: when somebody must look at a principal again."""

from __future__ import annotations

from broker.config.fields import DurationMs  # noqa: TC001  pydantic reads the annotations below
from broker.config.table import Table, written


class ReviewSection(Table):
    """``[review]``: what becomes of principals that nobody uses, or looks at.

    One not used for ``unused_after``, or past its review date, is listed as due; with ``suspend``
    it is suspended ``grace`` later.
    """

    unused_after: DurationMs = written("90d")
    grace: DurationMs = written("14d")
    suspend: bool = True
