"""docs/quickstart.md, from the first command to the last, as a new user types it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.dev.broker_process import PROGRAM, WAIT_S, Server, environment
from tests.docs.blocks import DOCS

TEXT = (DOCS / "quickstart.md").read_text("utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"(?ms)^```(\w+)\n(.*?)^```", TEXT)
PROGRAMS: list[tuple[str, str]] = re.findall(
    r"(?ms)^Save this as `([a-z]+\.py)`:\n\n```python\n(.*?)^```", TEXT
)
START = [
    "python3 -m venv .venv",
    ".venv/bin/pip install 'broker[embedded]'",
    ".venv/bin/broker dev",
]
ACTIVATE = ". .venv/bin/activate\n"
COPIED = "TASK=tsk_…    # as the list says\n"
FOUND = (
    "broker task list --json | python -c 'import json, sys;"
    ' print(*(t["task_id"] for t in json.load(sys.stdin)["items"] if "boss" in t["purpose"]))\''
)
MARK = "--- next ---"
FIVE_MINUTES_S = 300
FIRST_CALL = "sent to boss@example.com"


def fits(expected: str, said: str) -> bool:
    """Whether the output is what the page shows; an ellipsis stands for anything."""
    pattern = ".*".join(map(re.escape, expected.split("…")))
    return re.fullmatch(pattern, said, re.DOTALL) is not None


def played() -> list[tuple[str, str | None]]:
    """Return the commands of the second terminal, block by block, with the output shown."""
    shown = [block for block in BLOCKS if block[0] in {"sh", "text"}]
    assert shown[0][1].splitlines() == START
    found: list[tuple[str, str | None]] = []
    for language, text in shown[1:]:
        if language == "sh":
            found.append((text, None))
        else:
            found[-1] = (found[-1][0], text)
    return found


def test_from_nothing_to_the_first_guarded_call(tmp_path: Path) -> None:
    for name, text in PROGRAMS:
        (tmp_path / name).write_text(text, "utf-8")
    assert len(PROGRAMS) == len([block for block in BLOCKS if block[0] == "python"]) == 2
    steps = played()
    assert steps[0][0].startswith(ACTIVATE)
    script = f"echo '{MARK}'\n".join(text for text, _ in steps)
    assert script.count(COPIED) == 1
    script = script.replace(COPIED, f"TASK=$({FOUND})\n")
    began = time.monotonic()
    with Server(tmp_path / "log", "dev", "--port", 0, "--data", tmp_path / ".broker/dev") as dev:
        dev.wait_ready()
        said = _typed(script.removeprefix(ACTIVATE), tmp_path)
        took = time.monotonic() - began
    outputs = said.split(f"{MARK}\n")
    assert len(outputs) == len(steps), said
    for (commands, expected), output in zip(steps, outputs, strict=True):
        if expected is not None:
            assert fits(expected, output), f"{commands}\n{output}"
    assert FIRST_CALL in said
    assert "cancelled" in outputs[-2]
    assert outputs[-2].count("completed") == 2
    sys.stdout.write(f"{took:.1f} s without the installation\n")  # pytest -rP shows it
    assert took < FIVE_MINUTES_S


def _typed(script: str, folder: Path) -> str:
    """Run commands in one shell whose PATH has the environment that the page makes."""
    bash = shutil.which("bash")
    assert bash is not None
    path = f"{Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-eu", "-c", f"exec 2>&1\n{script}"],
        cwd=folder,
        env=environment(PATH=path, PYTHONUNBUFFERED="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
