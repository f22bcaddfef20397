"""What a grant hangs from is what the ledger says it hangs from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.steps import Step
from tests.admin import Admin
from tests.e2e.mortal import Replica

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.mark.usefixtures("pristine")
async def test_a_lost_grant_is_not_confirmed_dead_by_the_end_of_another_token(
    engines: tuple[DevStack, Config],
) -> None:
    """Between reserving and minting, another request's refusal makes the replica forget its token.

    The credential must be minted with the token its grant was reserved with, or not at all: that
    is the one a sweep ends when the lease was never learnt.
    """
    stack, config = engines
    replica = Replica(stack.issuer, config)
    await replica.world.app.connection.command("FLUSHALL")
    task = await replica.world.open()

    def forget_then_die(step: Step) -> None:
        if step is Step.MINT:
            replica.pipeline.backends["vault"].forget(task["task_id"])

    replica.watch = forget_then_die
    replica.bomb = Step.ACTIVATE
    await replica.attempt(replica.world.grant(task))
    await replica.close()

    other = Replica(stack.issuer, config)
    await other.settle()
    states = {str(grant.state) for grant in (await other.grants()).values()}
    leases = await Admin(stack).leases()
    await other.world.complete(task)
    await other.settle()
    await other.close()
    assert not (leases and states <= {"revoked", "failed"})
