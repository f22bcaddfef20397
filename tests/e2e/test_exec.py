"""``broker exec`` on real engines: pitfall 25, and what PostgreSQL says after each kind of end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.exec.environment import ALLOWED
from tests.dev.broker_process import PROGRAM, Server, alive, environment, eventually
from tests.e2e.test_cli_live import Cli, address, config_of, logs_in
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.config import Config
    from broker.dev.stack import DevStack

pytestmark = pytest.mark.usefixtures("empty_ledger")

CANARY: Final = "canary-8d1f"
ORDER: Final = ("--agent", "report-writer", "--purpose", "count", "--capability", "orders-read")
POSTGRES: Final = {"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "DATABASE_URL"}
ENVIRON: Final = Path("/proc/self/environ")

# It says its DSN and waits: until it is told to go on, or is ended.
CHILD: Final = """
import os, psycopg, sys
connection = psycopg.connect("", connect_timeout=10)
assert connection.execute("select count(*) from orders").fetchone()
print(os.environ["DATABASE_URL"], os.getpid(), flush=True)
sys.stdin.readline()
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


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


class Running:
    """One ``broker exec`` with a child that has logged in."""

    def __init__(
        self, cli: Cli, *words: str, order: tuple[str, ...] = ORDER, who: str = "orchestrator"
    ) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "exec", *order, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**cli.environment(who), SECRET_OF_OURS=CANARY),
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert len(line) == 2, self.process.communicate(timeout=30)
        self.dsn, self.child = line[0], int(line[1])
        assert logs_in(self.dsn)

    def ended(self, text: str | None = None) -> tuple[int, str]:
        _, err = self.process.communicate(text, timeout=60)
        assert "Traceback" not in err, err
        return self.process.returncode, err


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", code, *arguments)


def last_task(cli: Cli) -> Any:
    return cli.json("operator", "task", "list", "--limit", "1")["items"][0]


@pytest.mark.parametrize(("code", "state"), [(0, "completed"), (7, "failed")])
def test_a_command_has_its_credential_until_it_ends(cli: Cli, code: int, state: str) -> None:
    running = Running(cli, *python(CHILD, str(code)))
    assert running.ended("\n") == (code, "")
    assert not logs_in(running.dsn)
    task = last_task(cli)
    assert (task["state"], task["summary"]) == (state, f"exit code {code}")
    (grant,) = cli.json("operator", "grant", "list", "--task", task["task_id"])["items"]
    assert grant["state"] == "revoked"


def test_it_sees_nothing_of_ours(cli: Cli, tmp_path: Path) -> None:
    """Not in its environment, its files or its arguments; nor do others see what it was given."""
    looks = """
import json, os
from pathlib import Path
files = {n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
         if os.path.exists(f"/proc/self/fd/{n}")}
print(json.dumps({
    "environ": Path("/proc/self/environ").read_text(),
    "os": dict(os.environ),
    "files": files,
    "parent": Path(f"/proc/{os.getppid()}/cmdline").read_text(),
    "mine": Path("/proc/self/cmdline").read_text(),
}))
"""
    leaked = os.open(tmp_path / "leaked", os.O_CREAT | os.O_RDWR)
    ran = subprocess.run(
        [PROGRAM, "exec", *ORDER, "--pass-env", "WANTED", *python(looks)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        pass_fds=[leaked],
        env=environment(
            **cli.environment("orchestrator"),
            SECRET_OF_OURS=CANARY,
            AWS_SECRET_ACCESS_KEY=CANARY,
            BROKER_IDENTITY_TOKEN=CANARY,
            LC_CANARY=CANARY,
            LD_LIBRARY_PATH="/tmp",  # noqa: S108
            WANTED="this",
        ),
    )
    os.close(leaked)
    seen = json.loads(ran.stdout)
    assert CANARY not in ran.stdout
    names = {row.partition("=")[0] for row in seen["environ"].split("\0") if row}
    assert names == seen["os"].keys() - {"LC_CTYPE"} | (names & {"LC_CTYPE"})  # Python's own
    assert names - {"LC_CTYPE"} <= {*ALLOWED, *POSTGRES, "WANTED"}
    assert seen["os"]["WANTED"] == "this"
    assert names >= POSTGRES
    assert seen["files"].keys() <= {"0", "1", "2"}
    password = seen["os"]["PGPASSWORD"]
    assert password
    assert password not in seen["parent"] + seen["mine"]
    assert not logs_in(seen["os"]["DATABASE_URL"])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"])
def test_each_signal_ends_both_and_all(cli: Cli, name: str) -> None:
    running = Running(cli, *python("import signal\nsignal.signal(2, signal.SIG_DFL)\n" + CHILD))
    number = signal.Signals[name]
    running.process.send_signal(number)
    assert running.ended() == (128 + number, "")
    assert not alive(running.child)
    assert not logs_in(running.dsn)
    task = last_task(cli)
    assert (task["state"], task["summary"]) == ("cancelled", f"killed by {name}")


def test_killed_it_leaves_a_credential_that_dies_within_its_heartbeat(cli: Cli) -> None:
    running = Running(cli, "--heartbeat", "2s", *python(CHILD))
    running.process.kill()
    running.ended()
    if sys.platform == "linux":
        eventually(lambda: not alive(running.child), "its child ends")
    eventually(lambda: not logs_in(running.dsn), "the credential is dead", 20)
    task = last_task(cli)
    assert (task["state"], task["reason"]) == ("expired", "heartbeat_lost")


def test_it_outlives_its_heartbeat_while_it_runs(cli: Cli) -> None:
    counts = CHILD.replace("sys.stdin", "import time; time.sleep(4); sys.stdin")
    running = Running(cli, "--heartbeat", "2s", *python(counts))
    assert running.ended("\n") == (0, "")
    assert last_task(cli)["state"] == "completed"


@pytest.mark.parametrize("what", ["task", "capability"])
def test_an_operator_ends_it(cli: Cli, what: str) -> None:
    # It doesn't end by itself, when its input does: then it might before it is noticed.
    waits = CHILD.replace("sys.stdin.readline()", "signal.pause()")
    stubborn = "import signal\nsignal.signal(15, signal.SIG_IGN)\n" + waits
    running = Running(cli, "--heartbeat", "3s", "--grace", "200ms", *python(stubborn))
    name = last_task(cli)["task_id"] if what == "task" else "orders-read"
    ran = cli.run("operator", "revoke", f"--{what}", name, "--reason", "drill")
    assert ran.code == 0, ran.err
    code, err = running.ended()
    assert code == 123, err
    assert re.search(r"was (ended|revoked).*; the command is told to end", err)
    assert not alive(running.child)
    assert not logs_in(running.dsn)


@pytest.mark.parametrize("who", ["orchestrator", "report-writer"])
def test_under_a_task_that_goes_on(cli: Cli, who: str) -> None:
    task = cli.open()
    ran = cli.run("report-writer", "grant", "request", task, "orders-read", "--field", "dsn")
    order = ("--task", task, "--capability", "orders-read")
    running = Running(cli, *python(CHILD), order=order, who=who)
    assert running.ended("\n") == (0, "")
    assert not logs_in(running.dsn)
    assert logs_in(ran.out.strip()), "a grant that isn't its own"
    assert cli.json("orchestrator", "task", "show", task)["state"] == "active"
    cli.run("orchestrator", "task", "cancel", task)


def test_an_agent_runs_a_child_task(cli: Cli) -> None:
    parent = cli.open()
    order = ("--agent", "order-clerk", *ORDER[2:], "--parent", parent)
    running = Running(cli, *python(CHILD), order=order, who="report-writer")
    child = last_task(cli)
    assert (child["parent_task_id"], child["state"]) == (parent, "active")
    assert cli.json("orchestrator", "task", "cancel", parent)["state"] == "cancelled"
    code, err = running.ended()
    # Its token has died with the task that it acts under, so it can't look any more, and says so.
    assert code == 124
    assert "not confirmed dead" in err
    assert not logs_in(running.dsn)


@pytest.mark.parametrize(
    ("options", "dsn"),
    [
        (
            (
                "--file",
                "PGPASSFILE={{pgpass}}",
                "--env",
                "T=host={{host}} port={{port}} dbname={{database}} user={{username}}",
            ),
            "T",
        ),
        (("--file", "PGSERVICEFILE={{pgservice}}", "--env", "T=service=broker"), "T"),
        (("--env", "T={{orders-read.dsn}}"), "T"),
        (("--env-preset", "plain"), "BROKER_CREDENTIAL_DSN"),
    ],
)
def test_the_ways_to_hand_it_over(cli: Cli, options: tuple[str, ...], dsn: str) -> None:
    child = f"""
import os, psycopg
path = os.environ.get("PGPASSFILE") or os.environ.get("PGSERVICEFILE") or ""
with psycopg.connect(os.environ[{dsn!r}], connect_timeout=10) as c:
    print(c.info.user, path, "PGPASSWORD" in os.environ)
"""
    env = cli.environment("orchestrator")
    ran = subprocess.run(
        [PROGRAM, "exec", *ORDER, *options, *python(child)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**env),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    user, *path, other = ran.stdout.split()
    assert user.startswith("v-")
    assert other == "False"
    assert not any(map(os.path.exists, path))


def test_two_credentials(cli: Cli) -> None:
    order = ("--agent", "report-writer", "--purpose", "x", "--capability", "orders-read")
    child = "import os; print(len(os.environ['TOKEN'].split('.')), os.environ['PGUSER'])"
    more = ("--capability", "orders-api", "--env", "TOKEN={{orders-api.access_token}}")
    ran = subprocess.run(
        [PROGRAM, "exec", *order, *more, *python(child)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**cli.environment("orchestrator")),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"3 v-\S+\n", ran.stdout)


def test_no_grant_no_command(cli: Cli) -> None:
    order = ("--agent", "report-writer", "--purpose", "x", "--capability", "orders-write")
    ran = cli.run("orchestrator", "exec", *order, *python("print('never')"))
    assert (ran.code, ran.out) == (125, "")
    assert "Policy refused the task" in ran.err


def test_nothing_that_it_had_is_in_the_log(cli: Cli) -> None:
    running = Running(cli, *python(CHILD))
    task = last_task(cli)["task_id"]
    running.ended("\n")
    events = json.dumps(cli.json("auditor", "audit", "list", "--task", task))
    password = running.dsn.partition("@")[0].rpartition(":")[2]
    assert password not in events
    assert "run count" in events or "count" in events
