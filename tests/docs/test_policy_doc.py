"""``docs/policy.md``: its examples are used, and what it claims is shown by tests that exist."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.config import parse_config
from broker.policy.case_file import read_cases
from broker.policy.cases import run_cases
from broker.policy.cedar import CedarPolicies, Schema, Source
from broker.policy.folder import default_sources
from broker.policy.lint import Level, lint
from tests.docs.blocks import DOCS
from tests.unit.test_policy_cases import RULES

if TYPE_CHECKING:
    from pathlib import Path

    from broker.catalog import Catalog

ROOT: Final = DOCS.parent
TEXT: Final = (DOCS / "policy.md").read_text("utf-8")
CASES: Final = "[[cases]]"
ENGINES: Final = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
[vault]
address = "https://vault.example"
auth = "token_file"
token_file = "token"
"""
REGISTERED: Final = """\
[[principals]]
name = "incident-bot"
role = "agent"
owner = "operations@example.com"
identity = { jwks_file = "bot.json" }
capabilities = ["orders-write"]
[[principals]]
name = "anomaly-detector"
role = "resource_server"
owner = "security@example.com"
identity = { jwks_file = "detector.json" }
resource = "https://detector.example.com"
"""
NOT_COVERED: Final = "**not covered**"
FRAMEWORKS: Final = (
    "OWASP Top 10 for Agentic Applications",
    "OWASP Non-Human Identities",
    "CSA MAESTRO",
    "MITRE ATLAS",
    "NIST AI RMF",
)


def written(kind: str) -> list[str]:
    return re.findall(rf"(?ms)^```{kind}\n(.*?)^```", TEXT)


def section(heading: str) -> str:
    """What stands under a heading that begins so, up to the next one."""
    found = re.search(rf"(?ms)^## {re.escape(heading)}.*?\n(.*?)(?=^##? |\Z)", TEXT)
    assert found is not None, heading
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    heads = {i - 1 for i, row in enumerate(cells) if set(row[0]) <= set("-|")}
    return [row for i, row in enumerate(cells) if i not in heads and i - 1 not in heads]


def files_of(folder: Path) -> None:
    for name in ("token", "bot.json", "detector.json"):
        (folder / name).write_text("{}")


def configured(folder: Path) -> Catalog:
    (own,) = [text for text in written("toml") if "[[capabilities]]" in text]
    (folder / "policies").mkdir()
    files_of(folder)
    return parse_config(ENGINES + REGISTERED + own, folder / "config.toml").catalog()


def examples() -> Source:
    """The policies that the page shows as one's own; the first block is about annotations."""
    _, own = written("cedar")
    return Source("own.cedar", own)


# ── the examples ─────────────────────────────────────────────────────────────────────────────────


def test_the_policies_are_used_with_the_tools_and_nothing_about_them_is_doubtful(
    tmp_path: Path,
) -> None:
    found = lint([*default_sources(), examples()], configured(tmp_path))
    assert found == ()


def test_the_annotations_are_those_there_are() -> None:
    annotated, _ = written("cedar")
    policies = CedarPolicies([Source("page", annotated)], Schema())
    (fact,) = policies.facts.values()

    assert fact.name == "deploys"
    assert len(fact.obligations.as_json()) == 8, "all of them"


def test_the_cases_are_as_the_page_says(tmp_path: Path) -> None:
    (text,) = [text for text in written("toml") if CASES in text]
    catalog = configured(tmp_path)
    results = run_cases(
        read_cases([Source("page", text)]), [*default_sources(), examples()], catalog
    )

    assert [result.problems for result in results.failed] == []
    own = {
        fact.name
        for fact in CedarPolicies([examples()], Schema(catalog.tools.values())).facts.values()
    }
    assert not own & set(results.undecided), "each policy of the page is shown by a case"


@pytest.mark.parametrize("about", ["policy.observe", "policy.remote"])
def test_the_configuration_is_one(tmp_path: Path, about: str) -> None:
    (text,) = [text for text in written("toml") if f"[{about}]" in text]
    (tmp_path / "policies-next").mkdir()
    files_of(tmp_path)

    section = parse_config(ENGINES + text, tmp_path / "config.toml").policy
    key = about.partition(".")[2]
    assert tomllib.loads(text)["policy"][key]
    assert getattr(section, key)


def test_every_default_policy_is_listed_and_no_other() -> None:
    policies = CedarPolicies(default_sources(), Schema())
    listed: dict[str, list[str]] = {row[0].strip("`"): row for row in rows(section("The default"))}

    assert set(listed) == {fact.name for fact in policies.facts.values()}
    for fact in policies.facts.values():
        row = listed[fact.name]
        assert row[1] == ("permits" if fact.permits else "forbids")
        wants = fact.obligations
        assert ("approval" in row[3]) is bool(wants.approvals)
        assert set(wants.notify) <= set(re.split(r"[ ,;|]+", row[3]))


def test_every_finding_of_the_lint_is_explained() -> None:
    told = set(re.findall(r"`([a-z-]+)`", " ".join(row[0] for row in rows(section("Your own")))))
    code = (ROOT / "broker/policy/lint.py").read_text("utf-8")
    wide = (ROOT / "broker/policy/width.py").read_text("utf-8")
    known = re.findall(r'Level\.[A-Z]+,\s*"([a-z-]+)"', code)
    known += re.findall(r'TOO_WIDE: Final = "([a-z-]+)"', wide)

    assert told == set(known)
    assert {str(level) for level in Level} == {"error", "warning"}


# ── the claims ───────────────────────────────────────────────────────────────────────────────────


@functools.cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


NAMED: Final = sorted(set(re.findall(r"`(tests/[a-z0-9_/]+\.py)::(\w+)`", TEXT)))
SHOWN: Final = {row[0]: row[2] for row in rows(section("Rules and their tests"))}
CLAIMS: Final[list[Any]] = [
    (framework, row)
    for framework in FRAMEWORKS
    for row in rows(section(framework))
    if row[2] != NOT_COVERED
]


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda value: value)
def test_every_test_named_exists(path: str, name: str) -> None:
    assert name in functions_of(path)
    assert name.startswith("test_")


def test_each_rule_is_shown_by_tests_and_those_with_cases_are_all_there() -> None:
    assert all("`tests/" in tests or "*cases*" in tests for tests in SHOWN.values())
    assert {rule for rule, tests in SHOWN.items() if "*cases*" in tests} == set(RULES)


@pytest.mark.parametrize(
    ("framework", "row"), CLAIMS, ids=lambda v: v if isinstance(v, str) else v[0]
)
def test_each_row_names_rules_and_a_test_of_the_first(framework: str, row: list[str]) -> None:
    first, test, rest = re.fullmatch(r"([a-z-]+): `([^`]+)`(?:; (.*))?", row[-1]).groups("")  # pyright: ignore[reportOptionalMemberAccess]  else it fails, as it should
    rules = [first, *(rest.split(", ") if rest else [])]

    assert set(rules) <= set(SHOWN)
    assert len(set(rules)) == len(rules)
    cases = test.endswith("::test_the_default_policies_answer_each_case_as_expected")
    assert test in SHOWN[first] or (cases and "*cases*" in SHOWN[first])


def test_each_framework_has_rows_and_each_rule_is_used() -> None:
    assert {framework for framework, _ in CLAIMS} == set(FRAMEWORKS)
    used = " ".join(row[-1] for _, row in CLAIMS)
    assert [rule for rule in SHOWN if not re.search(rf"(^|[ ;]){rule}([:,;]|$| )", used)] == []


@pytest.mark.parametrize(
    ("framework", "ids", "open_ones"),
    [
        (FRAMEWORKS[0], [f"ASI{n:02}" for n in range(1, 11)], ["ASI05", "ASI06"]),
        (FRAMEWORKS[1], [f"NHI{n}:2025" for n in range(1, 11)], ["NHI3:2025", "NHI8:2025"]),
    ],
    ids=["ASI", "NHI"],
)
def test_each_of_owasps_ten_has_its_row_and_what_is_not_covered_says_so(
    framework: str, ids: list[str], open_ones: list[str]
) -> None:
    found = rows(section(framework))
    assert [row[0] for row in found] == ids
    assert [row[0] for row in found if row[2] == NOT_COVERED] == open_ones
    assert [row[0] for row in found if row[-1] == "—"] == open_ones, "and names no test"
