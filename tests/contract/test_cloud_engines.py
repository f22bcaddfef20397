"""Engines that no server here has: AWS, GCP, Azure, LDAP, by the shapes that Vault documents.

The whole broker runs, and its Vault is a double (``tests/vault_double.py``). That a credential
works in a cloud, and ceases to, isn't shown by any of this.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.client.credential import Credential
from broker.secret import REDACTED, Secret
from tests.certificates import ssh_line
from tests.http.test_canary import read_all
from tests.loopback import Loopback
from tests.vault_double import Endpoint, VaultDouble
from tests.vault_mounts import with_capabilities
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from broker.config import Config
    from broker.dev.stack import DevStack

ROLE_ARN: Final = "arn:aws:iam::123456789012:role/deploy"
SESSION_ARN: Final = "arn:aws:sts::123456789012:assumed-role/deploy/nightly"
DN: Final = "cn=v_reader_x,ou=users,dc=example,dc=com"


@dataclass(frozen=True)
class Kind:
    """What an engine is asked and answers: ``secret`` members are made anew for each credential."""

    path: str
    public: Mapping[str, Any] = field(default_factory=dict[str, Any])
    secret: tuple[str, ...] = ()
    method: str = "GET"
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    ttl_s: int = 0
    account: str = ""
    leased: bool = True
    lives_s: int = 0
    absent: tuple[str, ...] = ()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(
            self.method,
            lambda: {
                **self.public,
                **{name: secrets.token_urlsafe(24) for name in self.secret},
                **dict.fromkeys(self.absent),
            },
            self.leased,
            bool(self.ttl_s),
        )

    @property
    def row(self) -> dict[str, Any]:
        return {"name": self.path.replace("/", "-"), "path": self.path}


# Grants are asked for with a ttl of two minutes; ``ttl_s`` is what of that is asked of Vault.
# ``lives_s`` is of those that can't be revoked.
KINDS: Final = (
    Kind(
        "aws/creds/deploy",
        {"access_key": "AKIAEXAMPLE", "arn": "arn:aws:iam::123456789012:user/vault-x"},
        ("secret_key",),
        account="AKIAEXAMPLE",
        absent=("security_token", "session_token"),
    ),
    Kind(
        "aws/sts/deploy",
        {"access_key": "ASIAEXAMPLE", "arn": SESSION_ARN},
        ("secret_key", "session_token", "security_token"),
        method="POST",
        parameters={"role_arn": ROLE_ARN, "role_session_name": "nightly"},
        ttl_s=900,
        account="ASIAEXAMPLE",
        lives_s=900,
    ),
    Kind(
        "gcp/roleset/reader/token",
        {"expires_at_seconds": 1_800_000_000, "token_ttl": 3599},
        ("token",),
        leased=False,
        lives_s=3599,
    ),
    Kind(
        "gcp/static-account/reader/token",
        {"expires_at_seconds": 1_800_000_000, "token_ttl": 3599},
        ("token",),
        leased=False,
        lives_s=3599,
    ),
    Kind(
        "gcp/static-account/reader/key",
        {"key_algorithm": "KEY_ALG_RSA_2048", "key_type": "TYPE_GOOGLE_CREDENTIALS_FILE"},
        ("private_key_data",),
        method="POST",
        ttl_s=120,
    ),
    Kind(
        "azure/creds/reader",
        {"client_id": "408bf248-dd4e-4be5-919a-7f6207a307ab"},
        ("client_secret",),
        account="408bf248-dd4e-4be5-919a-7f6207a307ab",
    ),
    Kind(
        "ldap/creds/team/reader",
        {"distinguished_names": [DN], "username": "v_reader_x"},
        ("password",),
        account="v_reader_x",
    ),
)
ASSUMES: Final = Kind(
    "aws/creds/assumes",
    {"access_key": "ASIAEXAMPLE", "arn": SESSION_ARN},
    ("secret_key", "session_token"),
)
SIGNS: Final = Kind(
    "ssh/sign/agents",
    method="POST",
    parameters={"public_key": ssh_line(ed25519.Ed25519PrivateKey.generate())},
    leased=False,
)
KEPT: Final = Kind("kv/data/key", leased=False)
FURTHER: Final[list[dict[str, Any]]] = [
    ASSUMES.row,
    SIGNS.row,
    KEPT.row,
    {"name": "assumes-said", "path": ASSUMES.path, "revocability": "ttl_only"},
    *(
        {"name": path.replace("/", "-"), "path": path, "power": "operate", "parameters": parameters}
        for path, parameters in (
            ("aws/sts/operate", {}),
            ("gcp/roleset/operate/token", {}),
            ("kubernetes/creds/operate", {"kubernetes_namespace": "jobs"}),
            ("ssh/sign/operate", {}),
            ("kv/data/operate", {}),
        )
    ),
]


@pytest.fixture
def double() -> VaultDouble:
    """A Vault in which each capability's policy allows its path."""
    kinds = (*KINDS, ASSUMES, SIGNS, KEPT)
    policies = {kind.path: f"broker-cap-{kind.row['name']}" for kind in kinds}
    return VaultDouble({kind.path: kind.endpoint for kind in kinds}, policies)


@pytest.fixture
async def world(engines: tuple[DevStack, Config], double: VaultDouble) -> AsyncGenerator[World]:
    """A broker whose Vault is the double."""
    stack = engines[0]
    rows = [*(kind.row for kind in KINDS), *FURTHER]
    with Loopback(double) as server:
        made = World(stack.issuer, with_capabilities(stack, rows, vault={"address": server.url}))
        await made.app.connection.command("FLUSHALL")
        yield made
        await made.close()


def lose(world: World, double: VaultDouble) -> None:
    """From now on no answer of its engines is heard, and what isn't heard is made by then."""
    double.losing = True
    ledger = world.app.pipeline.ledger
    ledger.times = replace(ledger.times, pending_ms=0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.path)
async def test_each_is_asked_for_delivered_and_ended_as_its_engine_is(
    world: World, double: VaultDouble, kind: Kind, capfd: pytest.CaptureFixture[str]
) -> None:
    name = kind.row["name"]
    task = await world.open(capabilities=[name])

    granted = await world.grant(task, name, ttl="2m", parameters=dict(kind.parameters))

    [(method, path, sent)] = double.asked
    ttl_s = int(sent.pop("ttl", "0s").removesuffix("s"))
    assert (method, path, sent) == (kind.method, kind.path, kind.parameters)
    assert kind.ttl_s - 10 <= ttl_s <= kind.ttl_s
    delivered: dict[str, Any] = granted["credential"]
    assert set(delivered) == {"type", *kind.public, *kind.secret}
    assert delivered["type"] == kind.path.partition("/")[0]
    pipeline = world.app.pipeline
    [grant] = await pipeline.queries.grants_of(task["task_id"])
    assert grant.account == kind.account
    assert grant.revocability == ("ttl_only" if kind.lives_s else "instant")

    # What is secret of it is so to the broker, to its client, and to all that is kept.
    its_task = await pipeline.queries.task(task["task_id"])
    assert its_task is not None
    capability = pipeline.catalog.capabilities[name]
    minted = await pipeline.backends["vault"].mint(grant, its_task, capability)
    assert {n for n, v in minted.fields.items() if isinstance(v, Secret)} == set(kind.secret)
    redacted = Credential(delivered).redacted()
    assert {n for n, value in redacted.items() if value == REDACTED} == set(kind.secret)

    ended = (await world.complete(task))["grants"]
    shown = await world.show_grant(granted["grant_id"])
    assert grant.lease not in double.leases
    assert (grant.lease in double.revoked) is kind.leased
    if kind.lives_s:
        assert ended == {"revoked": 0, "revoking": 1, "abandoned": 0}
        assert shown["state"] == "revoking"
        assert grant.dies_at - grant.created_at >= kind.lives_s * 1000
        assert shown["next_attempt_at"] >= shown["ends_by_itself_at"]
    else:
        assert ended == {"revoked": 1, "revoking": 0, "abandoned": 0}
        assert shown["state"] == "revoked"
        assert double.leases == {}, "of what was never delivered either"
    rows = b"".join(row for _, row in await read_all(world.app.connection.client)).decode()
    printed = capfd.readouterr()
    events = await world.events(task["task_id"])
    kept = rows + printed.out + printed.err + repr((events, shown))
    assert grant.lease in kept, "the search finds what is there"
    assert not [n for n in kind.secret if delivered[n] in kept]


async def test_a_credential_whose_answer_was_lost_is_ended_with_what_it_hangs_from(
    world: World, double: VaultDouble
) -> None:
    task = await world.open(capabilities=["azure-creds-reader"])
    lose(world, double)
    path = f"/v1/tasks/{task['task_id']}/grants"

    answer = await world.call("orchestrator", "POST", path, {"capability": "azure-creds-reader"})

    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    await world.app.pipeline.work.drain(20)
    [grant] = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert (grant.state, grant.evidence) == ("revoked", "handle_lookup")
    assert double.leases == {}
    assert len(double.revoked) == 1


@pytest.mark.parametrize(
    ("path", "least_ms"),
    [("gcp/roleset/reader/token", 3_600_000), ("aws/sts/deploy", 900_000), (SIGNS.path, 0)],
)
async def test_a_lost_credential_that_no_token_ends_is_not_called_dead_before_its_end(
    world: World, double: VaultDouble, path: str, least_ms: int
) -> None:
    name = path.replace("/", "-")
    task = await world.open(capabilities=[name])
    lose(world, double)
    ask: dict[str, Any] = {"capability": name, "ttl": "1s"}
    if path == SIGNS.path:
        ask["parameters"] = dict(SIGNS.parameters)

    answer = await world.call("orchestrator", "POST", f"/v1/tasks/{task['task_id']}/grants", ask)

    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    assert len(double.asked) == 1
    await world.complete(task)
    queries = world.app.pipeline.queries
    [grant] = await queries.grants_of(task["task_id"], dead=True)
    assert (grant.state, grant.attempts) == ("revoking", 0)
    assert grant.due_at >= grant.expires_at + least_ms
    assert double.leases == {}, "what hangs from the token is gone"
    if least_ms:
        return

    async def dead() -> bool:
        await world.sweep()
        [grant] = await queries.grants_of(task["task_id"], dead=True)
        return grant.state == "revoked"

    await wait_until(dead, "its time is up")
    closed = await queries.task(task["task_id"])
    assert closed is not None
    assert closed.closed_at


async def test_a_lost_static_secret_is_not_called_revoked_either(
    world: World, double: VaultDouble
) -> None:
    task = await world.open(capabilities=["kv-data-key"])
    lose(world, double)
    path = f"/v1/tasks/{task['task_id']}/grants"

    await world.call("orchestrator", "POST", path, {"capability": "kv-data-key"})

    await world.complete(task)
    [grant] = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert len(double.asked) == 1
    assert grant.state == "abandoned"
    assert "static secret" in grant.evidence


@pytest.mark.parametrize("path", ["azure/creds/reader", "gcp/roleset/reader/token"])
async def test_an_answer_with_nothing_in_it_is_no_credential(
    world: World, double: VaultDouble, path: str
) -> None:
    double.endpoints[path] = Endpoint("GET", dict, leased=False)
    name = path.replace("/", "-")
    task = await world.open(capabilities=[name])
    ask = f"/v1/tasks/{task['task_id']}/grants"

    answer = await world.call("orchestrator", "POST", ask, {"capability": name})

    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    [grant] = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert grant.state == "failed"


async def test_a_session_is_not_delivered_as_something_that_can_be_revoked(
    world: World, double: VaultDouble
) -> None:
    name = ASSUMES.row["name"]
    task = await world.open(capabilities=[name])
    path = f"/v1/tasks/{task['task_id']}/grants"

    answer = await world.call("orchestrator", "POST", path, {"capability": name})

    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    assert "credential" not in answer.json()
    [grant] = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert grant.state == "revoking", "it lives on in the cloud, although nobody has it"
    assert grant.dies_at > grant.expires_at
    assert 'revocability = "ttl_only"' in grant.reason
    assert double.leases == {}, "its lease isn't kept until its task ends"

    double.policies[ASSUMES.path] = "broker-cap-assumes-said"
    said = await world.open(capabilities=["assumes-said"])
    granted = await world.grant(said, "assumes-said")
    assert granted["credential"]["session_token"]
    assert granted["ends_by_itself_at"]


async def test_what_no_one_can_revoke_is_refused_above_read_before_it_is_reserved(
    world: World,
) -> None:
    names = [row["name"] for row in FURTHER if row.get("power")]
    task = await world.open(capabilities=names)
    path = f"/v1/tasks/{task['task_id']}/grants"

    for name in names:
        answer = await world.call("orchestrator", "POST", path, {"capability": name})
        assert (answer.status_code, answer.json()["code"]) == (403, "access_denied"), name
        assert "can't be revoked before its time" in answer.text, name

    assert len(names) == 5
    assert await world.app.pipeline.queries.grants_of(task["task_id"], dead=True) == []
