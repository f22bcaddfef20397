"""docs/operations: what is typed when something has gone wrong, typed at real servers."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from broker.dev.config import FILE
from tests.admin import own_stack
from tests.dev.broker_process import broker
from tests.docs.installation import Installation, commands
from tests.world import SUBJECTS, logs_in

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.skipif(
    not (shutil.which("valkey-cli") or shutil.which("redis-cli")) or not shutil.which("jq"),
    reason="needs valkey-cli or redis-cli, and jq: Debian's redis-tools and jq",
)


@dataclass
class Held:
    """A task's credential, for who asks later whether it lives."""

    task: str
    grant: str
    credential: dict[str, Any]

    async def lives(self) -> bool:
        return await logs_in(self.credential)


class Site:
    """The installation, and the orchestrator and agents around it."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def by(self, name: str, *words: str) -> Any:
        token = self.installation.stack.issuer.token(SUBJECTS[name]).reveal()
        url = self.installation.url
        ran = broker(*words, "--json", BROKER_URL=url, BROKER_IDENTITY_TOKEN=token)
        assert ran.code == 0, ran.err
        return ran.json

    def refused(self, name: str, *words: str) -> str:
        token = self.installation.stack.issuer.token(SUBJECTS[name]).reveal()
        url = self.installation.url
        ran = broker(*words, "--json", BROKER_URL=url, BROKER_IDENTITY_TOKEN=token)
        assert ran.code != 0, ran.out
        return str(ran.problem["code"])

    def hold(self, agent: str = "report-writer") -> Held:
        about = ["--agent", agent, "--purpose", "work", "--capability", "orders-read"]
        task = self.by("orchestrator", "task", "open", *about)["task_id"]
        grant = self.by("orchestrator", "grant", "request", task, "orders-read")
        return Held(task, grant["grant_id"], grant["credential"])

    def play(self, page: str, *blocks: int) -> list[str]:
        """Type these blocks of a page, or all of them."""
        written = commands(page)
        return [self.installation.type(written[n]) for n in blocks or range(len(written))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    home = tmp_path_factory.mktemp("site")
    with own_stack(home, "[audit]\nenabled = true\n") as (stack, _):
        assert stack.postgres is not None
        document = tomllib.loads((stack.data / FILE).read_text("utf-8"))
        document["targets"] = [
            {
                "name": "orders",
                "kind": "postgresql",
                "dsn_file": str(stack.postgres.admin_dsn_file),
                "accounts": "v-token-br*",
                "capabilities": ["orders-read", "orders-write"],
            }
        ]
        with Installation(stack, document, home / "site").running() as installed:
            yield Site(installed)


async def test_an_upgrade_is_noticed_by_nobody(site: Site) -> None:
    held = site.hold()
    site.play("upgrade.md")
    assert await held.lives()
    site.by("orchestrator", "task", "complete", held.task)
    assert not await held.lives()


async def test_a_backup_is_restored_and_what_it_got_wrong_is_ended(site: Site) -> None:
    lasting, ended = site.hold(), site.hold()
    pages = commands("backup.md")
    back_up, restore = range(pages.index("systemctl stop broker\n")), len(pages)
    site.play("backup.md", *back_up)
    site.by("orchestrator", "task", "complete", ended.task)
    unknown = site.hold()
    *_, look, apply = range(len(back_up), restore)
    site.play("backup.md", *range(len(back_up), look))
    (found,) = site.play("backup.md", look)
    assert "orphan_account" in found, found
    assert site.refused("orchestrator", *_open()) == "quarantined"
    assert await unknown.lives()
    (said,) = site.play("backup.md", apply)
    assert "orphan_account" in said, said
    assert not await unknown.lives()
    assert not await ended.lives()
    assert await lasting.lives()
    assert await site.hold().lives()


async def test_a_ledger_that_is_away_comes_back_and_one_that_is_empty_is_put_right(
    site: Site,
) -> None:
    away, loses, ends, export = range(4)
    held = site.hold()
    site.installation.control("stop", "valkey")
    assert site.refused("orchestrator", *_open()) == "temporarily_unavailable"
    (said,) = site.play("redis-loss.md", away)
    assert "failed" in said, said
    assert await held.lives()
    site.installation.valkey("FLUSHALL")
    (said,) = site.play("redis-loss.md", loses)
    assert "orphan_token" in said, said
    assert await held.lives()
    site.play("redis-loss.md", ends)
    assert not await held.lives()
    site.play("redis-loss.md", export)
    assert await site.hold().lives()


async def test_what_was_to_die_while_vault_was_away_dies_when_it_is_back(site: Site) -> None:
    held = site.hold()
    site.installation.control("stop", "openbao")
    site.by("orchestrator", "task", "complete", held.task)
    assert not await held.lives()  # it is shut out, and waits for Vault to end it
    seen, *rest, afterwards = range(len(commands("vault-outage.md")))
    (said,) = site.play("vault-outage.md", seen)
    assert held.grant in said
    site.play("vault-outage.md", *rest)
    (said,) = site.play("vault-outage.md", afterwards)
    assert held.grant in said


async def test_one_agent_and_then_everything_is_ended_with_proof(site: Site) -> None:
    turned, other = site.hold(), site.hold("order-clerk")
    one, left, everything, proof, work = range(5)
    site.play("mass-revocation.md", one, left)
    assert not await turned.lives()
    assert await other.lives()
    assert site.refused("orchestrator", *_open()) == "frozen"
    site.play("mass-revocation.md", everything)
    assert not await other.lives()
    site.play("mass-revocation.md", proof)
    receipt = site.installation.config.parent.parent / f"incident-12/{turned.grant}.json"
    assert '"confirmed": true' in receipt.read_text("utf-8")
    site.play("mass-revocation.md", work)
    assert await site.hold().lives()


async def test_keys_and_secrets_are_replaced_and_the_old_ones_are_dead(site: Site) -> None:
    held = site.hold()
    secrets = site.installation.config.parent / "secrets"
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    site.play("keys.md")
    after = {file.name: file.read_text() for file in secrets.iterdir()}
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {"vault-secret-id", "redis-password"}
    assert await held.lives()
    assert await site.hold().lives()
    # The old ones open nothing any more.
    for name in changed:
        now = (secrets / name).read_text()
        (secrets / name).write_text(before[name])
        config = str(site.installation.config)
        assert broker("doctor", "--config", config).code == 1, name
        (secrets / name).write_text(now)


def _open() -> list[str]:
    about = ["--agent", "report-writer", "--purpose", "work", "--capability", "orders-read"]
    return ["task", "open", *about]
