"""However the program ends, its task ends too, and PostgreSQL lets nobody in any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.sdk.world import logs_in

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.sdk.world import Sdk

ROOT = Path(__file__).parents[2]
HEAD = """
import asyncio, os, signal, sys, threading
from broker.client import AsyncClient, Client
ASK = ("report-writer", "a program", ["orders-read"])

def ready(task, orders):
    print(task.task_id, orders.dsn().reveal(), flush=True)
"""


class Program:
    """A program that has printed its task and its credential."""

    def __init__(self, sdk: Sdk, tmp_path: Path, body: str) -> None:
        token = tmp_path / "token"
        token.write_text(sdk.world.identity("orchestrator"))
        script = tmp_path / "program.py"
        script.write_text(HEAD + textwrap.dedent(body))
        environment = {"BROKER_URL": sdk.url, "BROKER_IDENTITY_TOKEN_FILE": str(token)}
        self.process = subprocess.Popen(
            [sys.executable, script],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert len(line) == 2, self.process.communicate()[1]
        self.task_id, self.dsn = line

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def start(sdk: Sdk, tmp_path: Path) -> Generator[Any]:
    """Starts programs, which don't outlive the test."""
    made: list[Program] = []

    def start(body: str) -> Program:
        made.append(Program(sdk, tmp_path, body))
        assert logs_in(made[-1].dsn)
        return made[-1]

    yield start
    for program in made:
        program.process.kill()
        program.process.communicate()


BLOCK = """
with Client() as client, client.task(*ASK) as task:
    ready(task, task.grant("orders-read"))
    threading.Event().wait()
"""
LOOP = """
async def main():
    async with AsyncClient() as client, client.task(*ASK) as task:
        ready(task, await task.grant("orders-read"))
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("body", [BLOCK, LOOP], ids=["sync", "async"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
def test_a_signal_ends_the_task_and_then_the_program(
    sdk: Sdk, start: Any, body: str, number: signal.Signals
) -> None:
    program = start(body)
    program.process.send_signal(number)
    code, _, err = program.ended()
    assert (code, err) == (-number, "")
    shown = sdk.shown(program.task_id)
    assert (shown["state"], shown["summary"]) == ("cancelled", number.name)
    assert not logs_in(program.dsn)


@pytest.mark.parametrize("body", [BLOCK, LOOP], ids=["sync", "async"])
def test_an_interrupt_cancels(sdk: Sdk, start: Any, body: str) -> None:
    program = start(body)
    program.process.send_signal(signal.SIGINT)
    assert program.ended()[0] == -signal.SIGINT
    assert sdk.shown(program.task_id)["state"] == "cancelled"
    assert not logs_in(program.dsn)


def test_the_handler_that_was_there_is_called_afterwards(sdk: Sdk, start: Any) -> None:
    program = start("""
        def mine(number, frame):
            print("mine", task.end.state, flush=True)
            sys.exit(7)

        signal.signal(signal.SIGTERM, mine)
        with Client() as client:
            with client.task(*ASK) as task:
                ready(task, task.grant("orders-read"))
                threading.Event().wait()
        """)
    program.process.send_signal(signal.SIGTERM)
    code, out, err = program.ended()
    assert (code, out, err) == (7, "mine cancelled\n", "")
    assert not logs_in(program.dsn)


def test_a_handler_is_put_back_and_an_ignored_signal_stays_ignored(start: Any) -> None:
    program = start("""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Client() as client:
            with client.task(*ASK) as task:
                orders = task.grant("orders-read")
                assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
                ready(task, orders)
                sys.stdin.read()
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            assert threading.active_count() == 1
        """)
    code, _, err = program.ended()
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    "body",
    [
        """
        task = Client().task(*ASK).open()
        ready(task, task.grant("orders-read"))
        sys.stdin.read()
        """,
        """
        async def main():
            task = await AsyncClient().task(*ASK).open()
            ready(task, await task.grant("orders-read"))
            sys.stdin.read()

        asyncio.run(main())
        """,
        """
        def work():
            with Client() as client, client.task(*ASK) as task:
                ready(task, task.grant("orders-read"))
                threading.Event().wait()

        threading.Thread(target=work, daemon=True).start()
        sys.stdin.read()
        """,
    ],
    ids=["sync", "async", "daemon-thread"],
)
def test_a_program_that_just_ends_cancels_what_it_has_open(
    sdk: Sdk, tmp_path: Path, body: str
) -> None:
    program = Program(sdk, tmp_path, body)
    assert program.ended()[0] == 0
    shown = sdk.shown(program.task_id)
    assert (shown["state"], shown["summary"]) == ("cancelled", "the program ended")
    assert not logs_in(program.dsn)


def test_a_forked_child_does_not_end_its_parents_task(sdk: Sdk, start: Any) -> None:
    program = start("""
        from broker.client import InvalidRequest

        with Client() as client:
            with client.task(*ASK) as task:
                orders = task.grant("orders-read")
                child = os.fork()
                if child:
                    assert os.waitpid(child, 0)[1] == 0
                    task.check()
                    ready(task, orders)
                    threading.Event().wait()
                try:
                    orders.dsn()
                except InvalidRequest as error:
                    assert error.code == "forked"
                    assert task.task_id in error.detail
                else:
                    os._exit(9)
        """)
    assert sdk.shown(program.task_id)["state"] == "active"
    program.process.send_signal(signal.SIGTERM)
    assert program.ended()[0] == -signal.SIGTERM
    assert sdk.shown(program.task_id)["state"] == "cancelled"


def test_killed_it_is_dead_within_its_heartbeat(sdk: Sdk, start: Any) -> None:
    program = start(BLOCK.replace("task(*ASK)", 'task(*ASK, heartbeat="1s")'))
    program.process.kill()
    program.ended()
    sdk.swept_until(lambda: not logs_in(program.dsn), "PostgreSQL refuses it")
    shown = sdk.shown(program.task_id)
    assert shown["state"] == "expired", shown
    assert shown["reason"] == "heartbeat_lost"


def test_a_signal_in_the_middle_of_a_call_ends_the_task_too(sdk: Sdk, start: Any) -> None:
    program = start("""
        with Client() as client:
            with client.task("report-writer", "p", ["orders-read", "deploy"]) as task:
                orders = task.grant("orders-read")
                threading.Timer(1, ready, (task, orders)).start()
                task.grant("deploy", wait="1h")
        """)
    program.process.send_signal(signal.SIGTERM)
    assert program.ended()[0] == -signal.SIGTERM
    assert sdk.shown(program.task_id)["state"] == "cancelled"
    assert not logs_in(program.dsn)
