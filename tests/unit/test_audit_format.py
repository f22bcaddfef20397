"""The page about the format is right: its script checks a real log, and finds what was changed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker.audit.segments import segments
from tests.unit.audit_world import LogWorld

PAGE = (Path(__file__).parents[2] / "docs/audit-format.md").read_text("utf-8")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    found = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 1
    path = tmp_path / "check.py"
    path.write_text(found[0], "utf-8")
    return path


def run(script: Path, world: LogWorld) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(script), str(world.folder), str(world.signer.key)]
    return subprocess.run(words, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("batches", [(1,), (3, 4), (5, 5, 5, 4)], ids=["one", "few", "many"])
def test_the_pages_script_checks_a_log_without_our_code(
    tmp_path: Path, script: Path, batches: tuple[int, ...]
) -> None:
    world = LogWorld(tmp_path / "audit")
    size = world.fill(*batches).size
    with world.open() as writer:
        world.append(writer, 2)
    done = run(script, world)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == f"{size + 2} records, the first {size} of them signed\n"


def test_the_pages_script_finds_what_was_changed(tmp_path: Path, script: Path) -> None:
    world = LogWorld(tmp_path / "audit")
    world.fill(5, 5, 5)
    for _, path in segments(world.folder):
        good = path.read_bytes()
        for bad in (
            good.replace(b"report-writer", b"somebody-else", 1),
            good.replace(b"report-writer", b"somebody-else"),
            good[: good.rstrip().rindex(b"\n") + 1],
        ):
            path.write_bytes(bad)
            assert run(script, world).returncode == 1
        path.write_bytes(good)
    latest = world.folder / "checkpoints" / "latest"
    latest.write_text(latest.read_text().replace("\n15\n", "\n14\n"))
    assert "InvalidSignature" in run(script, world).stderr


def test_the_page_names_every_member_of_a_header(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "audit")
    world.fill(1)
    header = segments(world.folder)[0][1].read_text().splitlines()[0]
    named = set(re.findall(r"^\| `([a-z]+)` \|", PAGE, re.MULTILINE))
    assert named == set(re.findall(r'"([a-z]+)":', header))
