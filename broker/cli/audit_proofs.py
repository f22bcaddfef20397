"""Proofs out of the log, and checking them: ``broker audit prove``, ``grown``, ``check``."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.audit_source import NOWHERE, Folder, Source, read_text, unreadable
from broker.cli.check import Json
from broker.cli.refusals import UsageError

_GROWN: Final = """\
Example: broker audit grown last-month.checkpoint --config config.toml > grown.json
"""
_CHECK: Final = """\
Example: broker audit check grown.json --key log.key --json
"""
_PROVE: Final = """\
Examples:

  broker audit prove 1800000000000-03-0 --config config.toml > proof.json
  broker audit check proof.json --key log.key
"""


def prove(
    event: Annotated[str, Parameter(help="The event's id.", metavar="EVENT")],
    folder: Folder = None,
    *,
    source: Source = NOWHERE,
    checkpoint: Annotated[
        Path | None,
        Parameter(help="Prove it of this checkpoint, not of the newest.", metavar="FILE"),
    ] = None,
    tlog: Annotated[
        bool,
        Parameter(help="Print it as c2sp.org/tlog-proof has it.", negative="", show_default=False),
    ] = False,
) -> None:
    """Print a proof that an event is in the log; `broker audit check` checks it."""
    from broker.audit import proofs
    from broker.audit.spans import find_event

    keys, place = source.believed(), source.folder(folder)
    note = read_text(checkpoint) if checkpoint else None
    try:
        document = proofs.prove_inclusion(place, keys, find_event(place, event), checkpoint=note)
    except OSError as error:
        raise unreadable(place, error) from error
    if tlog:
        sys.stdout.write(proofs.tlog_proof(document))
    else:
        output.document(document)


def grown(
    old: Annotated[Path, Parameter(help="The older checkpoint.", metavar="CHECKPOINT")],
    folder: Folder = None,
    *,
    source: Source = NOWHERE,
) -> None:
    """Print a proof that since an older checkpoint the log has only grown."""
    from broker.audit import proofs

    keys, place = source.believed(), source.folder(folder)
    try:
        document = proofs.prove_consistency(place, keys, read_text(old))
    except OSError as error:
        raise unreadable(place, error) from error
    output.document(document)


def check(
    proof: Annotated[Path, Parameter(help="What `prove` or `grown` printed.", metavar="FILE")],
    *,
    source: Source = NOWHERE,
    json: Json = False,
) -> None:
    """Check a proof. Nothing but the log's public key is needed for it."""
    from broker.audit import proofs
    from broker.audit.errors import InvalidProof

    document = _document(proof)
    keys = source.believed()
    if document.get("kind") == proofs.CONSISTENCY:
        before, after = proofs.check_consistency(document, keys)
        about: dict[str, Any] = {"old_size": before.size, "new_size": after.size}
        words = f"the log of {before.size} records has only grown, to {after.size}"
    elif document.get("kind") == proofs.INCLUSION:
        record = proofs.check_inclusion(document, keys)
        about = {"seq": record["seq"], "event": record["event"]}
        words = f"record {record['seq']} is in the log: {record['event'].get('type')}"
    else:
        raise InvalidProof(f"{proof} is no proof of ours.")
    if json:
        output.document({"valid": True, **about})
    else:
        output.line(f"proved: {words}")


def register(app: App) -> None:
    """Add these commands to ``broker audit``."""
    app.command(prove, help_epilogue=_PROVE)
    app.command(grown, help_epilogue=_GROWN)
    app.command(check, help_epilogue=_CHECK)


def _document(path: Path) -> dict[str, Any]:
    try:
        document: Any = jsonlib.loads(read_text(path))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no proof")
    return document  # pyright: ignore[reportUnknownVariableType]  JSON
