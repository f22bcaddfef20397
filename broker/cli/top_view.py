"""How the overview is drawn: problems first, as much as fits the window, whatever its width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from broker.cli import output
from broker.cli.selector import describe
from broker.cli.text import ago, clean, plural, span

if TYPE_CHECKING:
    from rich.console import ConsoleDimensions, RenderableType

    from broker.client import Freeze, Grant, Overview

_WIDE: Final = 110
_NARROW: Final = 60
_APART: Final = 2
_SOON_S: Final = 30
_AROUND: Final = 3
"""Lines of a section beside its own: a blank one, its title, the names of its columns."""
_HEALTH: Final = {"ok": "green", "failing": "yellow", "stopped": "bold red"}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the view: a title, and lines of cells, of columns that all have the same number."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Text]]
    style: str = "bold"


def draw(
    found: Overview, where: str, size: ConsoleDimensions, passed: float, problem: str
) -> RenderableType:
    """Return what fits a window; ``passed`` seconds ago it was so, ``problem`` is since then."""
    now = _now(found) + passed
    head = _head(found, where, now, size.width, problem)
    left = size.height - len(head) - 1
    parts: list[RenderableType] = [*head]
    for section in _sections(found, now, size.width):
        shown = min(len(section.lines), left - _AROUND)
        if shown < 1:
            break
        parts += [Text(""), _drawn(section, shown, size.width)]
        left -= shown + _AROUND
    return _group(parts)


def draw_whole(found: Overview, where: str) -> Sequence[RenderableType]:
    """Return all of it, for a page without an end."""
    width = output.console().width
    now = _now(found)
    parts: list[RenderableType] = [*_head(found, where, now, width, "")]
    for section in _sections(found, now, width):
        parts += [Text(""), _drawn(section, len(section.lines), width)]
    return parts


def _now(found: Overview) -> float:
    return found.at.timestamp() if found.at else 0.0


def _group(parts: Iterable[RenderableType]) -> RenderableType:
    from rich.console import Group

    return Group(*parts)


def _head(found: Overview, where: str, now: float, width: int, problem: str) -> list[Text]:
    at = f"{found.at:%H:%M:%SZ}" if found.at else ""
    title = Text.assemble(("broker top", "bold"), "  ", clean(where), "  ", (at, "dim"))
    lines = [title]
    if problem:
        since = span(max(0, round(now - _now(found))))
        lines.append(Text(f"NOT CURRENT, {since} old: {clean(problem)}", style="bold red"))
    powers: dict[str, Any] = found.live.get("by_power") or {}
    live = Text.assemble((str(found.live.get("total", 0)), "bold"), " live: ")
    live.append(
        ", ".join(f"{count} {power}" for power, count in powers.items()) if powers else "none"
    )
    lines += [live, *_flowed(_counts(found), width)]
    took = found.time_to_dead
    if took.get("last"):
        text = f"time to dead: p50 {_ms(took.get('p50_ms'))}, p95 {_ms(took.get('p95_ms'))}"
        lines.append(Text(f"{text}, most {_ms(took.get('max_ms'))} (last {took['last']})"))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _flowed(words: Sequence[Text], width: int) -> list[Text]:
    """Put some words into lines, as many to each as fit."""
    lines: list[Text] = []
    for word in words:
        if lines and len(lines[-1]) + _APART + len(word) <= width:
            lines[-1] = Text.assemble(lines[-1], " " * _APART, word)
        else:
            lines.append(word)
    return lines


def _counts(found: Overview) -> list[Text]:
    """Say how much is on its way, and what waits for people: in red what shouldn't be."""
    unsettled, words = found.unsettled, list[Text]()
    for name, bad in (("stuck", True), ("overdue", True), ("revoking", False), ("pending", False)):
        count = int(unsettled.get(name) or 0)
        words.append(Text(f"{count} {name}", style="bold red" if bad and count else ""))
    waiting = (
        (found.approvals, "approval", "waiting"),
        (found.reviews, "review", "open"),
        (len(found.freezes), "freeze", "in force"),
    )
    for count, noun, state in waiting:
        said = f"{plural(count, noun)} {state}"
        words.append(Text(said, style="bold yellow" if count else ""))
    return words


def _sections(found: Overview, now: float, width: int) -> Iterable[Section]:
    """Yield the parts, those first that somebody has to do something about."""
    wrong = {n: str(said) for n, said in found.checks.items() if str(said) != "ok"}
    if wrong:
        yield Section("CHECKS", ("part", "says"), [_says(n, t) for n, t in wrong.items()], "red")
    if found.not_dead:
        columns = ("grant", "state", "capability", "since", "tries", "error")
        lines = [_late(grant, now) for grant in found.not_dead]
        stuck = any(grant.state == "stuck" for grant in found.not_dead)
        title = f"NOT DEAD YET ({len(found.not_dead)} shown)"
        yield _narrowed(
            Section(title, columns, lines, "bold red" if stuck else "bold yellow"), width, (4, 0)
        )
    columns = ("backend", "state", "live", "revoking", "stuck", "failing", "why")
    yield _narrowed(
        Section("BACKENDS", columns, [_backend(row) for row in found.backends]), width, (5, 3, 6)
    )
    if found.freezes:
        frozen = [_frozen(freeze, now) for freeze in found.freezes]
        yield _narrowed(Section("FROZEN", ("what", "by", "since", "reason"), frozen), width, (2,))
    columns = ("dies", "agent", "capability", "power", "grant", "task")
    dying = [_dying(grant, now) for grant in found.next_to_die]
    if dying:
        yield _narrowed(Section("NEXT TO DIE", columns, dying), width, (5, 4))
    else:
        yield Section("NEXT TO DIE", ("",), [[Text("nothing is live", style="dim")]])


def _narrowed(section: Section, width: int, spare: Sequence[int]) -> Section:
    """Leave out columns that are for wide windows: in a middling one the first, in a narrow all."""
    out = spare[:1] if _NARROW <= width < _WIDE else spare if width < _NARROW else ()
    keep = [at for at in range(len(section.columns)) if at not in out]
    return Section(
        section.title,
        [section.columns[at] for at in keep],
        [[line[at] for at in keep] for line in section.lines],
        section.style,
    )


def _drawn(section: Section, shown: int, width: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left", width=None)
    for at, column in enumerate(section.columns):
        # One line each, whatever happens: a screen that jumps can't be read.
        table.add_column(column, no_wrap=True, overflow="ellipsis", header_style="dim")
        table.columns[at].max_width = max(width // 2, 12)
    for line in section.lines[:shown]:
        table.add_row(*line)
    title = Text(section.title, style=section.style)
    if more := len(section.lines) - shown:
        title.append(f"  {more} more don't fit", style="dim")
    return _group([title, table])


def _says(name: str, said: str) -> list[Text]:
    style = "yellow" if said.startswith("warning") else "bold red"
    return [Text(clean(name)), Text(clean(said), style=style)]


def _late(grant: Grant, now: float) -> list[Text]:
    asked = grant.revoke_requested_at or grant.created_at
    style = "bold red" if grant.state == "stuck" else "yellow"
    return [
        Text(grant.grant_id),
        Text(grant.state, style=style),
        Text(clean(grant.capability)),
        Text(ago(asked, now)),
        Text(str(grant.attempts)),
        Text(clean(grant.error or "")),
    ]


def _backend(row: Any) -> list[Text]:  # noqa: ANN401  a mapping of the answer
    state = str(row.get("state", ""))
    counts = [int(row.get(name) or 0) for name in ("live", "revoking", "stuck", "failing")]
    return [
        Text(clean(str(row.get("backend", "")))),
        Text(state, style=_HEALTH.get(state, "")),
        Text(str(counts[0])),
        Text(str(counts[1])),
        *(Text(str(count), style="bold red" if count else "") for count in counts[2:]),
        Text(clean(str(row.get("why") or ""))),
    ]


def _frozen(freeze: Freeze, now: float) -> list[Text]:
    what = Text(clean(describe(freeze.selector)), style="bold yellow")
    return [
        what,
        Text(clean(freeze.by)),
        Text(ago(freeze.at, now)),
        Text(clean(freeze.reason or "")),
    ]


def _dying(grant: Grant, now: float) -> list[Text]:
    left = grant.expires_at.timestamp() - now if grant.expires_at else 0.0
    style = "bold red" if left < 0 else "yellow" if left < _SOON_S else ""
    power = {"read": "green", "operate": "yellow", "privileged": "bold red"}.get(grant.power, "")
    return [
        Text(ago(grant.expires_at, now), style=style),
        Text(clean(grant.agent)),
        Text(clean(grant.capability)),
        Text(grant.power, style=power),
        Text(grant.grant_id, style="dim"),
        Text(grant.task_id, style="dim"),
    ]


def _ms(value: object) -> str:
    milliseconds = int(value) if isinstance(value, int) else 0
    return f"{milliseconds} ms" if milliseconds < 10_000 else span(milliseconds // 1000)  # noqa: PLR2004
