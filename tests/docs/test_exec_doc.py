"""docs/exec.md: the commands that are played there end as it says, and its lists are complete."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from broker.cli.exec import app as exec_app
from broker.client.conventions import LIBPQ, PROGRAMS
from broker.exec import running
from broker.exec.environment import ALLOWED
from tests.dev.broker_process import PROGRAM, Server, environment
from tests.docs.blocks import DOCS
from tests.e2e.test_cli_live import Cli, address, config_of
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.config import Config
    from broker.dev.stack import DevStack

pytestmark = pytest.mark.usefixtures("empty_ledger")

TEXT: Final = (DOCS / "exec.md").read_text("utf-8")
BLOCKS: Final = re.findall(r"(?ms)^```sh played\n(.*?)^```", TEXT)


@pytest.fixture(scope="module")
def cli(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cli]:
    tokens = tmp_path_factory.mktemp("tokens")
    for name, subject in SUBJECTS.items():
        (tokens / name).write_text(engines[0].issuer.token(subject).reveal())
    folder = tmp_path_factory.mktemp("serve")
    config = config_of(engines[0], folder)
    with Server(folder / "log", "serve", "--config", config) as server:
        server.wait_ready()
        yield Cli(address(config), config, tokens)
        assert server.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_what_is_played_ends_as_it_says(cli: Cli, number: int) -> None:
    task = cli.open() if "$TASK" in BLOCKS[number] else ""
    for line in BLOCKS[number].replace("\\\n", " ").splitlines():
        words = shlex.split(line.partition("#")[0].replace("$TASK", task))
        code = int(line.rpartition("#")[2])
        ran = subprocess.run(
            [PROGRAM, *words[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(**cli.environment("orchestrator")),
            check=False,
        )
        assert ran.returncode == code, f"{line}: {ran.stderr}"
        if "printenv" in words:
            assert len(ran.stdout.split()) == len(words) - words.index("printenv") - 1


def test_blocks_are_played() -> None:
    assert len(BLOCKS) == 4


def test_the_page_has_every_preset_variable_and_code() -> None:
    for name, variables in PROGRAMS.items():
        assert f"| `{name}` |" in TEXT
        for variable in variables:
            assert f"`{variable}`" in TEXT
    assert all(f"`{variable}`" in TEXT for variable in LIBPQ.values())
    for variable in ALLOWED:
        assert f"`{variable}`" in TEXT or variable.startswith("LC_"), variable
    codes = [getattr(running, n) for n in ("REVOKED", "UNCONFIRMED", "REFUSED")]
    assert all(f"| {code} |" in TEXT for code in codes)
    assert all(f"  {code}  " in (exec_app.help_epilogue or "") for code in codes)
    assert Path(PROGRAM).name == "broker"
