"""Options that are given as ``KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Iterable

from broker.cli.refusals import UsageError


def parse_pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Read ``KEY=VALUE`` texts; values stay text.

    Raises:
        UsageError: one isn't a pair, or a key comes twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not key or not separator:
            raise UsageError(f"{option} takes KEY=VALUE, not {text!r}")
        if key in pairs:
            raise UsageError(f"{option} has {key!r} twice")
        pairs[key] = value
    return pairs
