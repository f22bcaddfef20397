"""What the documents say is so: links lead somewhere, commands and codes exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from broker import errors
from broker.cli.main import build
from broker.steps import Step

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")]
    if ".venv" not in page.parts
)


def every_error() -> set[type[errors.BrokerError]]:
    found = {errors.BrokerError}
    queue = [errors.BrokerError]
    while queue:
        below = [cls for cls in queue.pop().__subclasses__() if cls.__module__ == errors.__name__]
        found.update(below)
        queue += below
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text("utf-8"))
    pictures: list[str] = re.findall(r' (?:src|srcset)="([^"]+)"', prose)
    for target in [*re.findall(r"\]\(([^)#]+)[^)]*\)", prose), *pictures]:
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_opens_with_the_two_commands() -> None:
    fence = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert fence is not None
    first = [line.split("#")[0].strip() for line in fence[1].splitlines()]
    assert first == ["make demo", "make test"]


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z]+)\b", page.read_text("utf-8"), re.MULTILINE)
        assert set(named) <= targets, page.name


def _commands() -> list[str]:
    text = "\n".join(page.read_text("utf-8") for page in PAGES).replace("\\\n", " ")
    lines = re.findall(r"^(?:\S*/)?broker ([a-z][^#\n|>)]*)", text, re.MULTILINE)
    return sorted({line.strip() for line in lines})


@pytest.mark.parametrize("command", _commands())
def test_every_command_named_parses(command: str) -> None:
    words = shlex.split(command)
    build().parse_args(words, exit_on_error=False, print_error=False)


def test_the_api_page_lists_every_code() -> None:
    page = (ROOT / "docs/api.md").read_text("utf-8")
    private = {"internal_error", "config_invalid", "oauth_error", "unavailable", "backend_refused"}
    for cls in every_error():
        assert cls.code in private or f"`{cls.code}`" in page, cls.__name__


def test_the_issuance_page_has_every_step() -> None:
    page = (ROOT / "docs/issuance.md").read_text("utf-8")
    for step in Step:
        assert f"| {int(step)} {step.name.capitalize()} |" in page, step.name


def test_changelog_and_licence_are_there() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")


def test_no_file_is_over_the_cap() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "broker", "tests"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    sources = [ROOT / name for name in listed.stdout.split() if name.endswith((".py", ".lua"))]
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in sources
        if path.exists()
    }
    assert {name: lines for name, lines in sizes.items() if lines > 400} == {}
