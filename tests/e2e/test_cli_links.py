"""The command line with a token that is bound to a key, and over TLS: `broker serve` for real."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec

from tests.certificates import authority, key_pem, pem, server_files, write_private
from tests.dev.broker_process import Ran, Server, broker
from tests.e2e.test_cli_live import Cli
from tests.http.consenting import consent_document
from tests.ports import free_port
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

pytestmark = pytest.mark.usefixtures("empty_ledger")
CA = authority("servers")


@pytest.fixture(scope="module")
def cli(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cli]:
    folder = tmp_path_factory.mktemp("links")
    cert_file, key_file = server_files(CA, folder)
    listen = f"127.0.0.1:{free_port()}"
    document = consent_document(
        engines[0],
        folder / "policies",
        broker={
            "listen": listen,
            "issuer": f"https://{listen}",
            "state_dir": str(folder / "state"),
        },
        tls={"cert_file": str(cert_file), "key_file": str(key_file)},
    )
    del document["console"]["link_issuer"]  # links are for http on this machine
    file = folder / "config.toml"
    file.write_text(tomli_w.dumps(document), "utf-8")
    write_private(folder / "ca.pem", pem(CA.der))
    for name, subject in {**SUBJECTS, "alice": "operator/alice"}.items():
        (folder / name).write_text(engines[0].issuer.token(subject).reveal())
    with Server(folder / "log", "serve", "--config", file) as server:
        server.wait_ready()
        yield Trusting(f"https://{listen}", file, folder)
        assert server.end(signal.SIGTERM) == 0


class Trusting(Cli):
    """Trusts the authority of the broker's certificate."""

    def environment(self, name: str) -> dict[str, str]:
        return {**super().environment(name), "BROKER_CA_FILE": str(self.tokens / "ca.pem")}

    def run(self, name: str, *arguments: object, **env: str) -> Ran:
        return broker(*arguments, **{**self.environment(name), **env})


def test_the_glass_is_broken_with_a_key_and_only_with_one(cli: Cli) -> None:
    task = cli.open()
    command = ("break-glass", task, "orders-admin", "--intent", "the shop is down", "--yes")

    ran = cli.run("report-writer", *command)
    assert ran.code == 4
    assert "bound to a key" in ran.err

    broken: dict[str, Any] = cli.json("report-writer", *command, "--dpop")
    assert (broken["state"], broken["break_glass"], broken["review"]) == ("active", True, "open")

    listed = cli.json("report-writer", "elevate", "list", task, BROKER_DPOP="1")
    assert [row["elevation_id"] for row in listed["items"]] == [broken["elevation_id"]]
    ended = ("elevate", "end", task, broken["elevation_id"])
    assert cli.run("report-writer", *ended, "--dpop").code == 0
    closed = ("review", "close", broken["elevation_id"], "--findings", "nothing was touched")
    assert cli.run("alice", *closed).code == 0


def test_a_key_of_a_file_is_used_again(cli: Cli, tmp_path: Path) -> None:
    file = write_private(tmp_path / "key.pem", key_pem(ec.generate_private_key(ec.SECP256R1())))
    task = cli.open()
    for command in (("heartbeat", task), ("show", task)):
        ran = cli.run("report-writer", "task", *command, "--dpop-key", file)
        assert ran.code == 0, ran.err
    ran = cli.run("report-writer", "task", "show", task, "--dpop-key", tmp_path / "none")
    assert ran.code != 0
    assert "No such file" in ran.err


def test_a_broker_that_is_not_trusted_is_not_asked(cli: Cli) -> None:
    ran = cli.run("orchestrator", "task", "list", BROKER_CA_FILE="")
    assert ran.code == 3
    assert "certificate" in ran.err.lower()
    ran = cli.run("orchestrator", "task", "list", "--server", cli.url.replace("https", "http"))
    assert ran.code != 0
    assert "isn't https" in ran.err
