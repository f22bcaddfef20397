"""What a command needs that isn't installed, and which extra of the package brings it."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Final

from broker.cli.refusals import CommandFailed

_EXTRAS: Final = {"dev": "embedded", "mcp": "mcp"}
"""Of the commands that need another one than the server's."""
_REQUIREMENT: Final = re.compile(
    r"""(?P<name>[\w.-]+)[^;]*;.*\bextra\s*==\s*["'](?P<extra>[\w-]+)["'].*"""
)


def not_installed(command: str) -> CommandFailed | None:
    """Say which extra a command of this name needs; None if all of that is installed."""
    extra = _EXTRAS.get(command, "server")
    try:
        whole = _is_whole(extra)
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return None
    if whole:
        return None
    return CommandFailed(
        "This command needs a part of the package that isn't installed here: "
        f"pip install 'broker[{extra}]'",
        code="not_installed",
    )


def _is_whole(extra: str) -> bool:
    """Whether everything is there that the installed package's metadata list for an extra."""
    for line in metadata.requires("broker") or ():
        found = _REQUIREMENT.fullmatch(line)
        if found and found["extra"] == extra:
            try:
                metadata.distribution(found["name"])
            except metadata.PackageNotFoundError:
                return False
    return True
