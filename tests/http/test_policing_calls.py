"""Tool calls explained: with the arguments that the log has, and without those it hasn't."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.http.deciding import DecisionWorld, decision_config

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

POLICIES: Final = """
@id("large-payments")
@require_approval("2")
@log_arguments
permit (principal, action == Action::"call:pay-out", resource)
when { context.arguments.amount.greaterThanOrEqual(decimal("250.0")) };

@id("to-acme-alone")
@advice("Only acme is paid.")
forbid (principal, action == Action::"call:pay-out", resource)
unless { context.arguments.to == "acme" };
"""


@pytest.fixture
async def world(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[DecisionWorld]:
    (tmp_path / "own.cedar").write_text(POLICIES, "utf-8")
    made = DecisionWorld(engines[0].issuer, decision_config(engines[0], policies=tmp_path))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def explained(world: DecisionWorld, **arguments: Any) -> dict[str, Any]:
    """Ask for a call that isn't allowed, and why it isn't."""
    found = await world.decide(await world.task(), "pay", arguments=arguments)
    assert found["decision"] is False
    path = f"/v1/decisions/{found['context']['decision_id']}"
    answer = await world.call("auditor", "GET", path)
    assert answer.status_code == 200, answer.text
    return answer.json()["explanation"]


async def test_what_is_logged_is_asked_with_again(world: DecisionWorld) -> None:
    found = await explained(world, to="acme", amount=250.5)

    assert found["effect"] == "needs_approval"
    changes = {row["change"]: row["effect"] for row in found["would_change_it"]}
    assert changes == {"two_approvals": "allow"}
    assert (found["left_out"], found["notes"]) == ([], [])
    assert {row["policy"] for row in found["decided_by"]} == {
        "large-payments",
        "operate-by-allow-list",
    }


async def test_what_isnt_logged_is_taken_as_it_was_decided(world: DecisionWorld) -> None:
    found = await explained(world, to="mallory", amount=10)

    assert [row["policy"] for row in found["decided_by"]] == ["to-acme-alone"]
    assert found["decided_by"][0]["advice"] == "Only acme is paid."
    assert found["would_change_it"] == []
    assert found["left_out"] == ["large-payments"]
    assert found["notes"] == []
