"""What ``broker policy`` does with files, without a running broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from broker.cli import output
from broker.cli.check import Json
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import plural

if TYPE_CHECKING:
    from broker.catalog import Catalog
    from broker.policy.cases import Result, Results
    from broker.policy.cedar import Source
    from broker.policy.lint import Finding
    from broker.policy.who_can import Who

CHECK: Final = """\
Examples:

  broker policy check policies/
  broker policy check --config /etc/broker/config.toml --strict
"""
TEST: Final = """\
Examples:

  broker policy test policies/
  broker policy test --config config.toml --json
"""
Folder = Annotated[
    Path | None, Parameter(help="A folder of *.cedar files, and their cases.", metavar="DIR")
]
Config = Annotated[
    Path | None,
    Parameter(
        help="The configuration: its policies, its tools and the names in it.",
        name=["--config", "-c"],
        metavar="FILE",
    ),
]


@dataclass(frozen=True, slots=True)
class Given:
    """Policies to look at: the package's, one's own, and by name each set that is tried out."""

    catalog: Catalog | None
    private: frozenset[str]
    folder: Path | None
    watched: Sequence[tuple[str, Path]] = ()
    environment: str = ""
    channels: Sequence[str] | None = None

    def enforced(self) -> tuple[Source, ...]:
        """Return the policies in force, the package's first."""
        from broker.policy.folder import default_sources, sources_in

        return (*default_sources(), *(sources_in(self.folder) if self.folder else ()))

    def sets(self) -> list[tuple[Path | None, tuple[Source, ...]]]:
        """Return each folder, with all the policies that count together with those in it."""
        from broker.policy.folder import sources_in

        enforced = self.enforced()
        tried = [(folder, (*enforced, *sources_in(folder))) for _, folder in self.watched]
        return [(self.folder, enforced), *tried]


def given(folder: Path | None, config: Path | None) -> Given:
    """Return what a command line names.

    Raises:
        UsageError: neither or both of the two.
    """
    from broker.config import load_config
    from broker.power import PRIVATE

    if (folder is None) is (config is None):
        raise UsageError("name a folder of policies, or a configuration with --config")
    if config is None:
        return Given(None, PRIVATE, folder)
    # Secrets aren't needed for this, so it works where they aren't: in CI.
    loaded = load_config(config, files_may_be_missing=True)
    policy = loaded.policy
    return Given(
        loaded.catalog(),
        policy.private,
        policy.dir,
        policy.watched,
        policy.environment,
        [channel.name for channel in loaded.channels],
    )


def check(
    folder: Folder = None,
    /,
    *,
    config: Config = None,
    strict: Annotated[
        bool, Parameter(help="Warnings fail, too.", negative="", show_default=False)
    ] = False,
    json: Json = False,
) -> int:
    """Check policies against the schema, and for what they say in vain or by mistake."""
    from broker.policy.lint import Level, lint

    looked_at = given(folder, config)
    found: dict[Finding, None] = {}
    for _, sources in looked_at.sets():
        found.update(dict.fromkeys(lint(sources, looked_at.catalog, looked_at.channels)))
    errors = sum(finding.level is Level.ERROR for finding in found)
    if json:
        output.document({"findings": [finding.as_json() for finding in found]})
    else:
        for finding in found:
            output.line(_finding(finding))
            if finding.remedy:
                output.line(f"    {finding.remedy}")
        files = len({source.name for _, sources in looked_at.sets() for source in sources})
        warnings = plural(len(found) - errors, "warning")
        output.line(f"{plural(files, 'file')}: {plural(errors, 'error')}, {warnings}")
    return 1 if errors or (strict and found) else 0


def _finding(finding: Finding) -> str:
    policy = f"{finding.policy}: " if finding.policy else ""
    return f"{finding.file}: {policy}{finding.level}: {finding.text} [{finding.code}]"


def run_tests(folder: Folder = None, /, *, config: Config = None, json: Json = False) -> int:
    """Put the cases beside policies to them, the package's cases first; 1 if one fails."""
    from broker.policy.case_file import read_cases
    from broker.policy.cases import run_cases
    from broker.policy.folder import cases_in, default_cases, default_sources

    looked_at = given(folder, config)
    # One's own policies may well refuse what the package's cases expect to be allowed.
    runs = [run_cases(read_cases(default_cases()), default_sources())]
    runs += [
        run_cases(read_cases(cases_in(where)), sources, looked_at.catalog, looked_at.private)
        for where, sources in looked_at.sets()
        if where is not None
    ]
    results = [result for run in runs for result in run.results]
    failed = [result for result in results if not result.passed]
    uncovered = _uncovered(runs)
    if json:
        output.document(
            {"cases": [result.as_json() for result in results], "without_a_case": uncovered}
        )
    else:
        _tell(results, failed, uncovered)
    return 1 if failed else 0


def _uncovered(runs: Sequence[Results]) -> list[str]:
    """Return the policies that no case shows, in any of the runs."""
    known = {name for run in runs for name in run.undecided}
    decided = {name for run in runs for result in run.results for name in result.decision.policies}
    return sorted(known - decided)


def _tell(results: Sequence[Result], failed: Sequence[Result], uncovered: Sequence[str]) -> None:
    if failed:
        output.rows(
            ("file", "rule", "case", "problem"),
            (
                (result.file, result.case.rule, result.case.name, "; ".join(result.problems))
                for result in failed
            ),
            empty="",
        )
    if uncovered:
        output.note(f"No case shows: {', '.join(uncovered)}")
    output.line(f"{plural(len(results), 'case')}, {len(failed)} failed")


def schema(*, config: Config = None) -> None:
    """Print the schema that policies are checked against, in Cedar's own syntax.

    With --config each of its tools has an action of its own there.

    Example: broker policy schema --config config.toml > broker.cedarschema
    """
    from broker.policy.schema import schema as text

    catalog = given(None, config).catalog if config else None
    output.text(text(catalog.tools.values() if catalog else ()))


def who_can_offline(capability: str, config: Path) -> list[Who]:
    """Say which agents could, by a configuration and its policies alone.

    Raises:
        CommandFailed: there is no such capability.
    """
    from broker.clock import SystemClock
    from broker.policy.cedar import CedarPolicies, Schema
    from broker.policy.question import Moment
    from broker.policy.who_can import who_can

    looked_at = given(None, config)
    catalog = looked_at.catalog
    known = catalog.capabilities.get(capability) if catalog else None
    if catalog is None or known is None:
        raise CommandFailed(
            f"There is no capability {capability!r} in {config}",
            code="not_found",
            hint=f"there are: {', '.join(catalog.capabilities if catalog else ())}",
        )
    moment = Moment(
        now_ms=int(SystemClock().now() * 1000),
        environment=looked_at.environment,
        method="",
        bound=False,
        private=looked_at.private,
    )
    policies = CedarPolicies(looked_at.enforced(), Schema(catalog.tools.values()))
    return list(who_can(policies, catalog, known, moment))
