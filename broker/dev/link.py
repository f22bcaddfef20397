"""One-time links into the console of ``broker dev``."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

from broker.dev.config import FILE, subject_of
from broker.dev.issuer import NAME, DevIssuer
from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.clock import Clock

LINK_S: Final = 300
_ROLES: Final = ("operator", "auditor")


def first_operator(data: Path) -> str:
    """Return who the link printed at the start is for, or nothing: there is no operator."""
    document: dict[str, Any] = tomllib.loads((data / FILE).read_text("utf-8"))
    for role in _ROLES:
        for row in document.get("principals", ()):
            if row["role"] == role and row.get("identity", {}).get("issuer") == NAME:
                return row["name"]
    return ""


def console_link(name: str, data: Path, clock: Clock) -> str:
    """Return a link that signs in as a principal, once, within ``LINK_S`` seconds.

    Raises:
        ConfigError: the dev issuer doesn't speak for it, or the console is off.
    """
    subject = subject_of(name, data)
    document: dict[str, Any] = tomllib.loads((data / FILE).read_text("utf-8"))
    issuer: str = document["broker"]["issuer"]
    section: dict[str, Any] = document.get("console", {})
    if not section.get("enabled", True) or section.get("link_issuer") != NAME:
        raise ConfigError(
            f"the console of {issuer} takes no links of the dev issuer\n"
            f'    write enabled = true and link_issuer = "{NAME}" in [console], or leave both out'
        )
    audience = f"{issuer}/console"
    token = DevIssuer(data, clock).token(subject, ttl_s=LINK_S, audience=audience)
    return f"{audience}/sign-in/link?token={token.reveal()}"
