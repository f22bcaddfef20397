"""What ``broker audit`` does with the log's files, without a running broker."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.audit_source import NOWHERE, Folder, Source, read_text, unreadable
from broker.cli.check import Json
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import plural

if TYPE_CHECKING:
    from broker.audit.head import Head
    from broker.audit.report import Finding, Report

_VERIFY: Final = """\
Examples:

  broker audit verify --config /etc/broker/config.toml --ledger
  broker audit verify .broker/audit --key log.key --known last-month.checkpoint
"""
_EXPORT: Final = """\
Examples:

  broker audit export --config config.toml --format ocsf --after 2026-11-01
  broker audit export .broker/audit > events.jsonl
"""


def verify(
    folder: Folder = None,
    *,
    source: Source = NOWHERE,
    known: Annotated[
        tuple[Path, ...],
        Parameter(
            help="A checkpoint that was kept elsewhere: the log must still contain it.",
            metavar="FILE",
            negative="",
            show_default=False,
        ),
    ] = (),
    ledger: Annotated[
        bool,
        Parameter(
            help="Also ask the ledger how far the log must go. Needs --config.",
            negative="",
            show_default=False,
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Find every record that was changed, removed or moved; exit code 1 if there is one."""
    from broker.audit import verify as checking

    keys, place = source.believed(), source.folder(folder)
    notes = [read_text(path) for path in known]
    head = _committed(source) if ledger else None
    try:
        report = checking.verify(place, keys, known=notes, head=head)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise unreadable(place, error) from error
    if json:
        output.document(report.as_json())
    else:
        _print(report)
    return 0 if report.ok else 1


def export(
    folder: Folder = None,
    *,
    source: Source = NOWHERE,
    format: Annotated[  # noqa: A002  the option's name
        Literal["cloudevents", "ocsf"], Parameter(help="In whose words.")
    ] = "cloudevents",
    after: Annotated[
        str | None,
        Parameter(help="Only what follows this event, or this time.", metavar="EVENT|TIME"),
    ] = None,
    until: Annotated[
        str | None,
        Parameter(help="Only up to this event, or before this time.", metavar="EVENT|TIME"),
    ] = None,
) -> None:
    """Write every event of the log to standard output, one JSON document a line."""
    from broker.audit.export import Form, Span, written

    place = source.folder(folder)
    try:
        span = Span.between(after or "", until or "")
    except ValueError as error:
        raise UsageError(
            f"{str(error)!r} is neither an event's id nor a time",
            hint="such as 2026-11-01 or 2026-11-01T09:30:00Z",
        ) from None
    for event in _events(place):
        if span.has(event):
            sys.stdout.write(written(event, Form(format)))


def key(*, source: Source = NOWHERE, json: Json = False) -> None:
    """Print the public key of the log, for those who verify it elsewhere.

    Example: broker audit key --config config.toml > log.key
    """
    keys = [str(found) for found in source.believed()]
    if json:
        output.document({"keys": keys})
        return
    for text in keys:
        output.line(text)


def checkpoint(folder: Folder = None, *, source: Source = NOWHERE) -> None:
    """Print the newest signed checkpoint, to be kept where the log's keeper can't change it.

    Example: broker audit checkpoint --config config.toml > 2026-11.checkpoint
    """
    from broker.audit.checkpoint import CheckpointFolder

    place = source.folder(folder)
    try:
        note = CheckpointFolder(place).latest()
    except OSError as error:
        raise unreadable(place, error) from error
    if note is None:
        raise CommandFailed(f"There is no checkpoint in {place}", code="not_found")
    sys.stdout.write(note.decode(errors="replace"))


def fingerprint(
    *,
    config: Annotated[
        Path,
        Parameter(name=["--config", "-c"], help="The configuration file.", metavar="FILE"),
    ] = Path("config.toml"),
    json: Json = False,
) -> None:
    """Print the fingerprint by which a value stands in the log; the value is read from input.

    A line break at its end isn't part of it.

    Example: broker audit fingerprint --config config.toml < leaked-secret
    """
    import getpass

    from broker.audit.fingerprint import Fingerprints
    from broker.config import load_config

    loaded = load_config(config, files_may_be_missing=True)
    prints = Fingerprints.load(loaded.audit.fingerprint_key(loaded.broker.state_dir))
    if sys.stdin.isatty():
        value = getpass.getpass("Value: ").encode()
    else:
        value = re.sub(rb"\r?\n\Z", b"", sys.stdin.buffer.read())
    made = prints.of(value)
    if json:
        output.document({"fingerprint": made})
    else:
        output.line(made)


def register(app: App) -> None:
    """Add these commands to ``broker audit``."""
    app.command(verify, help_epilogue=_VERIFY)
    app.command(export, help_epilogue=_EXPORT)
    for command in (key, checkpoint, fingerprint):
        app.command(command)


def _committed(source: Source) -> Head | None:
    """Ask the ledger how far the log goes."""
    import asyncio

    from broker.audit.head import Head
    from broker.ledger.outbox import Outbox
    from broker.settings import connect

    if source.config is None:
        raise UsageError("--ledger needs --config")
    config = source.loaded()

    async def ask() -> str:
        connection = connect(config)
        try:
            return (await Outbox(connection).point()).head
        finally:
            await connection.close()

    text = asyncio.run(ask())
    return Head.from_json(text) if text else None


def _print(report: Report) -> None:
    for finding in report.findings:
        output.line(f"{finding.kind:10} {_place(finding)}: {finding.detail}")
    if report.more:
        output.line(f"and {report.more} more")
    for absence in report.absent:
        output.line(f"{absence.reason:10} records {absence.first} to {absence.last}: as was signed")
    counted = f"{report.size} records, {report.records} here, {report.signed} signed"
    checked = plural(report.checkpoints, "checkpoint")
    verdict = "nothing was changed" if report.ok else "NOT what was written"
    output.line(f"{verdict}: {counted}, {checked}")
    if report.unsigned:
        count = plural(report.unsigned, "record")
        output.note(f"{count} after the newest checkpoint: protected by their chain alone")


def _place(finding: Finding) -> str:
    parts = [finding.file or "", f"line {finding.line}" if finding.line else ""]
    if finding.seq is not None:
        since = f"{finding.since} to " if finding.since is not None else ""
        parts.append(f"record {since}{finding.seq}")
    return ", ".join(filter(None, parts)) or "the log"


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    from broker.audit.reader import read_events
    from broker.audit.segments import segments

    if not segments(folder):
        raise CommandFailed(f"There is no log in {folder}", code="not_found")
    try:
        yield from read_events(folder)
    except OSError as error:
        raise unreadable(folder, error) from error
