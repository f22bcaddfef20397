"""An environment with the base package alone, made of files at hand: no network, no index.

The wheel is built from this tree and installed by pip into a fresh environment. What it requires
without an extra is linked there out of the environment that the tests run in, distribution by
distribution, as the installed metadata say; nothing else of that environment can be imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.dev.broker_process import WAIT_S, Ran, environment

ROOT = Path(__file__).parents[2]
_SHARED = {"", "..", "__pycache__"}
"""Where a distribution's files may be beside others'."""


@dataclass(frozen=True)
class Bare:
    """The environment, and what is in it."""

    python: Path
    program: Path
    distributions: frozenset[str]

    def run(self, *command: object, **env: str) -> Ran:
        """Run a program of it to its end, outside of any checkout."""
        ran = subprocess.run(
            [str(part) for part in command],
            cwd=self.python.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            env=_outside(**env),
            check=False,
        )
        assert "Traceback" not in ran.stderr, ran.stderr
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def broker(self, *arguments: object, **env: str) -> Ran:
        return self.run(self.program, *arguments, **env)

    def script(self, text: str, *arguments: object) -> Ran:
        return self.run(self.python, "-c", text, *arguments)


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this tree, with the build backend that is installed."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=_outside())
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_bare(folder: Path, wheel: Path) -> Bare:
    """Make the environment in a folder, and install the wheel there."""
    place = folder / "bare"
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, env=_outside())
    (site,) = place.glob("lib/python3*/site-packages")
    (installed,) = metadata.distributions(name="broker", path=[str(site)])
    needed = closure(installed.requires or [])
    for name in needed:
        _link(name, site)
    return Bare(python, place / "bin" / "broker", frozenset(needed))


def closure(requirements: list[str], extra: str = "") -> set[str]:
    """Name every distribution that these require, and those in turn, on this machine."""
    found: set[str] = set()
    left = [(line, extra) for line in requirements]
    while left:
        line, asked = left.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": asked}):
            continue
        name = canonicalize_name(requirement.name)
        for further in {"", *requirement.extras}:
            if (key := f"{name}[{further}]") not in found:
                found.add(key)
                left += [(below, further) for below in metadata.requires(name) or []]
    return {key.partition("[")[0] for key in found}


def modules(names: frozenset[str]) -> set[str]:
    """Return what the distributions of these names bring to import."""
    provided = metadata.packages_distributions()
    return {
        module
        for module, owners in provided.items()
        if {canonicalize_name(owner) for owner in owners} & names
    }


def _link(name: str, site: Path) -> None:
    """Link each thing of a distribution's at the top of site-packages, by name."""
    distribution = metadata.distribution(name)
    tops = {file.parts[0] for file in distribution.files or []} - _SHARED
    assert tops, f"{name}: its metadata lists no files"
    for top in tops:
        (site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())


def _outside(**more: str) -> dict[str, str]:
    """Leave out what would let this environment in, or keep modules from being compiled."""
    kept = environment(**more)
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"):
        kept.pop(name, None)
    return kept | {"PATH": os.defpath} | {"HOME": str(Path.home())}
