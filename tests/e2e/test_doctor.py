"""``broker doctor`` against real servers: healthy, and with each defect."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from broker.app import build
from broker.cli.doctor import doctor
from broker.config import load_config
from broker.doctor import examine
from tests.admin import READ_PATH, Admin, own_stack

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.engines import Valkey
    from broker.dev.stack import DevStack
    from broker.doctor import Finding

BROKER_POLICY = "sys/policies/acl/broker"


@dataclass
class Patient:
    """A configuration on engines of its own, and what the doctor says of it."""

    stack: DevStack
    file: Path
    capsys: pytest.CaptureFixture[str]

    def examine(self, file: Path | None = None) -> tuple[int, dict[str, list[dict[str, str]]]]:
        """Return the exit code, and the findings by check."""
        code = doctor(config=file or self.file, json=True)
        report = json.loads(self.capsys.readouterr().out)
        assert report["healthy"] is (code == 0)
        found: dict[str, list[dict[str, str]]] = {}
        for finding in report["findings"]:
            found.setdefault(finding["check"], []).append(finding)
        return code, found

    def changed(self, old: str, new: str) -> Path:
        text = self.file.read_text()
        assert old in text
        other = self.file.with_name("changed.toml")
        other.write_text(text.replace(old, new))
        return other

    def vault(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return asyncio.run(Admin(self.stack).vault(method, path, body))

    @contextmanager
    def policy(self, old: str, new: str) -> Generator[None]:
        """Let the broker's own policy say something else."""
        text = self.vault("GET", BROKER_POLICY)["data"]["policy"]
        assert old in text
        self.vault("PUT", BROKER_POLICY, {"policy": text.replace(old, new)})
        try:
            yield
        finally:
            self.vault("PUT", BROKER_POLICY, {"policy": text})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[DevStack]:
    with own_stack(tmp_path_factory.mktemp("doctor")) as (made, _):
        yield made


@pytest.fixture
def patient(stack: DevStack, capsys: pytest.CaptureFixture[str]) -> Patient:
    return Patient(stack, stack.data / "config.toml", capsys)


@contextmanager
def setting(valkey: Valkey, name: str, value: str) -> Generator[None]:
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:  # pyright: ignore[reportUnknownMemberType]
        before: Any = client.config_get(name)  # pyright: ignore[reportUnknownMemberType]
        client.config_set(name, value)  # pyright: ignore[reportUnknownMemberType]
        try:
            yield
        finally:
            client.config_set(name, before[name])  # pyright: ignore[reportUnknownMemberType]


def test_a_healthy_configuration_has_nothing_to_mend(patient: Patient) -> None:
    code, found = patient.examine()

    assert code == 0
    assert {f["verdict"] for rows in found.values() for f in rows} == {"ok"}
    assert set(found) >= {
        "file modes",
        "audit log",
        "redis",
        "redis clock",
        "redis durability",
        "vault",
        "vault clock",
        "vault login",
        "vault rights",
    }


def test_the_command_says_it_in_words_and_by_its_exit_code(patient: Patient) -> None:
    broker = Path(sys.executable).with_name("broker")

    def run(file: Path) -> subprocess.CompletedProcess[str]:
        argv = [str(broker), "doctor", "--config", str(file)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    healthy = run(patient.file)
    assert (healthy.returncode, "→" in healthy.stdout) == (0, False)
    assert patient.stack.valkey is not None
    ill = run(patient.changed(patient.stack.valkey.url, "redis://127.0.0.1:1/0"))
    assert ill.returncode == 1
    assert "failed   redis:" in ill.stdout
    assert "→ check [redis] url" in ill.stdout


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("appendonly", "no", "appendonly yes"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy noeviction"),
        ("maxmemory-policy", "volatile-ttl", "maxmemory-policy noeviction"),
    ],
)
def test_a_redis_that_can_lose_writes_is_warned_of(
    patient: Patient, name: str, value: str, advice: str
) -> None:
    assert patient.stack.valkey is not None
    with setting(patient.stack.valkey, name, value):
        code, found = patient.examine()

    assert code == 0
    [finding] = found["redis durability"]
    assert finding["verdict"] == "warning"
    assert advice in finding["advice"]


def test_redis_down_fails_and_vault_is_looked_at_all_the_same(patient: Patient) -> None:
    assert patient.stack.valkey is not None
    code, found = patient.examine(
        patient.changed(patient.stack.valkey.url, "redis://127.0.0.1:1/0")
    )

    assert code == 1
    assert found["redis"][0]["verdict"] == "failed"
    assert "[redis] url" in found["redis"][0]["advice"]
    assert found["vault rights"][0]["verdict"] == "ok"


def test_vault_down_fails_and_redis_is_looked_at_all_the_same(patient: Patient) -> None:
    assert patient.stack.openbao is not None
    address = patient.stack.openbao.address
    code, found = patient.examine(patient.changed(address, "http://127.0.0.1:1"))

    assert code == 1
    assert found["vault"][0]["verdict"] == "failed"
    assert "[vault] address" in found["vault"][0]["advice"]
    assert found["redis durability"][0]["verdict"] == "ok"


def test_a_sealed_vault_fails(patient: Patient) -> None:
    patient.vault("PUT", "sys/seal")
    try:
        code, found = patient.examine()
    finally:
        asyncio.run(Admin(patient.stack).unseal())

    assert code == 1
    assert found["vault"][0]["detail"] == "sealed"


@pytest.mark.parametrize("broken", ["vault-secret-id", "vault-role-id"])
def test_a_wrong_way_to_log_in_fails(patient: Patient, broken: str) -> None:
    file = patient.stack.data / broken
    before = file.read_text()
    file.write_text("00000000-0000-0000-0000-000000000000\n")
    try:
        code, found = patient.examine()
    finally:
        file.write_text(before)

    assert code == 1
    assert found["vault login"][0]["verdict"] == "failed"
    assert "vault bootstrap" in found["vault login"][0]["advice"]


def test_a_login_file_that_is_missing_is_named(patient: Patient) -> None:
    config = load_config(patient.file)
    file = patient.stack.data / "vault-secret-id"
    before = file.read_text()
    file.unlink()
    try:
        findings = asyncio.run(_collect(config))
    finally:
        file.write_text(before)
        file.chmod(0o600)

    [login] = [f for f in findings if f.check == "vault login"]
    assert login.verdict == "failed"
    assert str(file) in login.detail


async def _collect(config: Config) -> list[Finding]:
    return [finding async for finding in examine(config)]


def test_a_wrong_vault_token_fails(patient: Patient) -> None:
    token = patient.stack.data / "vault-token"
    token.write_text("s.wrong\n")
    token.chmod(0o600)
    text = patient.file.read_text()
    names = ("auth =", "role_id_file =", "secret_id_file =")
    kept = [line for line in text.splitlines() if not line.startswith(names)]
    at = kept.index("[vault]") + 1
    kept[at:at] = ['auth = "token_file"', f'token_file = "{token}"']
    other = patient.file.with_name("token.toml")
    other.write_text("\n".join(kept))

    code, found = patient.examine(other)

    assert code == 1
    assert found["vault login"][0]["verdict"] == "failed"
    assert "s.wrong" not in json.dumps(found)


@pytest.mark.parametrize(
    "path",
    [
        "auth/token/create/broker-task",
        "auth/token/revoke-accessor",
        "auth/token/lookup-accessor",
        "sys/leases/revoke",
        "sys/leases/lookup",
        f"sys/leases/lookup/{READ_PATH}",
        "database/rotate-root/orders",
    ],
)
def test_a_missing_right_fails_and_is_named(patient: Patient, path: str) -> None:
    with patient.policy(f'path "{path}" {{', f'path "{path}-not" {{'):
        code, found = patient.examine()

    assert code == 1
    details = [f["detail"] for f in found["vault rights"] if f["verdict"] == "failed"]
    assert [d for d in details if d.startswith("missing:") and d.endswith(f" on {path}")]
    assert "vault bootstrap" in found["vault rights"][0]["advice"]


def test_a_broker_that_could_read_secrets_itself_is_warned_of(patient: Patient) -> None:
    more = f'path "{READ_PATH}" {{ capabilities = ["read"] }}\n# 1. Create'
    with patient.policy("# 1. Create", more):
        _, found = patient.examine()

    [finding] = found["vault rights"]
    assert finding["verdict"] in ("warning", "failed")
    assert finding["detail"] == f"too many: read on {READ_PATH}"
    assert finding["advice"].startswith("take it away")


@pytest.mark.parametrize(
    "where",
    [
        "vault-secret-id",
        "broker/keys",
        "broker/audit-signing.key",
        "broker/fingerprint.key",
    ],
)
def test_a_file_that_others_can_read_fails_with_the_command_that_mends_it(
    patient: Patient, where: str
) -> None:
    asyncio.run(_signing_key(patient))
    place = patient.stack.data / where
    file = place if place.is_file() else next(p for p in sorted(place.iterdir()) if p.is_file())
    before = file.stat().st_mode & 0o777
    file.chmod(0o644)
    try:
        code, found = patient.examine()
    finally:
        file.chmod(before)

    assert code == 1
    [finding] = found["file modes"]
    assert finding["advice"] == f"run: chmod 600 {file}"


@pytest.mark.parametrize(
    ("section", "verdict", "advice"),
    [
        ("enabled = false", "warning", "enabled = true"),
        ('log_dir = "vault-secret-id/log"', "failed", "log_dir"),
    ],
    ids=["switched off", "no folder"],
)
def test_a_log_that_cant_be_written_fails(
    patient: Patient, section: str, verdict: str, advice: str
) -> None:
    other = patient.changed("[redis]", f"[audit]\n{section}\n[redis]")

    _, found = patient.examine(other)

    [finding] = found["audit log"]
    assert finding["verdict"] == verdict
    assert advice in finding["advice"]


def test_a_log_whose_disk_is_nearly_full_is_warned_of(patient: Patient, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        other = patient.changed("[redis]", f'[audit]\nlog_dir = "{place}/log"\n[redis]')
        code, found = patient.examine(other)
    finally:
        subprocess.run(["umount", str(place)], check=True)

    assert code == 0
    [finding] = found["audit log"]
    assert finding["verdict"] == "warning"
    assert "nothing is issued" in finding["advice"]


def test_a_claim_to_be_revocable_that_the_engine_speaks_against_is_warned_of(
    patient: Patient,
) -> None:
    claim = 'path = "kubernetes/creds/jobs"\nrevocability = "instant"'
    _, found = patient.examine(patient.changed('path = "database/creds/orders-write"', claim))

    [finding] = found["capability orders-write"]
    assert finding["verdict"] == "warning"
    assert "ttl_only" in finding["detail"]
    assert not [check for check in found if check == "capability orders-read"]


def test_a_target_is_asked_and_its_file_is_nobody_elses(patient: Patient, tmp_path: Path) -> None:
    assert patient.stack.postgres is not None
    dsn = tmp_path / "dsn"
    dsn.write_text(patient.stack.postgres.admin_dsn.reveal())
    target = (
        f'[[targets]]\nname = "orders"\nkind = "postgresql"\ndsn_file = "{dsn}"\n'
        'accounts = "v-token-br*"\ncapabilities = ["orders-read"]\n'
    )
    other = patient.changed("[redis]", f"{target}[redis]")
    dsn.chmod(0o644)
    _, found = patient.examine(other)
    assert found["file modes"][0]["advice"] == f"run: chmod 600 {dsn}"
    assert found["target orders"][0]["verdict"] == "ok"

    dsn.write_text("postgresql://u:hunter2@127.0.0.1:1/x")
    code, found = patient.examine(other)
    assert code == 1
    assert found["target orders"][0]["verdict"] == "failed"
    assert "hunter2" not in str(found)


async def _signing_key(patient: Patient) -> None:
    """A replica that has started has made its signing key."""
    await build(load_config(patient.file)).close()
