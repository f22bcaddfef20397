"""*Revoke*: name what, see what would die, end it, and see it dead. And what is frozen.

Revoking everything wants a sign-in that is only minutes old, so it has an address of its own.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from broker.clock import to_rfc3339
from broker.console.forms import read_as
from broker.console.live import stream
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.errors import InvalidRequest
from broker.grants import GrantState
from broker.http.api import Word
from broker.wire import Freeze, Revoke, Selector

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.console.app import Console
    from broker.console.routing import Visit

pages = Pages()
KINDS: Final = {
    "task_id": "a task and all below it",
    "agent": "an agent",
    "owner": "an owner",
    "capability": "a capability",
    "backend": "a backend",
    "grant_id": "one grant",
    "all": "everything",
}
"""What can be revoked by, in words."""
_EVERYTHING: Final = "all"
_MAX_VALUE: Final = 320


@pages.get("/revoke", Right.OPERATE)
async def revoke(
    visit: Here, kind: Word = "task_id", value: Word = "", done: Word = ""
) -> Response:
    """Ask what to revoke, and list what is frozen."""
    frozen = await visit.console.broker.operators.freezes(visit.caller)
    return visit.page(
        "revoke.html",
        title="Revoke",
        kinds=KINDS,
        kind=kind,
        value=value,
        freezes=frozen["items"],
        done=done,
        now=await _now(visit.console),
    )


@pages.get("/revoke/preview", Right.OPERATE)
async def preview(visit: Here, kind: Word = "", value: Word = "") -> Response:
    """Show what would die."""
    if kind == _EVERYTHING:
        return visit.go("/revoke/all")
    return await _preview(visit, kind, value.strip())


@pages.get("/revoke/all", Right.OPERATE, fresh=True)
async def preview_all(visit: Here) -> Response:
    """Show what would die if everything did."""
    return await _preview(visit, _EVERYTHING, "")


@pages.post("/revoke", Right.OPERATE)
async def revoke_selected(visit: Here) -> Response:
    """End what was named."""
    kind, value = visit.field("kind"), visit.field("value", _MAX_VALUE)
    if kind == _EVERYTHING:
        raise InvalidRequest("Everything is revoked on a page of its own: choose it again.")
    return await _revoke(visit, kind, value)


@pages.post("/revoke/all", Right.OPERATE, fresh=True)
async def revoke_all(visit: Here) -> Response:
    """End everything."""
    return await _revoke(visit, _EVERYTHING, "")


@pages.get("/revoke/progress", Right.OPERATE)
async def progress(
    visit: Here, kind: Word = "", value: Word = "", of: Word = "", seal: Word = ""
) -> Response:
    """Show what isn't dead of it yet."""
    selector = _selector(kind, value)
    return visit.page(
        "revoking.html",
        title="Revoking",
        left=await _left(visit.console, visit.caller, selector),
        # Only what this session was told of its own revocation is repeated.
        matched=int(of) if hmac.compare_digest(seal, _seal(visit, kind, value, of)) else None,
        query=urlencode({"kind": kind, "value": value}),
        again=urlencode({"kind": kind, "value": value, "of": of, "seal": seal}),
        live=False,
    )


@pages.get("/revoke/progress/events", Right.OPERATE)
async def events(visit: Here, kind: Word = "", value: Word = "") -> Response:
    """Send what isn't dead of it yet whenever that changes."""
    selector = _selector(kind, value)
    produce = partial(_live_part, visit.console, visit.caller, selector)
    return stream(visit, visit.console.feeds.of(f"revoking {selector.field}", produce))


@pages.post("/freeze", Right.OPERATE)
async def freeze(visit: Here) -> Response:
    """Stop issuing; what is live stays so."""
    await visit.console.broker.operators.freeze(visit.caller, _freeze(visit))
    return visit.go("/revoke", notice="frozen")


@pages.post("/thaw", Right.OPERATE)
async def thaw(visit: Here) -> Response:
    """Allow issuing again."""
    await visit.console.broker.operators.thaw(visit.caller, _freeze(visit))
    return visit.go("/revoke", notice="thawed")


async def _preview(visit: Visit, kind: str, value: str) -> Response:
    selector = _selector(kind, value)
    frozen = await visit.console.broker.operators.freezes(visit.caller)
    return visit.page(
        "preview.html",
        title="What would die",
        kinds=KINDS,
        kind=kind,
        value=value,
        found=await visit.console.broker.operators.preview(visit.caller, selector),
        frozen=any(row["selector"] == selector.field for row in frozen["items"]),
        everything=kind == _EVERYTHING,
        now=await _now(visit.console),
    )


async def _revoke(visit: Visit, kind: str, value: str) -> RedirectResponse:
    values = {
        "selector": _selector(kind, value),
        "reason": visit.field("reason"),
        "freeze": visit.field("freeze") == "yes",
    }
    ask = read_as(Revoke, values)
    _, outcome = await visit.console.broker.operators.revoke(visit.caller, ask)
    of = str(outcome.matched)
    seal = _seal(visit, kind, value, of)
    query = urlencode({"kind": kind, "value": value, "of": of, "seal": seal})
    return visit.go(f"/revoke/progress?{query}")


def _selector(kind: str, value: str) -> Selector:
    if kind not in KINDS:
        raise InvalidRequest(f"Choose what to revoke by: {', '.join(KINDS)}.")
    return read_as(Selector, {kind: True if kind == _EVERYTHING else value})


def _freeze(visit: Visit) -> Freeze:
    selector = _selector(visit.field("kind"), visit.field("value", _MAX_VALUE))
    return read_as(Freeze, {"selector": selector, "reason": visit.field("reason")})


def _seal(visit: Visit, kind: str, value: str, of: str) -> str:
    """Mark what this session was told, so that no link of somebody else's says it."""
    said = f"{of}|{kind}|{value}".encode("utf-8", "replace")
    return hmac.new(visit.session.csrf.encode(), said, hashlib.sha256).hexdigest()


async def _left(console: Console, caller: Caller, selector: Selector) -> dict[str, Any]:
    """Return the preview, with how many are on their way and how many are untouched.

    ``given_up`` says of a single grant that it isn't dead as far as anybody knows.
    """
    found = await console.broker.operators.preview(caller, selector)
    states, grant_id = found["states"], selector.grant_id
    grant = await console.broker.grant(caller, grant_id) if grant_id else None
    return {
        **found,
        "on_their_way": states["revoking"] + states["stuck"],
        "untouched": states["active"] + states["pending"],
        "given_up": grant is not None and grant.state is GrantState.ABANDONED,
        "at": await _now(console),
    }


async def _live_part(console: Console, caller: Caller, selector: Selector) -> str:
    found = await _left(console, caller, selector)
    return console.templates.render("revoking_live.html", {"left": found, "live": True})


async def _now(console: Console) -> str:
    return to_rfc3339(await console.broker.pipeline.queries.now())
