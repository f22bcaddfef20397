"""What the benchmark says: its rows, its files, its charts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema_rs
import pytest

from broker.dev.bench import chart, machine, report
from broker.dev.bench.figures import Rounds
from broker.dev.bench.growth import Curve
from broker.dev.bench.running import MEASURES
from broker.dev.bench.table import TABLE, Goal, Result, results

DOCS = Path(__file__).parents[2] / "docs" / "bench"
SVG = "{http://www.w3.org/2000/svg}"
NUMBER = {"type": ["number", "null"]}
SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": len(TABLE),
    "maxItems": len(TABLE),
    "items": {
        "type": "object",
        "properties": {
            "row": {"enum": [goal.row for goal in TABLE]},
            "ours": NUMBER,
            "reference": NUMBER,
            "unit": {"type": "string"},
            "ratio": NUMBER,
            "target": {"type": "number"},
            "better": {"enum": ["higher", "lower"]},
        },
        "required": ["row", "ours", "reference", "unit", "ratio", "target", "better"],
        "additionalProperties": False,
    },
}
MACHINE = {"cores": "2", "cpu": "Any CPU", "memory": "8 GiB", "kernel": "Linux 6", "python": "3.12"}


def goal(better: str = "lower", target: float = 1.0) -> Goal:
    return Goal("p", "row", "ms", target, "higher" if better == "higher" else "lower", "reference")


def test_these_are_the_rows() -> None:
    """As they have to be reached; whoever changes one changes what is promised."""
    assert [(g.row, g.better, g.target) for g in TABLE] == [
        ("tracked token exchange, throughput", "higher", 2.0),
        ("per-tool-call decision over HTTP, throughput", "higher", 0.4),
        ("dynamic database credential through the broker, p50", "lower", 1.25),
        ("dynamic database credential through the broker, throughput", "higher", 0.9),
        ("task complete → credential refused by PostgreSQL, p50", "lower", 1.3),
        ("a task with 50 database grants ends → all 50 refused", "lower", 0.5),
        ("1,000 PostgreSQL grants expiring at once → all dead", "lower", 0.33),
        ("memory per live grant in Redis", "lower", 0.12),
        ("start with 100,000 live grants until first grant", "lower", 1.2),
        ("issue p99 with 100,000 live grants", "lower", 1.2),
    ]


def test_every_row_has_a_part_that_measures_it_and_every_part_a_row() -> None:
    assert {g.part for g in TABLE} == set(MEASURES)


def test_the_page_about_the_benchmark_has_every_row_with_its_target() -> None:
    page = (DOCS / "README.md").read_text("utf-8")
    for g in TABLE:
        sign = "≥" if g.better == "higher" else "≤"
        assert re.search(rf"\| {re.escape(g.row)} \|.*\| {sign} {g.target:g} \|", page), g.row


@pytest.mark.parametrize(
    ("better", "ours", "reached"),
    [
        ("lower", 9, True),
        ("lower", 10, True),
        ("lower", 11, False),
        ("higher", 9, False),
        ("higher", 10, True),
        ("higher", 11, True),
    ],
)
def test_reached_is_at_the_target_or_better(better: str, ours: float, reached: bool) -> None:
    assert Result(goal(better), Rounds([ours], [10])).reached is reached


def test_what_was_not_measured_is_a_row_that_failed() -> None:
    row, other = TABLE[2].row, TABLE[3].row
    found = results("credential", {row: Rounds([1], [2])})
    assert [(r.goal.row, r.error) for r in found] == [(row, ""), (other, "it was not measured")]
    failed = results("credential", "NotStarted: no")
    assert [r.row()["ratio"] for r in failed] == [None, None]
    assert not any(r.reached for r in failed)


def texts(drawn: ET.ElementTree[ET.Element]) -> list[str]:
    return [text.text or "" for text in drawn.iter(f"{SVG}text")]


def some_results() -> list[Result]:
    made = [Result(g, Rounds([3.0, 4.0], [2.0, 2.5])) for g in TABLE[1:]]
    return [Result(TABLE[0], error="Refused: <it> & 'that'"), *made]


def test_the_files_of_a_run(tmp_path: Path) -> None:
    report.keep_results(tmp_path, some_results(), "quick", MACHINE)
    rows = json.loads((tmp_path / "latest.json").read_text("utf-8"))
    jsonschema_rs.validate(SCHEMA, rows)
    assert all(r["ratio"] == r["ours"] / r["reference"] for r in rows if r["ratio"] is not None)
    said = texts(ET.parse(tmp_path / "latest.svg"))  # noqa: S314  our own
    assert {g.row for g in TABLE} <= set(said)
    assert "failed" in said
    assert any("2 cores of Any CPU" in text for text in said)
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.skipif(not (DOCS / "latest.json").exists(), reason="nothing was measured yet")
def test_the_committed_figures_fit_the_schema_and_the_table() -> None:
    rows = json.loads((DOCS / "latest.json").read_text("utf-8"))
    jsonschema_rs.validate(SCHEMA, rows)
    assert [r["row"] for r in rows] == [g.row for g in TABLE]


@pytest.mark.parametrize(
    ("ratio", "target", "better", "share"),
    [(1.0, 1.25, "lower", 0.8), (2.5, 1.25, "lower", 2), (4.0, 2.0, "higher", 0.5)],
)
def test_how_much_of_what_is_allowed(
    ratio: float, target: float, better: str, share: float
) -> None:
    assert chart.share(ratio, target, better) == pytest.approx(share)


def test_the_chart_of_curves_is_well_formed_and_has_each(tmp_path: Path) -> None:
    curves = [
        Curve("a & b", "live grants", "ms", {"p50": [(0, 1), (1e3, 2), (1e6, 3)], "p99": []}),
        Curve("flat", "replicas", "per s", {"rate": [(1, 5), (2, 5)]}, "a note"),
        Curve("nothing", "x", "ms", {"p50": [(0, 1)]}),
    ]
    report.keep_curves(tmp_path, curves, MACHINE)
    kept = json.loads((tmp_path / "growth.json").read_text("utf-8"))
    assert kept["machine"] == MACHINE
    assert kept["curves"][0]["lines"]["p50"]["points"] == [[0, 1], [1e3, 2], [1e6, 3]]
    assert kept["curves"][1]["lines"]["rate"]["exponent"] == 0
    drawn = ET.parse(tmp_path / "growth.svg")  # noqa: S314  our own
    assert {"a & b", "flat", "nothing", "1k", "1M"} <= set(texts(drawn))
    assert len(list(drawn.iter(f"{SVG}circle"))) == 4


def test_the_machine_is_told_without_names_of_hosts_and_paths() -> None:
    about = machine.hardware() | {"valkey": "9.0", "openbao": "2.5", "postgresql": "18"}
    said = machine.sentence(about)
    assert "cores of" in said
    assert "Valkey 9.0, OpenBao 2.5, PostgreSQL 18" in said
    assert "/" not in about["kernel"]
