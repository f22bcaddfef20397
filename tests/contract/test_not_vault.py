"""What answers in Vault's place and isn't Vault says nothing of what lives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.contract.test_cloud_engines import KINDS
from tests.issuers import Answer
from tests.loopback import Loopback
from tests.vault_double import VaultDouble
from tests.vault_mounts import with_capabilities
from tests.world import World

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack

PLACES = (
    Answer(b"<html>Sign in</html>", 200, {"content-type": "text/html"}),
    Answer(b"default backend - 404", 404, {"content-type": "text/plain"}),
    Answer(b'{"message":"no Route matched"}', 404, {"content-type": "application/json"}),
)


@pytest.mark.parametrize("answer", PLACES, ids=["page", "text", "json"])
async def test_a_proxy_without_its_vault_makes_nothing_dead(
    engines: tuple[DevStack, Config], answer: Answer
) -> None:
    kind = replace(KINDS[0], path="aws/creds/away")
    name = kind.row["name"]
    double = VaultDouble({kind.path: kind.endpoint}, {kind.path: f"broker-cap-{name}"})
    with Loopback(double) as server:
        config = with_capabilities(engines[0], [kind.row], vault={"address": server.url})
        world = World(engines[0].issuer, config)
        task = await world.open(capabilities=[name])
        granted = await world.grant(task, name)
        server.answer = lambda _: answer

        report = (await world.call("operator", "POST", "/v1/reconciliations", {})).json()
        ended = (await world.complete(task))["grants"]

        assert report["findings"] == []
        assert "not from Vault" in str(report["problems"])
        assert (ended["revoked"], ended["revoking"]) == (0, 1)
        assert double.leases
        server.answer = double
        await world.sweep(ahead_ms=600_000)
        assert (await world.show_grant(granted["grant_id"]))["state"] == "revoked"
        assert not double.leases
        await world.close()


async def test_a_standby_without_a_leader_has_done_nothing(
    engines: tuple[DevStack, Config],
) -> None:
    """Found by chaos, seed 7: a redirect counted as an answer, to issuing and to revoking."""
    kind = replace(KINDS[0], path="aws/creds/standby")
    name = kind.row["name"]
    double = VaultDouble({kind.path: kind.endpoint}, {kind.path: f"broker-cap-{name}"})
    standby = Answer(b"", 307, {"location": "http://127.0.0.1:1/v1/anything"})
    with Loopback(double) as server:
        config = with_capabilities(engines[0], [kind.row], vault={"address": server.url})
        world = World(engines[0].issuer, config)
        held, other = await world.open(capabilities=[name]), await world.open(capabilities=[name])
        granted = await world.grant(held, name)
        server.answer = lambda _: standby

        path = f"/v1/tasks/{other['task_id']}/grants"
        ask = {"capability": name}
        refused = await world.call(other["agent"], "POST", path, ask, task_id=other["task_id"])
        ended = (await world.complete(held))["grants"]

        assert (refused.status_code, refused.json()["code"]) == (503, "backend_unavailable")
        assert (ended["revoked"], ended["revoking"]) == (0, 1)
        server.answer = double
        await world.complete(other)
        await world.sweep(ahead_ms=600_000)
        assert (await world.show_grant(granted["grant_id"]))["state"] == "revoked"
        assert not double.leases
        await world.close()
