"""Packages with backends, installed for a test: found as any other, by their metadata."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path


@contextmanager
def installed(
    folder: Path, name: str, entry_points: Mapping[str, str], **modules: str
) -> Generator[Path]:
    """Install a package in a folder of its own: its entry points, and its modules' source."""
    lay_out(folder, name, entry_points, **modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for module in modules:
            sys.modules.pop(module, None)


def lay_out(folder: Path, name: str, entry_points: Mapping[str, str], **modules: str) -> None:
    """Write what installing a package writes."""
    about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {value}" for point, value in entry_points.items()]
    (about / "entry_points.txt").write_text("\n".join(["[broker.backends]", *lines, ""]))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source, "utf-8")
