"""The dev configuration with capabilities of further secrets engines."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.config import Config
    from broker.dev.stack import DevStack


def with_capabilities(
    stack: DevStack, rows: Sequence[dict[str, Any]], **sections: dict[str, Any]
) -> Config:
    """What the agents may have besides; ``sections`` change settings."""
    document: dict[str, Any] = tomllib.loads((stack.data / FILE).read_text("utf-8"))
    document["capabilities"] += [{"power": "read", "backend": "vault", **row} for row in rows]
    for principal in document["principals"]:
        if principal["role"] == "agent":
            principal["capabilities"] += [row["name"] for row in rows]
    for name, changes in sections.items():
        document[name] = {**document.get(name, {}), **changes}
    return parse_config(tomli_w.dumps(document), stack.data / FILE)
