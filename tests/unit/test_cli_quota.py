"""``broker quota list``: every limit on a line, and what is reached stands out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run
    from tests.unit.fake_broker import FakeBroker

ROWS: Final[list[dict[str, Any]]] = [
    {"limit": "issue_rate_per_agent", "name": "a", "most": 60, "window": "1m", "used": 7},
    {"limit": "max_live_per_agent", "name": "a", "most": 2, "window": None, "used": 2},
]


def test_the_list(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/quotas", 200, {"items": ROWS, "next": None})

    shown = run("quota", "list")

    assert shown.code == 0
    assert re.search(r"issue_rate_per_agent +a +7 +60/1m *\n", shown.out)
    assert re.search(r"max_live_per_agent +a +2 +2 +reached\n", shown.out)
    assert run("quota", "list", "--json").json == {"items": ROWS, "next": None}


def test_without_quotas_it_says_so(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/quotas", 200, {"items": [], "next": None})

    assert run("quota", "list").err == "No quotas are configured.\n"
