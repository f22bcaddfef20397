"""``[quotas]``: how many live credentials there may be, and how often one may be issued."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from broker.catalog import Rate
from broker.config.fields import Count, Name
from broker.config.problems import Fault, shown, type_word
from broker.config.table import Table
from broker.durations import format_duration, parse_duration

_HOW: Final = 'write how many, and in which span: "60/1m", "5/10s"'
_SHORTEST_MS: Final = 1000
_LONGEST_MS: Final = 86_400_000
_MOST: Final = 1_000_000


def _rate(value: object) -> Rate:
    if not isinstance(value, str):
        raise Fault(f"must be a rate in quotes, not {type_word(value)}", _HOW)
    match = re.fullmatch(r"([1-9][0-9]{0,6})/([0-9a-z]{2,32})", value)
    try:
        window_ms = parse_duration(match[2]) if match else 0
    except ValueError:
        window_ms = 0
    if match is None or window_ms == 0:
        raise Fault(f"{shown(value)} is not a rate", _HOW)
    if not _SHORTEST_MS <= window_ms <= _LONGEST_MS or int(match[1]) > _MOST:
        longest = format_duration(_LONGEST_MS)
        raise Fault(
            f"{shown(value)} is out of bounds",
            f'write from 1 to {_MOST}, in a span from "1s" to "{longest}"',
        )
    return Rate(int(match[1]), window_ms)


IssueRate = Annotated[Rate, BeforeValidator(_rate)]
"""A rate as people write it: ``"60/1m"``."""


class BackendQuota(Table):
    """``[quotas.backends.NAME]``: what all credentials of one backend are bounded by."""

    max_live: Count | None = None
    issue_rate: IssueRate | None = None


class QuotasSection(Table):
    """``[quotas]``: bounds of each agent and each orchestrator, and of backends by name.

    None by default. An orchestrator's are those of all tasks in the chains it opened. Those of a
    capability are among its own keys.
    """

    max_live_per_agent: Count | None = None
    max_live_per_orchestrator: Count | None = None
    issue_rate_per_agent: IssueRate | None = None
    issue_rate_per_orchestrator: IssueRate | None = None
    backends: dict[Name, BackendQuota] = Field(default_factory=dict[Name, BackendQuota])
