"""``broker credential``: what AWS SDKs, git and libpq get, and that they don't fill the ledger."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker.client import Client
from broker.clock import SystemClock
from broker.exec.files import in_memory
from broker.exec.keeping import Keeper, folder
from tests.unit.cli_runner import PROGRAM
from tests.unit.fake_broker import GRANT, ISSUED, TASK, FakeBroker, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.cli_runner import Run

TASK_ID, GRANT_ID = TASK["task_id"], GRANT["grant_id"]
GRANTS = f"POST /v1/tasks/{TASK_ID}/grants"
FAR = "2099-01-02T03:04:05Z"
KEY = {"type": "aws", "access_key": "AKIA", "secret_key": "hush", "session_token": "sess"}
LOGIN = {"type": "kv", "username": "bot", "password": "hunter2"}
AWS = ("credential", "aws", "s3-read", "--task", TASK_ID)
GIT = ("--capability", "git-push", "--host", "git.example", "--task", TASK_ID)
ASKED = "protocol=https\nhost=git.example\n\n"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory, as a session has one."""
    shared = Path("/dev/shm")  # noqa: S108  private below
    if not in_memory(shared):
        pytest.skip("there is no file system in memory here")
    made = shared / f"broker-test-{os.getpid()}"
    made.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    yield made / "broker"
    shutil.rmtree(made)


def issuing(fake: FakeBroker, credential: dict[str, Any], **more: Any) -> FakeBroker:
    issued = {**ISSUED, "expires_at": FAR, "credential": credential, **more}
    fake.on(GRANTS, 201, issued)
    fake.on(f"GET /v1/tasks/{TASK_ID}", 200, TASK)
    fake.on(f"GET /v1/grants/{GRANT_ID}", 200, {**GRANT, "state": "active"})
    fake.on(f"DELETE /v1/grants/{GRANT_ID}", 200, GRANT)
    return fake


def issued(fake: FakeBroker) -> int:
    return len([seen for seen in fake.seen if seen.path.endswith("/grants")])


def test_aws_gets_what_it_expects_and_asks_again_for_the_same(
    fake: FakeBroker, run: Run, memory: Path
) -> None:
    issuing(fake, KEY)
    first = run(*AWS)
    assert first.code == 0, first.err
    assert first.json == {
        "Version": 1,
        "AccessKeyId": "AKIA",
        "SecretAccessKey": "hush",
        "SessionToken": "sess",
        "Expiration": FAR,
    }
    assert run(*AWS).json == first.json
    assert issued(fake) == 1
    assert run(*AWS, "--parameter", "role_arn=x").code == 0
    assert issued(fake) == 2, "another set of parameters is another credential"
    assert memory.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in memory.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "grant",
    [
        pytest.param((200, {**GRANT, "state": "revoked"}), id="revoked"),
        pytest.param((404, {"code": "not_found"}), id="of another ledger"),
    ],
)
def test_what_is_dead_is_not_handed_out_again(
    fake: FakeBroker, run: Run, memory: Path, grant: tuple[int, dict[str, Any]]
) -> None:
    issuing(fake, KEY)
    run(*AWS)
    fake.answers[f"GET /v1/grants/{GRANT_ID}"].clear()
    fake.on(f"GET /v1/grants/{GRANT_ID}", *grant)
    assert run(*AWS).code == 0
    assert issued(fake) == 2


def test_what_ends_soon_is_not_handed_out_again(fake: FakeBroker, run: Run, memory: Path) -> None:
    issuing(fake, KEY, expires_at="2026-01-02T03:04:05Z")
    run(*AWS)
    run(*AWS)
    assert issued(fake) == 2


def test_while_the_broker_is_down_nothing_is_handed_out(
    fake: FakeBroker, run: Run, memory: Path
) -> None:
    issuing(fake, KEY)
    run(*AWS)
    fake.answers[f"GET /v1/grants/{GRANT_ID}"].clear()
    fake.answers[f"GET /v1/grants/{GRANT_ID}"].append(problem(503, "unavailable", "down"))
    ran = run(*AWS)
    assert (ran.code, ran.out) == (3, "")
    assert issued(fake) == 1


def test_many_at_once_get_one(fake: FakeBroker, memory: Path) -> None:
    issuing(fake, KEY)

    def ask(_: int) -> str:
        command = [sys.executable, "-c", PROGRAM, *AWS]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
    assert issued(fake) == 1


def test_what_is_kept_is_not_trusted_blindly(fake: FakeBroker, run: Run, memory: Path) -> None:
    issuing(fake, KEY)
    run(*AWS)
    (kept,) = [file for file in memory.iterdir() if not file.name.endswith(".lock")]
    kept.write_text('{"since": 1, "issued": {"credential": 7}}')
    assert run(*AWS).json["AccessKeyId"] == "AKIA"
    kept.unlink()
    kept.symlink_to("/etc/passwd")
    assert run(*AWS).json["AccessKeyId"] == "AKIA"
    assert not kept.is_symlink()
    memory.chmod(0o755)
    assert folder([memory]) is None, "somebody else could look in"


def test_without_memory_nothing_is_kept(fake: FakeBroker, tmp_path: Path) -> None:
    if not in_memory(tmp_path):
        assert folder([tmp_path / "broker", Path("/proc/broker")]) is None
    with Client(fake.url) as broker:
        keeper = Keeper(None, "x", clock=SystemClock())
        issuing(fake, KEY)
        for _ in range(2):
            keeper.get(broker, lambda: broker.request_grant(TASK_ID, "s3-read"))
    assert issued(fake) == 2
    assert keeper.drop() is None


def test_aws_is_told_what_there_is_instead(fake: FakeBroker, run: Run, memory: Path) -> None:
    issuing(fake, LOGIN)
    ran = run(*AWS)
    assert (ran.code, ran.out) == (1, "")
    assert "no 'access_key': it has" in ran.err
    assert "hunter2" not in ran.err


def test_a_task_has_to_be_named(fake: FakeBroker, run: Run) -> None:
    ran = run("credential", "aws", "s3-read")
    assert ran.code == 2
    assert "--task" in ran.err
    assert fake.seen == []


def git(words: str, *more: str, text: str = ASKED) -> tuple[int, str, str]:
    command = [sys.executable, "-c", PROGRAM, "credential", "git", *GIT, *more, words]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, input=text)
    return ran.returncode, ran.stdout, ran.stderr


def test_git_gets_a_login(fake: FakeBroker, memory: Path) -> None:
    issuing(fake, LOGIN)
    end = "password_expiry_utc=4071006245\n"
    assert git("get") == (0, f"username=bot\npassword=hunter2\n{end}", "")
    assert git("store", text=ASKED + "password=hunter2\n") == (0, "", "")
    assert git("get")[1].startswith("username=bot")
    assert issued(fake) == 1
    assert git("erase") == (0, "", "")
    assert [seen.path for seen in fake.seen if seen.method == "DELETE"] == [
        f"/v1/grants/{GRANT_ID}"
    ]
    assert git("erase") == (0, "", "")
    git("get")
    assert issued(fake) == 2


def test_git_gets_a_token_as_a_password(fake: FakeBroker, memory: Path) -> None:
    issuing(fake, {"type": "token", "access_token": "tok"})
    assert git("get")[1].startswith("username=x-access-token\npassword=tok\n")
    assert git("get", "--username", "oauth2")[1].startswith("username=oauth2\n")


@pytest.mark.parametrize(
    "text",
    [
        "protocol=http\nhost=git.example\n",
        "protocol=https\nhost=git.example.evil\n",
        "protocol=https\nhost=git.example:8443\n",
        "host=git.example\n",
        "protocol=https\nhost=evil\n\nhost=git.example\n",
        "",
    ],
)
def test_another_host_gets_nothing(fake: FakeBroker, memory: Path, text: str) -> None:
    issuing(fake, LOGIN)
    assert git("get", text=text) == (0, "", "")
    assert fake.seen == []


def test_a_line_break_cannot_add_lines(fake: FakeBroker, memory: Path) -> None:
    issuing(fake, {**LOGIN, "password": "x\nhost=evil"})
    code, out, err = git("get")
    assert (code, out) == (1, "")
    assert "line break" in err


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_git_itself_asks_it(fake: FakeBroker, memory: Path, tmp_path: Path) -> None:
    issuing(fake, LOGIN)
    helper = f"!{sys.executable} {tmp_path / 'run.py'} credential git {' '.join(GIT)}"
    (tmp_path / "run.py").write_text(PROGRAM)
    only = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    fill = ("credential", "fill")
    ran = subprocess.run(
        ["git", *("-c", "credential.helper="), *("-c", f"credential.helper={helper}"), *fill],
        check=True,
        capture_output=True,
        text=True,
        input="url=https://git.example/a/b.git\n\n",
        env={**os.environ, **only, "GIT_TERMINAL_PROMPT": "0"},
        cwd=tmp_path,
    )
    assert "username=bot\npassword=hunter2\n" in ran.stdout


PGPASS = ("credential", "pgpass", "orders-read", "--task", TASK_ID, "--output")


def test_a_password_file_is_private_and_new(fake: FakeBroker, run: Run, tmp_path: Path) -> None:
    issuing(fake, ISSUED["credential"])
    file = tmp_path / "pgpass"
    ran = run(*PGPASS, str(file))
    assert ran.code == 0, ran.err
    assert str(file) in ran.out
    assert file.read_text() == f"db:5432:orders:v-orders:{ISSUED['credential']['password']}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    ran = run(*PGPASS, str(file))
    assert ran.code == 2
    assert "--replace" in ran.err
    assert issued(fake) == 1
    file.chmod(0o644)
    assert run(*PGPASS, str(file), "--replace", "--json").json["file"] == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link"
    link.symlink_to(file)
    assert run(*PGPASS, str(link), "--replace").code == 2
    service = ("credential", "pgservice", *PGPASS[2:])
    assert run(*service, str(tmp_path / "service")).code == 0
    assert "[broker]\nhost=db\n" in (tmp_path / "service").read_text()


def test_what_cannot_be_written_is_revoked(fake: FakeBroker, run: Run, tmp_path: Path) -> None:
    issuing(fake, ISSUED["credential"])
    ran = run(*PGPASS, str(tmp_path / "nowhere" / "pgpass"))
    assert ran.code == 1
    assert "the credential is revoked" in ran.err
    assert fake.last.method == "DELETE"
