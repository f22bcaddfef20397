"""``broker grant``: what becomes of credentials that are to be revoked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import plural

if TYPE_CHECKING:
    from cyclopts import App

    from broker.client import Client, Grant

GrantId = Annotated[str, Parameter(help="The grant's id.", metavar="GRANT", name="grant")]
_RECEIPT: Final = """\
A receipt is a signed statement (a JWS): when the revocation was asked for, when \
and by which evidence the credential was confirmed dead; or that it was given up, \
by whom and why. Keep it together with the broker's keys of the time.

Examples:

  broker grant receipt grt_… --json > receipt.json
  broker grant receipt grt_… --verify receipt.json
  broker grant receipt grt_… --verify receipt.json --jwks kept-keys.json
"""
_RETRY: Final = """\
Examples:

  broker grant retry grt_… --reason "the database is back"
  broker grant retry --all-stuck --backend vault
"""
_ABANDON: Final = """\
The credential may live on: it is never called revoked, and your words stay on \
record. To have the broker try again, use `broker grant retry`.

Example: broker grant abandon grt_… --reason "its database was scrapped"
"""


def register(app: App) -> None:
    """Add these commands to ``broker grant``."""
    app.command(receipt, help_epilogue=_RECEIPT)
    app.command(retry, help_epilogue=_RETRY)
    app.command(abandon, help_epilogue=_ABANDON)


def receipt(
    grant: GrantId,
    /,
    *,
    verify: Annotated[
        str | None,
        Parameter(
            help="Verify the receipt in this file, - for stdin.",
            metavar="FILE",
            allow_leading_hyphen=True,
        ),
    ] = None,
    jwks: Annotated[
        Path | None,
        Parameter(help="Verify by these keys, not the broker's of now.", metavar="FILE"),
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Get the signed receipt of a grant that has ended, or verify one."""
    if verify is not None:
        claims = _verified(grant, _read(verify), _keys(jwks, connection))
        if connection.json:
            output.document({"verified": True, "claims": claims})
            return
        output.line(f"{grant}: the receipt is genuine, signed by {claims['iss']}")
    elif jwks is not None:
        raise UsageError("--jwks goes with --verify")
    else:
        with connection.client() as broker:
            found = broker.get_receipt(grant)
        if connection.json:
            output.model(found)
            return
        claims = found.claims
    output.record({name.replace("_", " "): _said(value) for name, value in claims.items()})


def retry(
    grant: Annotated[
        str | None, Parameter(help="The grant's id.", metavar="GRANT", name="grant")
    ] = None,
    /,
    *,
    all_stuck: Annotated[
        bool, Parameter(help="Every stuck grant.", negative="", show_default=False)
    ] = False,
    backend: Annotated[
        str | None, Parameter(help="With --all-stuck: only this backend's.", metavar="NAME")
    ] = None,
    reason: Annotated[str | None, Parameter(help="Why now, for the log.", metavar="TEXT")] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Have revocations that failed tried again now."""
    if (grant is None) is not all_stuck or (backend is not None and not all_stuck):
        raise UsageError("Name a grant, or give --all-stuck, which --backend goes with")
    with connection.client() as broker:
        if grant is not None:
            tried = [broker.retry_grant(grant, reason=reason)]
        else:
            tried = _retry_stuck(broker, backend, reason)
    if connection.json:
        from broker.client.decoding import encode

        output.document({"retried": [encode(each) for each in tried]})
        return
    for each in tried:
        output.line(f"{each.grant_id}: {each.state}, to be tried again now")
    if all_stuck:
        output.note(f"{plural(len(tried), 'grant')}; how it went: broker grant list --state stuck")


def abandon(
    grant: GrantId,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, for the record.", metavar="TEXT")],
    connection: Connection = DEFAULT,
) -> None:
    """Give up revoking a grant, by a statement that goes on record."""
    with connection.client() as broker:
        found = broker.abandon_grant(grant, reason)
    if connection.json:
        output.model(found)
    else:
        output.line(f"{grant}: {found.state}, and never confirmed dead")


def _retry_stuck(broker: Client, backend: str | None, reason: str | None) -> list[Grant]:
    from broker.client import Conflict

    tried: list[Grant] = []
    for stuck in list(broker.iter_grants(state="stuck")):
        if backend in (None, stuck.backend):
            try:
                tried.append(broker.retry_grant(stuck.grant_id, reason=reason))
            except Conflict:
                continue  # dead by now
    return tried


def _read(source: str) -> str:
    """Return the receipt of a file: the JWS itself, or the JSON document that has it."""
    import json

    try:
        found = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8")
    except (OSError, ValueError) as error:
        msg = f"{source} can't be read: {error}"
        raise CommandFailed(msg, code="unreadable") from None
    if not found.lstrip().startswith("{"):
        return found.strip()
    try:
        return str(json.loads(found)["receipt"])
    except (ValueError, KeyError):
        msg = f"{source} is no receipt, nor a JSON document with a member receipt"
        raise CommandFailed(msg, code="invalid_receipt") from None


def _keys(kept: Path | None, connection: Connection) -> bytes:
    import json

    if kept is None:
        with connection.client() as broker:
            return json.dumps(broker.get_key_set()).encode()
    try:
        return kept.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{kept} can't be read: {error.strerror}", code="unreadable") from None


def _verified(grant: str, receipt: str, keys: bytes) -> dict[str, Any]:
    from broker.errors import InvalidToken
    from broker.identity.jwk import parse_key_set
    from broker.receipts import verified

    try:
        claims = verified(receipt, parse_key_set(keys))
    except (InvalidToken, ValueError) as error:
        raise CommandFailed(f"The receipt is not good: {error}", code="invalid_receipt") from None
    if claims["grant_id"] != grant:
        msg = f"The receipt is not good: it is of {claims['grant_id']}"
        raise CommandFailed(msg, code="invalid_receipt")
    return claims


def _said(value: object) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)
