"""Alerts and dashboard: they ask for what a broker shows, and each fires when it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any, Final

import pytest
import tomli_w
import yaml

from broker.cli.main import build
from broker.config import parse_config
from broker.dev.config import FILE
from tests.admin import running
from tests.deploy.alerting import (
    DASHBOARD,
    DEPLOY,
    FIRING,
    RULES,
    SPECS,
    healthy,
    rules,
    selectors,
    unknown_labels,
)
from tests.exposed import Exposed
from tests.issuers import Answer
from tests.loopback import Loopback
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

ALERTS: Final = {rule.alert: rule for rule in rules()}
RUNBOOK: Final = DEPLOY.parent / "docs/operations/alerts.md"
EMPTY: Final = {"BrokerDown", "BrokerAbsent"}
"""What is about nothing being there is no business of a broker's own metrics."""


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


QUERIES: Final = {
    **{name: rule.expr for name, rule in ALERTS.items()},
    **{
        f"{panel['title']}-{target['refId']}": target["expr"]
        for panel in panels()
        for target in panel.get("targets", [])
    },
}


@pytest.fixture
async def live(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[Exposed]:
    """What a broker with all its parts shows, after a credential has lived and died."""
    with Loopback(lambda _: Answer(status=204)) as receiver:
        key = tmp_path / "hooks-secret"
        key.write_text("whsec_bXktc2VjcmV0LW9mLWEtdGVzdC0wMTIzNDU2Nzg5")
        hook = {"kind": "webhook", "url": receiver.url, "secret_file": str(key)}
        audit = {"sinks": [{"name": "siem", **hook}]}
        file = engines[0].data / FILE
        document: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
        document |= {"audit": audit, "channels": [{"name": "people", **hook}]}
        world = World(engines[0].issuer, parse_config(tomli_w.dumps(document), file))
        await world.empty()
        async with running(world):
            task = await world.open()
            await world.grant(task)
            await world.complete(task)
            await world.exchange("report-writer")  # refused, as it names no task

            async def shown() -> Exposed | None:
                answer = await world.http.get("/metrics")
                found = Exposed(answer.text, answer.headers["content-type"])
                settled = found.value("audit_log_records") and not found.value(
                    "audit_waiting_events", sink="siem"
                )
                dead = found.value("live_grants", backend="vault", power="read") == 0
                return found if settled and dead else None

            found = await wait_until(shown, "all is in the log, and told")
            assert found is not None
            yield found
        await world.http.aclose()


# ── they ask for what there is ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_asks_for_metrics_and_labels_that_there_are(name: str) -> None:
    expr = QUERIES[name]
    asked = [series for series, _ in selectors(expr)]
    assert set(asked) <= set(SPECS), name
    assert not unknown_labels(expr), name


async def test_a_live_broker_shows_all_that_is_asked_for(live: Exposed) -> None:
    there: dict[str, set[str]] = {}
    for series, labels in live.samples:
        there.setdefault(series, set()).update(label for label, _ in labels)
    asked = {series for expr in QUERIES.values() for series, _ in selectors(expr)}
    # What nothing of this life has led to, and isn't there as zero before.
    never = {"broker_abandoned_grants_total", "broker_quota_refusals_total"}
    never |= {"broker_ledger_errors_total"}
    assert asked - never <= set(there)
    for series in asked - never:
        assert set(SPECS[series].labels) <= there[series], series


async def test_what_is_an_increase_the_first_time_is_there_as_zero(live: Exposed) -> None:
    for rule in ALERTS.values():
        for part in re.findall(r"increase\((broker_[^\[]*)\[", rule.expr):
            ((series, matchers),) = selectors(part)
            exact = {label: value for label, how, value in matchers if how == "="}
            if rule.alert == "BrokerApprovalsWait":
                continue  # there it is something that clears the alert
            assert any(
                name == series and exact.items() <= dict(labels).items()
                for name, labels in live.samples
            ), rule.alert


# ── they say what to do ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule.labels == {"severity": rule.labels["severity"]}
    assert rule.labels["severity"] in {"critical", "warning"}
    assert rule.annotations["summary"].endswith(".")
    page, _, anchor = rule.annotations["runbook_url"].partition("#")
    text = (DEPLOY.parent / page).read_text("utf-8")
    assert anchor == alert.lower()
    assert f"\n### {alert}\n" in text


def test_the_page_has_a_heading_for_each_alert_and_no_others() -> None:
    assert set(re.findall(r"^### (\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)) == set(ALERTS)


def test_the_commands_that_the_page_names_exist() -> None:
    app: Any = build()
    named = re.findall(r"`broker ([a-z -]+?)(?= --|`| grt_)", RUNBOOK.read_text("utf-8"))
    assert len(named) > 10
    for command in set(named):
        found = app
        for word in command.split():
            assert word in found, f"broker {command}"
            found = found[word]


# ── they fire ────────────────────────────────────────────────────────────────────────────────────


def promtool(folder: Path, *words: str) -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool isn't here: install Debian's package prometheus")
    ran = subprocess.run(
        [found, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def case(
    series: Mapping[str, str], expected: Mapping[str, list[dict[str, str]]], *at: str
) -> dict[str, Any]:
    """Series to play, and with which labels each of some alerts then fires."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": when,
                "alertname": alert,
                "exp_alerts": [
                    {"exp_labels": {**ALERTS[alert].labels, **found}} for found in labels
                ],
            }
            for alert, labels in expected.items()
            for when in at
        ],
    }


def play(folder: Path, cases: Mapping[str, tuple[list[str], dict[str, Any]]]) -> None:
    """Play cases, each by a name and with its alerts, without what these say in words."""
    document: Any = yaml.safe_load(RULES.read_text("utf-8"))
    found = {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}
    for rule in found.values():
        del rule["annotations"]
    for name, (alerts, played) in cases.items():
        groups = [{"name": name, "rules": [found[alert] for alert in alerts]}]
        (folder / f"{name}.rules.yml").write_text(json.dumps({"groups": groups}))
        tests = {"rule_files": [f"{name}.rules.yml"], "tests": [played]}
        (folder / f"{name}.yml").write_text(json.dumps(tests))
    promtool(folder, "test", "rules", *(f"{name}.yml" for name in cases))


def test_there_is_data_for_each_alert() -> None:
    assert list(FIRING) == list(ALERTS)
    for alert, case in FIRING.items():
        for series in case.series:
            ((name, _),) = selectors(series) if alert != "BrokerDown" else (("up", []),)
            assert name in SPECS or alert in EMPTY


def test_the_rules_are_rules(tmp_path: Path) -> None:
    assert f"{len(ALERTS)} rules found" in promtool(tmp_path, "check", "rules", str(RULES))


def test_each_fires_on_data_made_for_it(tmp_path: Path) -> None:
    play(
        tmp_path,
        {
            alert: ([alert], case(fires.series, {alert: [fires.labels]}, fires.at))
            for alert, fires in FIRING.items()
        },
    )


async def test_none_fires_while_all_is_well(live: Exposed, tmp_path: Path) -> None:
    series = {'up{job="broker", instance="b1"}': "1x80", **healthy(live)}
    well = case(series, {alert: [] for alert in ALERTS}, "10m", "75m")
    play(tmp_path, {"well": (list(ALERTS), well)})
