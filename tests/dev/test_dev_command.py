"""``broker dev`` and ``broker dev token``, on one running broker and on none."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.dev.broker_process import PROGRAM, Server, Started, broker, engine_pids, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {"event", "url", "console", "redis", "vault", "postgres"}
MORE_KEYS = {"vault_token_file", "postgres_admin_dsn_file", "config", "data"}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("dev-command")
    with Started(home / "log", "dev", "--port", 0, "--data", home / "data") as server:
        yield server.wait_ready()


def claims(jwt: str) -> dict[str, Any]:
    part = jwt.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def refused(data: Path, *arguments: object) -> str:
    """Start `broker dev` where it can't, and return what it says; nothing may be running then."""
    ran = broker("dev", *arguments, "--data", data)
    assert (ran.code, ran.out) == (1, "")
    assert engine_pids(data) == {}
    return ran.err


def test_the_ready_line_says_where_everything_is(dev: Server) -> None:
    place = dev.place
    assert place.keys() == KEYS | MORE_KEYS
    assert place["event"] == "ready"
    answer = httpx2.get(f"{dev.url}/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert httpx2.get(f"{place['vault']}/v1/sys/health").status_code == 200
    assert place["redis"].startswith("unix://")
    assert place["postgres"].startswith("postgresql://127.0.0.1:")
    assert "@" not in place["postgres"]
    for name in ("vault_token_file", "postgres_admin_dsn_file"):
        assert Path(place[name]).stat().st_mode & 0o777 == 0o600
    assert broker("check-config", "--config", place["config"]).code == 0


def test_it_is_fit_for_what_it_shows(dev: Server) -> None:
    ran = broker("doctor", "--config", dev.place["config"], "--json")
    assert ran.code == 0
    assert {f["verdict"] for f in ran.json["findings"]} == {"ok"}, ran.out


def test_a_token_for_each_principal(dev: Server) -> None:
    data = dev.place["data"]
    ran = broker("dev", "token", "report-writer", "--data", data, "--ttl", "10m")
    assert (ran.code, ran.err) == (0, "")
    found = claims(ran.out.strip())
    assert found["sub"] == "agent/report-writer"
    assert found["exp"] - found["iat"] == 600
    ran = broker("dev", "token", "operator", "--json", BROKER_DEV_DATA=data)
    assert ran.json.keys() == {"token", "principal", "subject"}
    assert ran.json["subject"] == "operator/operator"


def test_a_shell_becomes_a_principal(dev: Server) -> None:
    ran = broker("dev", "token", "orchestrator", "--env", "--data", dev.place["data"])
    assert ran.code == 0
    assert "eyJ" not in ran.out + ran.err
    script = f'{ran.out}"{PROGRAM}" task list --json && stat -c %a "$BROKER_IDENTITY_TOKEN_FILE"'
    env = environment(BROKER_TASK_ID="tsk_of_somebody_else")
    said = subprocess.run(
        ["sh", "-ec", script], capture_output=True, check=True, text=True, env=env
    )
    assert json.loads(said.stdout.removesuffix("600\n"))["items"] == []
    both = broker("dev", "token", "operator", "--env", "--json", "--data", dev.place["data"])
    assert (both.code, both.out) == (2, "")


@pytest.mark.parametrize(
    ("name", "ttl", "words"),
    [
        ("report-writter", "1h", "did you mean report-writer?"),
        ("xyz", "1h", "there are: orchestrator, report-writer"),
        ("operator", "soon", "--ttl: "),
    ],
)
def test_a_token_that_cannot_be_made(dev: Server, name: str, ttl: str, words: str) -> None:
    ran = broker("dev", "token", name, "--ttl", ttl, "--data", dev.place["data"])
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err


def test_no_token_before_the_first_start(tmp_path: Path) -> None:
    ran = broker("dev", "token", "operator", "--data", tmp_path / "data")
    assert (ran.code, ran.out) == (1, "")
    assert "start `broker dev` first" in ran.err


def test_a_data_directory_is_for_one_at_a_time(dev: Server) -> None:
    before = engine_pids(Path(dev.place["data"]))
    ran = broker("dev", "--port", 0, "--data", dev.place["data"])
    assert (ran.code, ran.out) == (1, "")
    assert f"in use by another broker dev (process {dev.pid})" in ran.err
    assert engine_pids(Path(dev.place["data"])) == before
    assert httpx2.get(f"{dev.url}/readyz").status_code == 200


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = refused(tmp_path, "--port", port)
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in words
    assert "choose another port" in words


@pytest.mark.parametrize("host", ["10.1.2.3", "broker.example.com"])
def test_it_does_not_leave_the_machine(tmp_path: Path, host: str) -> None:
    words = refused(tmp_path, "--host", host, "--port", 0)
    assert f"--host {host}: broker dev speaks plain http" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('# first\n\n[broker]\ntoken_tl = "5m"\n', [":4: broker.token_tl: unknown key", "ttl"]),
        ("capabilities = 3\n", [":1: capabilities: must be an array"]),
        ('broker = "x"\n', [":1: broker: must be a table"]),
        ("[redis\n", [":1:", "not valid TOML"]),
        (
            (
                '[[principals]]\nname = "a"\nrole = "agent"\nowner = "o"\n'
                'identity = { issuer = "dve", subject = "s" }\ncapabilities = ["orders-reed"]\n'
            ),
            [":5: principals[0].identity.issuer: ", 'did you mean "dev"?', "orders-read"],
        ),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, text: str, words: list[str]) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(text)
    said = refused(tmp_path / "data", "--config", config, "--port", 0)
    for expected in words:
        assert expected in said
    assert str(config) in said
    assert not (tmp_path / "data" / "valkey").exists()


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    said = refused(tmp_path / "data", "--config", tmp_path / "none.toml", "--port", 0)
    assert "none.toml can't be read: No such file or directory" in said
