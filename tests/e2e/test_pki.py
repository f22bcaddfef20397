"""Certificates of a real PKI: made by Vault or signed for the agent's key, used, and revoked."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from broker.grants import GrantState
from tests.certificates import authority, client_context, csr, key_pem, server_files, write_private
from tests.svids import new_key
from tests.vault_mounts import DAY_MS, bootstrap, broker_with, documented, mounted, over
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack
    from broker.grants import Grant
    from tests.admin import Admin

CAPABILITY, ROLE, MOUNT = documented("pki.md")
NAME: Final = "worker.example.com"
PATHS: Final = {
    "made": "issue/agents",
    "signed": "sign/agents",
    "other": "issuer/next/sign/agents",
    "unleased": "sign/unleased",
}


@pytest.fixture
async def pki(engines: tuple[DevStack, Config]) -> AsyncGenerator[Admin]:
    async with mounted(engines[0], "pki", MOUNT) as root:
        for name in ("first", "next"):
            body = {"common_name": f"CA {name}", "issuer_name": name, "key_type": "ec"}
            await root.vault("POST", f"{MOUNT}/root/generate/internal", body)
        await root.vault("POST", f"{MOUNT}/roles/agents", ROLE)
        await root.vault("POST", f"{MOUNT}/roles/unleased", {**ROLE, "generate_lease": False})
        yield root


@pytest.fixture
async def world(engines: tuple[DevStack, Config], pki: Admin) -> AsyncGenerator[World]:
    rows = ({**CAPABILITY, "name": n, "path": f"{MOUNT}/{p}"} for n, p in PATHS.items())
    async with broker_with(engines, *rows) as made:
        yield made


def test_the_page_shows_one_of_them() -> None:
    assert CAPABILITY["path"] == f"{MOUNT}/{PATHS['signed']}"


class Certified:
    """A certificate from a grant's answer, and the key it is for."""

    def __init__(self, answer: dict[str, Any], key: Any) -> None:
        self.credential = answer["credential"]
        self.certificate = x509.load_pem_x509_certificate(self.credential["certificate"].encode())
        given: str | None = self.credential.get("private_key")
        self.key: Any = load_pem_private_key(given.encode(), None) if given else key
        self.ca = x509.load_pem_x509_certificate(self.credential["issuing_ca"].encode())

    async def is_let_in(self, folder: Path, crl: str) -> bool:
        """Whether a server lets it in that trusts its CA and looks at the CA's CRL."""
        ours = authority("server")
        trusted = folder / "trusted.pem"
        trusted.write_text(self.credential["issuing_ca"] + "\n" + crl)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*server_files(ours, folder))
        server.load_verify_locations(trusted)
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        client = client_context(ours)
        (folder / "own.crt").write_text(self.credential["certificate"])
        client.load_cert_chain(
            folder / "own.crt", write_private(folder / "own.key", key_pem(self.key))
        )
        return await handshake(server, client)


async def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Whether a server greets a client, as it does only once their handshake is over."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    listening = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client, server_hostname="localhost"
        )
        try:
            return await reader.read() == b"hello"
        except OSError:
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def crl_of(root: Admin, issuer: str = "default") -> str:
    return (await root.vault("GET", f"{MOUNT}/issuer/{issuer}/crl"))["data"]["crl"]


async def made_so_far(root: Admin) -> set[str]:
    return set((await root.vault("LIST", f"{MOUNT}/certs"))["data"]["keys"])


async def ask(world: World, task: dict[str, Any], capability: str, **parameters: Any) -> Any:
    path = f"/v1/tasks/{task['task_id']}/grants"
    body = {"capability": capability, "parameters": parameters}
    return await world.call(task["agent"], "POST", path, body, task_id=task["task_id"])


async def certify(world: World, task: dict[str, Any], capability: str) -> tuple[Certified, Grant]:
    key = new_key()
    request = {} if capability == "made" else {"csr": csr(key, NAME, x509.DNSName(NAME))}
    answer = await ask(world, task, capability, common_name=NAME, **request)
    assert answer.status_code == 201, answer.text
    return Certified(answer.json(), key), await the_grant(world, task)


async def the_grant(world: World, task: dict[str, Any]) -> Grant:
    [grant] = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    return grant


@pytest.mark.parametrize(
    ("capability", "issuer"), [("made", "first"), ("signed", "first"), ("other", "next")]
)
async def test_a_certificate_opens_a_door_until_its_task_ends(
    world: World, pki: Admin, tmp_path: Path, capability: str, issuer: str
) -> None:
    task = await world.open(capabilities=[capability])
    certified, grant = await certify(world, task, capability)

    assert certified.key.public_key() == certified.certificate.public_key()
    assert ("private_key" in certified.credential) == (capability == "made")
    verifier = PolicyBuilder().store(Store([certified.ca])).build_client_verifier()
    found = verifier.verify(certified.certificate, [])
    assert [name.value for name in found.subjects or ()] == [NAME]
    end = certified.certificate.not_valid_after_utc.timestamp()
    assert end * 1000 <= grant.created_at + 300_000 + 1000
    assert abs(grant.lives_until - end * 1000) < 1000
    assert grant.account == certified.credential["serial_number"]
    assert await certified.is_let_in(tmp_path, await crl_of(pki, issuer))

    assert await over(world, task) == (1, 0)

    assert not await certified.is_let_in(tmp_path, await crl_of(pki, issuer))
    ended = await the_grant(world, task)
    assert (ended.state, ended.evidence) == (GrantState.REVOKED, "crl")


async def test_a_certificate_whose_lease_is_gone_is_dead_once_it_is_in_the_crl(
    world: World, pki: Admin, tmp_path: Path
) -> None:
    """A CA that writes its CRL by a timetable: till then the certificate opens the door."""
    task = await world.open(capabilities=["signed"])
    certified, _ = await certify(world, task, "signed")
    await pki.vault("POST", f"{MOUNT}/config/crl", {"auto_rebuild": True})

    assert await over(world, task) == (0, 1)

    assert await certified.is_let_in(tmp_path, await crl_of(pki))
    waiting = await the_grant(world, task)
    assert waiting.state is GrantState.REVOKING
    assert not await pki.leases(f"{MOUNT}/sign/agents")
    await pki.vault("GET", f"{MOUNT}/crl/rotate")
    await world.sweep(ahead_ms=3_600_000)
    assert not await certified.is_let_in(tmp_path, await crl_of(pki))
    ended = await the_grant(world, task)
    assert (ended.state, ended.evidence) == (GrantState.REVOKED, "crl")


async def test_a_certificate_whose_capability_is_gone_is_looked_for_in_the_crl_all_the_same(
    engines: tuple[DevStack, Config], world: World, pki: Admin
) -> None:
    """The mount isn't called pki, and nothing in the configuration says any more that it is one."""
    task = await world.open(capabilities=["signed"])
    await certify(world, task, "signed")
    await pki.vault("POST", f"{MOUNT}/config/crl", {"auto_rebuild": True})
    entries = tuple(c for c in world.config.capabilities if c.name not in PATHS)
    forgetful = World(engines[0].issuer, world.config.model_copy(update={"capabilities": entries}))
    try:
        assert await over(forgetful, task) == (0, 1)
        await pki.vault("GET", f"{MOUNT}/crl/rotate")
        await forgetful.sweep(ahead_ms=DAY_MS)
    finally:
        await forgetful.close()

    ended = await the_grant(world, task)
    assert (ended.state, ended.evidence) == (GrantState.REVOKED, "crl")


async def test_what_the_role_does_not_allow_is_the_callers_mistake_and_nothing_is_made(
    world: World, pki: Admin
) -> None:
    task = await world.open(capabilities=["made"])
    before = await made_so_far(pki)

    for name in ("worker.elsewhere.com", "*.example.com"):
        answer = await ask(world, task, "made", common_name=name)

        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (400, "invalid_request")
        assert problem["field"] == "parameters"
        assert "made" in problem["detail"]
    grants = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert [grant.state for grant in grants] == [GrantState.FAILED] * 2
    assert await made_so_far(pki) == before


async def test_names_that_nobody_decided_on_are_not_signed(world: World, pki: Admin) -> None:
    """The role would allow them, and takes the request's instead of the parameters'."""
    task = await world.open(capabilities=["signed"])
    before = await made_so_far(pki)

    for request in (
        csr(new_key(), "admin.example.com"),
        csr(new_key(), NAME, x509.DNSName("admin.example.com")),
    ):
        answer = await ask(world, task, "signed", common_name=NAME, csr=request)
        assert (answer.status_code, answer.json()["field"]) == (400, "parameters.csr")

    assert not await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert await made_so_far(pki) == before


async def test_a_certificate_without_a_lease_is_nobodys_and_on_record_until_its_end(
    world: World, pki: Admin
) -> None:
    """Vault gives it to anybody who knows its number, and the agent has the key that it is for."""
    task = await world.open(capabilities=["unleased"])
    before = await made_so_far(pki)
    request = csr(new_key(), NAME)

    answer = await ask(world, task, "unleased", common_name=NAME, csr=request)

    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    assert "BEGIN" not in answer.text
    grant = await the_grant(world, task)
    [serial] = await made_so_far(pki) - before
    row = (await pki.vault("GET", f"{MOUNT}/cert/{serial}"))["data"]
    end = x509.load_pem_x509_certificate(row["certificate"].encode()).not_valid_after_utc
    assert "generate_lease = true" in grant.reason

    assert await over(world, task) == (0, 1)

    shown = await world.show_grant(grant.id)
    assert shown["state"] == "revoking"
    assert abs(datetime.fromisoformat(shown["ends_by_itself_at"]) - end) < timedelta(seconds=1)
    assert serial not in repr(shown)
    assert serial in repr(await world.events(task["task_id"])), "an admin finds it to revoke"


async def test_bootstrap_says_which_role_makes_no_leases(
    engines: tuple[DevStack, Config], world: World
) -> None:
    said: list[str] = []

    await bootstrap(engines[0], world.config.capabilities, on_progress=said.append)

    assert [line for line in said if "generate_lease" in line] == [
        f"{MOUNT}/roles/unleased: set generate_lease = true, or unleased gives nothing"
    ]
