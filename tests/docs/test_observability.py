"""The page on metrics lists those that there are, with their labels and types, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from broker import measures

ROOT: Final = Path(__file__).parents[2]
RULES: Final = (ROOT / "deploy/prometheus/broker.rules.yml").read_text("utf-8")
PAGE: Final = (ROOT / "docs/operations/observability.md").read_text("utf-8")
ROW: Final = re.compile(
    r"^\| `(broker_[a-z_]+)` \| ([a-z]+)[^|]*\|([^|]*)\|([^|]*)\|", re.MULTILINE
)
EXPOSED: Final = {
    **{f"broker_{name}_total": ("counter", spec) for name, spec in measures.COUNTERS.items()},
    **{f"broker_{name}": ("histogram", spec) for name, spec in measures.HISTOGRAMS.items()},
    **{f"broker_{name}": ("gauge", spec) for name, spec in measures.GAUGES.items()},
}
ROWS: Final = {name: (kind, labels, about) for name, kind, labels, about in ROW.findall(PAGE)}


def test_every_metric_is_on_the_page_and_the_other_way_round() -> None:
    assert set(ROWS) == set(EXPOSED)
    assert len(ROW.findall(PAGE)) == len(ROWS)


@pytest.mark.parametrize("name", EXPOSED)
def test_its_row_says_what_it_is(name: str) -> None:
    kind, labels, about = ROWS[name]
    expected, spec = EXPOSED[name]
    assert kind == expected
    assert tuple(re.findall(r"`([a-z]+)`", labels)) == spec.labels
    assert about.strip()


def test_each_thing_to_be_woken_for_has_a_rule() -> None:
    urgent = [name for name in ROWS if re.search(rf"`{name}` .*at once", PAGE)]
    assert len(urgent) >= 3
    assert all(name in RULES for name in urgent)
