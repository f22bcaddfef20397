"""SSH certificates at a real sshd: by their own end alone, and by a KRL that the broker writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.grants import GrantState
from tests.certificates import ssh_line
from tests.sshd import USER, Sshd, keygen, new_key, program, serving
from tests.vault_mounts import broker_with, documented, mounted, over
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack
    from broker.grants import Grant
    from tests.admin import Admin

CAPABILITY, ROLE, MOUNT = documented("ssh.md")
KEY: Final = ssh_line(ed25519.Ed25519PrivateKey.generate())


@pytest.fixture
def krl(tmp_path: Path) -> Path:
    return tmp_path / "revoked.krl"


@pytest.fixture
async def ssh(engines: tuple[DevStack, Config]) -> AsyncGenerator[Admin]:
    async with mounted(engines[0], "ssh", MOUNT) as root:
        body = {"generate_signing_key": True, "key_type": "ed25519"}
        await root.vault("POST", f"{MOUNT}/config/ca", body)
        mine = {"allowed_users": USER, "default_user": USER}
        await root.vault("POST", f"{MOUNT}/roles/agents", {**ROLE, **mine})
        yield root


@pytest.fixture
async def world(engines: tuple[DevStack, Config], ssh: Admin, krl: Path) -> AsyncGenerator[World]:
    listed = {**CAPABILITY, "name": "listed", "krl_file": str(krl)}
    timed = {key: value for key, value in CAPABILITY.items() if key != "krl_file"}
    both = listed, {**timed, "name": "timed"}
    async with broker_with(engines, *both) as made:
        yield made


@pytest.fixture
async def ca(ssh: Admin) -> str:
    return (await ssh.vault("GET", f"{MOUNT}/config/ca"))["data"]["public_key"]


@pytest.fixture
async def sshd(tmp_path: Path, ca: str, krl: Path, world: World) -> AsyncGenerator[Sshd]:
    """A server that looks at the KRL: there is one from the first certificate on."""
    program("sshd")
    keygen("-k", "-f", krl)
    async with serving(tmp_path, ca, krl) as running:
        yield running


async def ask(world: World, task: dict[str, Any], capability: str, key: str, **more: Any) -> Any:
    path = f"/v1/tasks/{task['task_id']}/grants"
    body = {"capability": capability, "parameters": {"public_key": key}, **more}
    return await world.call(task["agent"], "POST", path, body, task_id=task["task_id"])


async def sign(world: World, task: dict[str, Any], key: str, **more: Any) -> str:
    answer = await ask(world, task, task["capabilities"][0], key, **more)
    assert answer.status_code == 201, answer.text
    return answer.json()["credential"]["signed_key"]


async def the_grant(world: World, task: dict[str, Any]) -> Grant:
    [grant] = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    return grant


async def comes_to(world: World, task: dict[str, Any], state: GrantState) -> Grant:
    """Sweep until a task's grant is in a state."""

    async def there() -> Grant | None:
        await world.sweep()
        grant = await the_grant(world, task)
        return grant if grant.state is state else None

    found = await wait_until(there, f"its grant is {state}")
    assert found is not None
    return found


async def test_without_a_krl_a_certificate_lives_until_its_own_end_and_it_is_said(
    world: World, sshd: Sshd, tmp_path: Path
) -> None:
    task = await world.open(capabilities=["timed"])
    certificate = await sign(world, task, new_key(tmp_path), ttl="7s")
    issued = await the_grant(world, task)
    assert 5000 <= issued.lives_until - issued.created_at <= 7100  # whole seconds, and no more
    assert await sshd.lets_in(tmp_path / "id", certificate)
    session = await sshd.session(tmp_path / "id", certificate)

    assert await over(world, task) == (0, 1)

    waiting = await world.show_grant(issued.id)
    assert waiting["state"] == "revoking"
    assert waiting["ends_by_itself_at"]
    assert await sshd.lets_in(tmp_path / "id", certificate)
    ended = await comes_to(world, task, GrantState.REVOKED)
    assert ended.evidence == "expired"
    assert not await sshd.lets_in(tmp_path / "id", certificate)
    assert await session.answers()  # what docs/backends/ssh.md warns of
    await session.end()


async def test_on_the_krl_it_is_refused_and_open_sessions_live_on(
    world: World, sshd: Sshd, krl: Path, tmp_path: Path
) -> None:
    task = await world.open(capabilities=["listed"])
    other = await world.open(capabilities=["listed"])
    certificate = await sign(world, task, new_key(tmp_path))
    spared = await sign(world, other, new_key(tmp_path, "other"))
    assert await sshd.lets_in(tmp_path / "id", certificate)
    session = await sshd.session(tmp_path / "id", certificate)

    assert await over(world, task) == (1, 0)

    assert not await sshd.lets_in(tmp_path / "id", certificate)
    assert (await the_grant(world, task)).evidence == "krl"
    assert await sshd.lets_in(tmp_path / "other", spared)
    for text, revoked in ((certificate, True), (spared, False)):
        (tmp_path / "look.pub").write_text(text)
        looked = keygen("-Q", "-f", krl, tmp_path / "look.pub", check=False)
        assert ("REVOKED" in looked.stdout, looked.returncode) == (revoked, int(revoked))
    assert await session.answers()  # sshd asks once, when a connection begins
    await session.end()


async def test_a_list_that_cannot_be_written_is_never_forgotten(
    world: World, tmp_path: Path
) -> None:
    """Revocation is tried again, gets stuck, and goes on; meanwhile nothing new is signed."""
    path = tmp_path / "revoked.krl"
    task = await world.open(capabilities=["listed"])
    await sign(world, task, KEY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])

    assert await over(world, task) == (0, 1)
    refused = await ask(world, await world.open(capabilities=["listed"]), "listed", KEY)
    assert (refused.status_code, refused.json()["code"]) == (503, "backend_unavailable")
    stuck = await comes_to(world, task, GrantState.STUCK)
    assert "left as it is" in stuck.error
    assert path.read_bytes() == whole[:-2]

    path.write_bytes(whole)
    assert (await comes_to(world, task, GrantState.REVOKED)).evidence == "krl"


async def test_what_has_lost_its_list_is_not_called_dead(
    engines: tuple[DevStack, Config], world: World
) -> None:
    """The configuration names no KRL any more: nobody can revoke it, or see that it is dead."""
    task = await world.open(capabilities=["listed"])
    await sign(world, task, KEY)
    entries = tuple(c.model_copy(update={"krl_file": None}) for c in world.config.capabilities)
    forgetful = World(engines[0].issuer, world.config.model_copy(update={"capabilities": entries}))
    try:
        assert await over(forgetful, task) == (0, 1)
        assert "names no krl_file any more" in (await the_grant(world, task)).error
    finally:
        await forgetful.close()

    assert (await comes_to(world, task, GrantState.REVOKED)).evidence == "krl"


async def test_a_principal_that_the_role_does_not_allow_is_the_callers_mistake(
    world: World,
) -> None:
    task = await world.open(capabilities=["listed"])
    parameters = {"public_key": KEY, "valid_principals": ["somebody"]}

    answer = await ask(world, task, "listed", KEY, parameters=parameters)

    assert (answer.status_code, answer.json()["field"]) == (400, "parameters")
    assert (await the_grant(world, task)).state is GrantState.FAILED
