"""Messages made of news: for programs, for Slack and what takes its form, and as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.clock import to_rfc3339
from broker.durations import format_duration
from broker.notify.tame import quoted, tame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.notify.news import News

_HEADER: Final = 150
_FIELD: Final = 2000
_FIELDS: Final = 10
_SECTION: Final = 3000
"""Slack's limits, in characters: https://docs.slack.dev/reference/block-kit/blocks."""


def title(news: News) -> str:
    """Return the line that says it, and how late it is if it is; it fits wherever titles do."""
    late = f" (late: {lateness(news)} ago)" if news.late_s else ""
    most = _HEADER - len(late)
    return (news.title if len(news.title) <= most else news.title[: most - 1] + "…") + late


def lateness(news: News) -> str:
    """Say how long ago it happened, in whole minutes."""
    return format_duration(max(1, news.late_s // 60) * 60_000)


def body(news: News) -> str:
    """Return the rest as lines of plain text."""
    return "\n".join(_lines(news))


def for_programs(news: News, channel: str) -> dict[str, Any]:
    """Return the JSON of the generic webhook; see docs/notifications.md."""
    return {
        "type": news.type,
        "id": news.id,
        "timestamp": to_rfc3339(news.at),
        "channel": channel,
        "severity": news.severity,
        "late": bool(news.late_s),
        "title": title(news),
        "text": body(news),
        "link": news.link,
        "data": dict(news.data or {}),
    }


def for_slack(news: News) -> dict[str, Any]:
    """Return the JSON of an incoming webhook of Slack's.

    ``text`` says all of it, as others that take this form know no blocks. In the blocks all but the
    link and the commands is plain text, in which nothing is a mention or a link.
    """
    sections = [
        {"type": "section", "fields": [_plain(f"{name}\n{value}", _FIELD) for name, value in some]}
        for some in _tens(news.facts)
    ]
    spoken = [
        {"type": "section", "text": _plain(f"{name}: {quoted(text)}", _SECTION)}
        for name, text in news.said
    ]
    commands = "".join(f"\n`{escaped(line)}`" for line in news.todo)
    link = f"<{escaped(news.link)}|Open in the console>" if news.link else ""
    ending = {"type": "mrkdwn", "text": (link + commands).strip(), "verbatim": True}
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(title(news), _HEADER)},
        *sections,
        *spoken,
    ]
    if ending["text"]:
        blocks.append({"type": "section", "text": ending})
    return {"text": escaped(_marked(news)), "blocks": blocks, "unfurl_links": False}


def escaped(text: str) -> str:
    """Escape what Slack's syntax is made of: https://docs.slack.dev/messaging/formatting."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _marked(news: News) -> str:
    """Return all of it as text in which what callers wrote is code, where no syntax counts."""
    lines = [title(news), *(f"{name}: {value}" for name, value in news.facts)]
    lines += [f"{name}: `{tame(text)}`" for name, text in news.said]
    lines += [f"`{line}`" for line in news.todo]
    return "\n".join([*lines, news.link]).strip()


def _lines(news: News) -> Iterator[str]:
    yield from (f"{name}: {value}" for name, value in news.facts)
    yield from (f"{name}: {quoted(text)}" for name, text in news.said)
    yield from news.todo
    if news.link:
        yield news.link


def _plain(text: str, limit: int) -> dict[str, Any]:
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return {"type": "plain_text", "text": cut, "emoji": False}


def _tens(facts: tuple[tuple[str, str], ...]) -> list[tuple[tuple[str, str], ...]]:
    return [facts[at : at + _FIELDS] for at in range(0, len(facts), _FIELDS)]
