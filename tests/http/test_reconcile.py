"""Who may reconcile, what is refused, and what the job does and doesn't by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.audit.head import Head
from broker.backends.vault_look import VaultLook
from broker.config.targets import TargetEntry, TargetKind
from broker.ledger import keys
from broker.ledger.quarantine import QuarantineTable
from broker.metrics import Metrics
from broker.reconcile.desk import ReconcileDesk, ReconcileRules
from tests.admin import Admin
from tests.http.parties import assert_problem
from tests.risk_world import RiskWorld, risk_config
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

PATH: Final = "/v1/reconciliations"
OURS: Final[dict[str, Any]] = {"backend": "token"}


async def test_operators_reconcile_auditors_read_and_nobody_else(world: World) -> None:
    assert_problem(await world.call("auditor", "GET", PATH), 404, "not_found")
    for name in ("orchestrator", "auditor", "orders-service"):
        assert_problem(await world.call(name, "POST", PATH, OURS), 403, "access_denied")
    done = await world.call("operator", "POST", PATH, OURS)
    assert done.status_code == 200, done.text
    for name in ("operator", "auditor"):
        assert (await world.call(name, "GET", PATH)).json() == done.json()
    assert_problem(await world.call("orchestrator", "GET", PATH), 403, "access_denied")


async def test_what_is_applied_is_what_was_looked_at(world: World) -> None:
    first, second = [(await world.call("operator", "POST", PATH, OURS)).json() for _ in "12"]
    apply = {**OURS, "apply": True}
    late = await world.call("operator", "POST", PATH, {**apply, "shown": first["at"]})
    assert_problem(late, 409, "conflict")
    done = await world.call("operator", "POST", PATH, {**apply, "shown": second["at"]})
    assert done.status_code == 200, done.text


@pytest.mark.parametrize(
    ("ask", "status", "code"),
    [
        ({"backend": "nowhere"}, 400, "invalid_request"),
        ({"release": True}, 400, "invalid_request"),
        ({"apply": "yes"}, 400, "invalid_request"),
        ({**OURS, "release": True, "reason": "why not"}, 409, "conflict"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    world: World, ask: dict[str, Any], status: int, code: str
) -> None:
    assert_problem(await world.call("operator", "POST", PATH, ask), status, code)


async def test_nothing_is_concluded_from_a_target_that_does_not_answer(
    engines: tuple[DevStack, Config], world: World, tmp_path: Path
) -> None:
    for kind, url in (
        (TargetKind.POSTGRESQL, "postgresql://u:hidden@127.0.0.1:1/x"),
        (TargetKind.MYSQL, "mysql://u:hidden@127.0.0.1:1"),
        (TargetKind.RABBITMQ, "http://u:hidden@127.0.0.1:1"),
        (TargetKind.VALKEY, "redis://u:hidden@127.0.0.1:1"),
    ):
        file = tmp_path / kind
        file.write_text(url)
        target = TargetEntry.model_construct(
            name="orders",
            kind=kind,
            dsn_file=file,
            accounts="v-token-br*",
            capabilities=("orders-read",),
            ca_file=None,
        )
        config = engines[1].model_copy(update={"targets": (target,)})
        blind = World(engines[0].issuer, config)
        granted = await blind.grant(await blind.open())

        report = (await blind.call("operator", "POST", PATH, {"backend": "vault"})).json()

        [problem] = report["problems"]
        assert problem.startswith("target orders: ")
        assert "hidden" not in str(report)
        assert granted["grant_id"] not in str(report["findings"])
        assert not report["agreement"]
        await blind.close()


async def test_who_may_not_release_does_not_lift_a_quarantine_by_applying_either(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    policy = (
        '@id("others-release")\nforbid (principal, action == Action::"operate", '
        'resource == Operation::"release");\n'
    )
    (tmp_path / "own.cedar").write_text(policy, "utf-8")
    world = RiskWorld(engines[0].issuer, risk_config(engines[0], tmp_path))
    await world.app.connection.command("FLUSHALL")
    await QuarantineTable(world.app.connection).set("a test")

    async def agreed() -> dict[str, Any] | None:
        report = (await world.call("operator", "POST", PATH, {"apply": True})).json()
        return report if report["agreement"] else None

    report = await wait_until(agreed, "what other tests have left is ended")
    assert report is not None
    assert report["quarantine"]["why"] == "a test"

    (tmp_path / "own.cedar").write_text(f"{policy[:-2]} when {{ false }};\n", "utf-8")
    await world.app.oversight.policing.keep_up()
    report = await agreed()
    assert report is not None
    assert report["quarantine"] is None
    await world.close()


async def test_a_replica_that_does_not_write_the_log_notices_a_ledger_that_was_set_back(
    world: World,
) -> None:
    audit, quarantine = world.app.audit, QuarantineTable(world.app.connection)
    assert audit is not None
    heads = [Head(size, "a" * 64, ("b" * 64,) * size.bit_count()) for size in (4, 2)]
    for head in heads:
        assert await quarantine.standing() is None
        await world.app.connection.command("HSET", keys.head(), "head", head.to_json())
        await audit.look()
    held = await quarantine.standing()
    assert held is not None
    assert "has 4 records" in held.why
    # Once it was released it isn't set again for the same reason.
    assert await quarantine.release(actor="operator", reason="known")
    await audit.look()
    assert await quarantine.standing() is None


async def test_a_token_that_somebody_else_made_is_not_ours_whatever_its_metadata_says(
    engines: tuple[DevStack, Config], world: World
) -> None:
    assert world.app.vault is not None
    look = VaultLook(world.app.vault, world.config.broker.issuer)
    await world.grant(await world.open())
    ours = {token.handle async for token in look.task_tokens()}
    assert ours
    meta = {"broker": world.config.broker.issuer, "task": "tsk_1", "handle": "theirs"}
    await Admin(engines[0]).vault("POST", "auth/token/create", {"meta": meta, "ttl": "1m"})
    assert {token.handle async for token in look.task_tokens()} == ours


async def test_the_job_shows_and_holds_and_ends_what_it_has_shown_only_once_it_may(
    world: World,
) -> None:
    app = world.app
    assert app.vault is not None
    rules = ReconcileRules(every_ms=1, apply=True)
    look = VaultLook(app.vault, world.config.broker.issuer)
    desk = ReconcileDesk(
        app.pipeline,
        app.connection,
        look=look,
        targets=(),
        rules=rules,
        metrics=Metrics(app.clock),
    )
    quarantine = QuarantineTable(app.connection)
    lost = await world.grant(await world.open())
    await world.empty()

    for _ in range(2):
        await desk.look()
        held = await quarantine.standing()
        assert held is not None
        assert "tokens of tasks that the ledger has lost" in held.why
        assert await logs_in(lost["credential"])
    assert (await desk.state()).startswith("warning: in quarantine")

    assert await quarantine.release(actor="operator", reason="known")
    await desk.look()
    assert await quarantine.standing() is None

    async def dead() -> bool:
        return not await logs_in(lost["credential"])

    await wait_until(dead, "what was shown before is ended")
