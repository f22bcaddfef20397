"""Reads policies and their cases: those of the package, and folders of files."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from broker.errors import ConfigError
from broker.policy.cedar import Source

if TYPE_CHECKING:
    from pathlib import Path

PATTERN: Final = "*.cedar"
CASES: Final = "*.cases.toml"
MAX_BYTES: Final = 1 << 20
"""A file of policies is text that people read."""


SHIPPED: Final = "default/"
"""How the names of the package's own files begin."""


def default_sources() -> tuple[Source, ...]:
    """Return the policies that ship with the package."""
    return _shipped(PATTERN)


def default_cases() -> tuple[Source, ...]:
    """Return the cases that ship with the package's policies."""
    return _shipped(CASES)


def _shipped(pattern: str) -> tuple[Source, ...]:
    folder = resources.files("broker.policy") / "defaults"
    files = sorted(f.name for f in folder.iterdir() if f.name.endswith(pattern[1:]))
    return tuple(Source(SHIPPED + name, (folder / name).read_text("utf-8")) for name in files)


def sources_in(folder: Path) -> tuple[Source, ...]:
    """Return the policies of a folder, by the names of their files.

    Raises:
        ConfigError: the folder or a file can't be read.
    """
    return _read(folder, PATTERN)


def cases_in(folder: Path) -> tuple[Source, ...]:
    """Return the files of cases in a folder.

    Raises:
        ConfigError: the folder or a file can't be read.
    """
    return _read(folder, CASES)


def _read(folder: Path, pattern: str) -> tuple[Source, ...]:
    try:
        files = sorted(folder.glob(pattern))
        if not folder.is_dir():
            raise NotADirectoryError(folder)
        return tuple(Source(file.name, _text(file)) for file in files)
    except OSError as error:
        reason = error.strerror or "it is not a folder"
        raise ConfigError(f"policies in {folder}: can't be read: {reason}") from error


def _text(file: Path) -> str:
    data = file.read_bytes()
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{file}: is over {MAX_BYTES >> 20} MiB: is it the right file?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text\n    save the file as UTF-8") from None
