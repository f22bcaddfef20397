"""The claims: each missing, null, of another type, spoilt, of another time. All really signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from tests.hostile.vectors import ABSENT, Good, Vector, vector

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT: Final = 512
_YEAR_10000: Final = 253_402_300_800


@dataclass(frozen=True)
class Date:
    """A date: how far from now it may be and may not, in seconds."""

    name: str
    fine: tuple[float, ...]
    wrong: tuple[float, ...]
    required: bool = False


@dataclass(frozen=True)
class Shape:
    """What a verifier wants of each claim.

    ``texts`` must be there and be printable, ``exact`` have one value, ``forbidden`` must not be
    there, and of ``odd`` there are values that it must refuse. ``audience`` says whether ours has
    to be among several, or alone.
    """

    texts: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    audience: Literal["among", "alone", ""] = "among"
    dates: tuple[Date, ...] = ()
    whole_seconds: bool = False
    forbidden: tuple[str, ...] = ()
    odd: tuple[tuple[str, tuple[Any, ...]], ...] = ()


def missing(good: Good, shape: Shape) -> Iterator[Vector]:
    """Everything that is required, left out or null; and a token that says nothing."""
    dates = [date.name for date in shape.dates if date.required]
    audience = ["aud"] if shape.audience else []
    for name in (*shape.texts, *shape.exact, *audience, *dates):
        yield vector(f"{name}-absent", "", good.with_claims(**{name: ABSENT}))
        yield vector(f"{name}-null", "", good.with_claims(**{name: None}))
        value = good.claims[name]
        token = good.with_claims(**{name: ABSENT, name.upper(): value, f"{name} ": value})
        yield vector(f"{name}-misspelt", "names are compared exactly", token)
    yield vector("all", "", good.sign(claims={}))


def texts(good: Good, shape: Shape) -> Iterator[Vector]:
    """What names somebody or something: text that can be compared and shown."""
    for name in (*shape.texts, *shape.exact):
        value = good.claims[name]
        for number, wrong in enumerate(_no_text(value)):
            token = good.with_claims(**{name: wrong})
            yield vector(f"{name}-{number}={wrong!a:.30}", "no text", token)
        for title, wrong in _spoilt(value).items():
            yield vector(f"{name}-{title}", "", good.with_claims(**{name: wrong}))
    for name in shape.exact:
        for title, wrong in _nearly(good.claims[name]).items():
            token = good.with_claims(**{name: wrong})
            yield vector(f"{name}~{title}", "nearly the right one", token)


def audience(good: Good, shape: Shape) -> Iterator[Vector]:
    """Meant for us: said as a text or in a list of texts (RFC 7519 section 4.1.3)."""
    if not shape.audience:
        return
    stated: Any = good.claims["aud"]
    ours: str = stated if isinstance(stated, str) else stated[0]
    for fine in (ours, [ours]):
        yield vector(f"{type(fine).__name__}", "", good.with_claims(aud=fine), valid=True)
    alone = shape.audience == "alone"
    for several in ([ours, "urn:other"], ["urn:other", ours], [ours, ours]):
        token = good.with_claims(aud=several)
        yield vector(f"{several!s:.60}", "among others", token, valid=not alone)
    odd: tuple[Any, ...] = (
        "",
        "urn:other",
        ["urn:other"],
        ["urn:other", "urn:another"],
        [],
        [""],
        [ours, ""],
        [ours, 7],
        [ours, None],
        [ours, [ours]],
        [[ours]],
        [{"aud": ours}],
        {"aud": ours},
        {ours: True},
        {"0": ours},
        7,
        True,
        f"{ours},urn:other",
        f"urn:other {ours}",
        f'["{ours}"]',
        "*",
        list(ours),
        *(near := dict.fromkeys(_nearly(ours).values())),
        *([wrong] for wrong in near),
    )
    for aud in odd:
        yield vector(f"{aud!a:.60}", "", good.with_claims(aud=aud))


def dates(good: Good, shape: Shape, now: int) -> Iterator[Vector]:
    """Times: just good enough, just not, and no times at all."""
    for date in shape.dates:
        name = date.name
        for offset in date.fine:
            token = good.with_claims(**{name: now + offset})
            yield vector(f"{name}{offset:+}", "within what is forgiven", token, valid=True)
            token = good.with_claims(**{name: float(now + offset)})
            whole = shape.whole_seconds
            yield vector(f"{name}{offset:+}.0", "as a fraction", token, valid=not whole)
        for offset in date.wrong:
            token = good.with_claims(**{name: now + offset})
            yield vector(f"{name}{offset:+}", "beyond it", token)
        good_text = str(good.claims.get(name, now))
        no_dates: tuple[Any, ...] = (
            None,
            "",
            good_text,
            f"{good_text}.0",
            "2027-01-15T08:00:00Z",
            "now",
            True,
            False,
            [],
            [now],
            {},
            {"$gt": 0},
            -1,
            -0.5,
            -now,
            1e308,
            -1e308,
            2**31 - 1 - 2**32,
            2**63,
            2**64 + now,
            10**400,
            now * 1000,
            now * 1_000_000,
            _YEAR_10000,
        )
        for value in no_dates:
            token = good.with_claims(**{name: value})
            yield vector(f"{name}={value!s:.30}", "no date", token)
        for text in ("1e999", "-1e999", "NaN", "1e400", f"{now}e400", "9" * 4000):
            payload = good.payload(**{name: "HERE"}).replace(b'"HERE"', text.encode())
            yield vector(f"{name}={text:.20}", "no number", good.sign(claims=payload))


def others(good: Good, shape: Shape) -> Iterator[Vector]:
    """Claims that must not be there, and optional ones that are not what they should be."""
    for name in shape.forbidden:
        nested: tuple[Any, ...] = ({"sub": "a", "act": {"sub": "b"}}, {"sub": "a"}, {}, [], None)
        for value in (*nested, "a", 7, True):
            yield vector(f"{name}={value!s:.40}", "", good.with_claims(**{name: value}))
    for name, values in shape.odd:
        for value in values:
            yield vector(f"{name}={value!a:.50}", "", good.with_claims(**{name: value}))


def _no_text(value: str) -> tuple[Any, ...]:
    return "", True, False, 0, 7, -1, 1.5, [], [value], [value, value], {}, {"value": value}


def _spoilt(value: str) -> dict[str, str]:
    """The right text with something in it that isn't seen, or is too much."""
    spoils = {
        "nul": "\0",
        "newline": "\n",
        "return": "\r",
        "tab": "\t",
        "escape": "\x1b[2J",
        "delete": "\x7f",
        "c1": "\x85",
        "right-to-left": "\u202e",
        "isolate": "\u2066",
        "zero-width": "\u200b",
        "joiner": "\u200d",
        "soft-hyphen": "\u00ad",
        "bom": "\ufeff",
        "line-separator": "\u2028",
        "no-break-space": "\u00a0",
        "ideographic-space": "\u3000",
        "private-use": "\ue000",
        "no-character": "\uffff",
        "tag": "\U000e0041",
    }
    found = {name: f"{value[:3]}{spoil}{value[3:]}" for name, spoil in spoils.items()}
    found |= {f"{name}-behind": f"{value}{spoil}" for name, spoil in spoils.items()}
    found["blank"] = "\u2003"
    found["long"] = "x" * (MAX_TEXT + 1)
    found["4k"] = value + "x" * 4096
    return found


def _nearly(value: str) -> dict[str, str]:
    """Texts that a lax comparison takes for the right one."""
    homoglyphs = str.maketrans("aeopTO", "\u0430\u0435\u043e\u0440\u0422\u041e")
    found = {
        "slash": f"{value}/",
        "dot": f"{value}.",
        "cut": value[:-1],
        "longer": f"{value}x",
        "upper": value.upper(),
        "lower": value.lower(),
        "title": value.swapcase(),
        "space-behind": f"{value} ",
        "space-in-front": f" {value}",
        "nul-behind": f"{value}\0",
        "homoglyph": value.translate(homoglyphs),
        "wide": "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in value),
        "combining": f"{value}\u0301",
        "quoted": f'"{value}"',
        "escaped": value.replace("/", "\\/").replace(":", "%3A"),
        "userinfo": value.replace("://", "://x@"),
        "http": value.replace("https:", "http:"),
        "list": f"{value},{value}",
        "pattern": ".*",
    }
    return {name: text for name, text in found.items() if text != value}
