"""Policies in force: looked at, loaded as a whole, explained; live grants are decided again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.config.policy import ObserveEntry, RemoteMode, RemoteSection
from broker.errors import AccessDenied, LedgerUnavailable
from broker.identity.models import Transport
from broker.wire import RequestGrant
from tests.http.parties import assert_problem
from tests.issuers import Answer
from tests.loopback import Loopback
from tests.risk_world import RiskWorld, risk_config
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

CALM: Final = '@id("calm")\nforbid (principal, action, resource) when { false };\n'
NO_PAGES: Final = (
    '@id("no-pages")\n@advice("Pages are not for now.")\n'
    'forbid (principal, action == Action::"issue_grant", resource == Capability::"pages");\n'
)
FILE: Final = "own.cedar"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / FILE).write_text(CALM, "utf-8")
    return tmp_path


@pytest.fixture
async def here(engines: tuple[DevStack, Config], folder: Path) -> AsyncGenerator[RiskWorld]:
    made = RiskWorld(engines[0].issuer, risk_config(engines[0], folder))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def there(
    engines: tuple[DevStack, Config], folder: Path, here: RiskWorld
) -> AsyncGenerator[RiskWorld]:
    made = RiskWorld(engines[0].issuer, risk_config(engines[0], folder))
    yield made
    await made.close()


async def reload(world: RiskWorld) -> dict[str, Any]:
    answer = await world.call("operator", "POST", "/v1/policy/reload")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def shown(world: RiskWorld) -> dict[str, Any]:
    answer = await world.call("auditor", "GET", "/v1/policy")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def granted(world: RiskWorld, *capabilities: str) -> dict[str, dict[str, Any]]:
    task = await world.open(capabilities=list(capabilities))
    return {name: await world.grant(task, name) for name in capabilities}


async def state(world: RiskWorld, grant: dict[str, Any]) -> str:
    return (await world.show_grant(grant["grant_id"]))["state"]


async def test_the_policies_in_force_are_shown_with_where_they_are_from(here: RiskWorld) -> None:
    body = await shown(here)

    rows = {row["policy"]: row for row in body["policies"]}
    assert rows["calm"] == {
        "policy": "calm",
        "file": FILE,
        "effect": "forbid",
        "advice": None,
        "obligations": {},
    }
    assert rows["privileged-by-approval"]["obligations"]["approvals"] == 1
    assert body["problem"] is None
    assert body["observed"] == []


async def test_nothing_is_loaded_anew_that_has_not_changed(here: RiskWorld) -> None:
    assert (await reload(here))["changed"] is False


async def test_live_grants_that_other_policies_refuse_are_revoked_and_others_stay(
    here: RiskWorld, folder: Path
) -> None:
    grants = await granted(here, "pages", "customers")
    before = (await shown(here))["digest"]
    (folder / FILE).write_text(NO_PAGES, "utf-8")

    body = await reload(here)

    assert body["changed"] is True
    assert body["digest"] != before
    assert body["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert await state(here, grants["pages"]) == "revoked"
    assert await state(here, grants["customers"]) == "active"
    assert (await here.show_grant(grants["pages"]["grant_id"]))["reason"] == "policy_changed"


async def test_a_replica_that_looks_by_itself_does_the_same(here: RiskWorld, folder: Path) -> None:
    grants = await granted(here, "pages")
    (folder / FILE).write_text(NO_PAGES, "utf-8")

    await here.app.oversight.policing.keep_up()

    assert await state(here, grants["pages"]) == "revoked"


async def test_what_a_crash_after_loading_left_undecided_the_next_start_decides(
    here: RiskWorld, there: RiskWorld, folder: Path
) -> None:
    await here.app.oversight.policing.keep_up()
    grants = await granted(here, "pages")
    (folder / FILE).write_text(NO_PAGES, "utf-8")
    # Loaded, and not decided again: as if the process had died there.
    assert there.app.pipeline.judge.policies.reload()

    await there.app.oversight.policing.keep_up()

    assert await state(here, grants["pages"]) == "revoked"


async def test_what_a_replica_issued_by_old_policies_is_decided_again_when_it_has_the_new(
    here: RiskWorld, there: RiskWorld, folder: Path
) -> None:
    await there.app.oversight.policing.keep_up()
    (folder / FILE).write_text(NO_PAGES, "utf-8")
    assert (await reload(here))["changed"] is True  # and has decided all that was live
    late = await granted(there, "pages")  # which hasn't looked yet

    await there.app.oversight.policing.keep_up()

    assert await state(here, late["pages"]) == "revoked"


async def test_what_a_replica_issued_by_old_policies_is_decided_again_after_its_crash(
    engines: tuple[DevStack, Config], here: RiskWorld, there: RiskWorld, folder: Path
) -> None:
    (folder / FILE).write_text(NO_PAGES, "utf-8")
    await reload(here)
    late = await granted(there, "pages")
    # It dies before it has looked, and comes back with the new ones.
    back = RiskWorld(engines[0].issuer, risk_config(engines[0], folder))
    try:
        await back.app.oversight.policing.keep_up()

        assert await state(here, late["pages"]) == "revoked"
    finally:
        await back.close()


async def test_a_review_that_was_cut_short_is_made_up_for(here: RiskWorld, folder: Path) -> None:
    grants = await granted(here, "pages")
    (folder / FILE).write_text(NO_PAGES, "utf-8")
    redis: Any = here.app.connection.client
    await redis.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    with pytest.raises(LedgerUnavailable):
        await here.app.oversight.policing.refresh("operator")
    await redis.execute_command("CLIENT", "UNPAUSE")

    await here.app.oversight.policing.keep_up()

    assert await state(here, grants["pages"]) == "revoked"


async def test_two_who_load_at_once_load_once(here: RiskWorld, folder: Path) -> None:
    before = here.app.pipeline.judge.policies.loaded.generation
    (folder / FILE).write_text(NO_PAGES, "utf-8")
    policing = here.app.oversight.policing

    outcomes = await asyncio.gather(*(policing.refresh("operator") for _ in range(5)))

    assert [changed for changed, _ in outcomes].count(True) == 1
    assert here.app.pipeline.judge.policies.loaded.generation == before + 1


async def test_what_cant_be_decided_about_stays_is_told_and_is_decided_once_it_can_be(
    engines: tuple[DevStack, Config], folder: Path
) -> None:
    answer = Answer(b'{"decision": true}', headers={"content-type": "application/json"})
    with Loopback(lambda _: answer) as elsewhere:
        config = risk_config(engines[0], folder)
        remote = RemoteSection.model_construct(
            url=elsewhere.url,
            mode=RemoteMode.BESIDES,
            timeout=5000,
            token_file=None,
            ca_file=None,
        )
        policy = config.policy.model_copy(update={"remote": remote})
        world = RiskWorld(engines[0].issuer, config.model_copy(update={"policy": policy}))
        try:
            await world.app.connection.command("FLUSHALL")
            grants = await granted(world, "customers", "pages")
            elsewhere.answer = lambda _: Answer(b"", 500)

            told = await world.signal({"agent": "report-writer"}, risk=60)

            assert_problem(told, 503, "unavailable")
            assert [row["risk"] for row in (await world.signals())["items"]] == [60]
            assert await state(world, grants["pages"]) == "active"
            detections = world.app.oversight.detections
            assert await detections.finish(older_than_ms=0) == []

            elsewhere.answer = lambda _: Answer(b'{"decision": false}', headers=answer.headers)
            assert await detections.finish(older_than_ms=0) == ["agent:report-writer"]
            for grant in grants.values():
                assert await state(world, grant) == "revoked"
        finally:
            await world.close()


async def test_policies_that_cant_be_used_leave_those_in_force(
    here: RiskWorld, folder: Path
) -> None:
    grants = await granted(here, "pages")
    (folder / FILE).write_text(NO_PAGES + "forbid (principal, action, resource) when {", "utf-8")

    answer = await here.call("operator", "POST", "/v1/policy/reload")

    problem = assert_problem(answer, 409, "conflict")
    assert FILE in problem["detail"]
    assert await state(here, grants["pages"]) == "active"
    assert FILE in (await shown(here))["problem"]
    assert (await here.app.ready())["policy"].startswith("warning")
    await here.app.oversight.policing.keep_up()  # logs, and goes on

    (folder / FILE).write_text(CALM, "utf-8")
    await here.app.oversight.policing.keep_up()
    assert (await shown(here))["problem"] is None


async def test_a_grant_in_the_making_while_policies_change_is_not_delivered(
    engines: tuple[DevStack, Config], folder: Path, here: RiskWorld
) -> None:
    task = await here.open(capabilities=["pages"])
    caller = await here.app.broker.access.authenticate(
        await here.token("report-writer", task["task_id"]),
        "bearer",
        Transport("POST", here.config.broker.issuer),
    )
    ask = RequestGrant(capability="pages")
    fresh = await here.app.broker.task(caller, task["task_id"])
    ruling = await here.app.pipeline._decide(caller, fresh, ask, None)  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  to stop between two steps
    (folder / FILE).write_text(NO_PAGES, "utf-8")
    await here.app.oversight.policing.keep_up()

    capability = here.app.pipeline.catalog.capabilities["pages"]
    with pytest.raises(AccessDenied, match="Policy changed while") as refused:
        await here.app.pipeline._issue(caller, fresh, capability, ask, ruling, None)  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  as above

    grant_id = refused.value.extra["grant_id"]
    assert await state(here, {"grant_id": grant_id}) == "revoked"


async def test_a_denial_is_explained_with_what_would_change_it(
    here: RiskWorld, folder: Path
) -> None:
    (folder / FILE).write_text(NO_PAGES, "utf-8")
    await reload(here)
    task = await here.open(capabilities=["pages"])
    refused = await here.ask(task, "pages")
    problem = assert_problem(refused, 403, "access_denied")
    assert problem["advice"] == ["Pages are not for now."]

    answer = await here.call("auditor", "GET", f"/v1/decisions/{problem['decision_id']}")

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["task_id"] == task["task_id"]
    assert body["said"]["effect"] == "deny"
    assert body["question"]["resource"]["id"] == "pages"
    assert [row["policy"] for row in body["explanation"]["decided_by"]] == ["no-pages"]


async def test_what_is_needed_of_an_approval_is_said(here: RiskWorld) -> None:
    task = await here.open(capabilities=["orders-post"])
    await here.reported({"task_id": task["task_id"]}, risk=60)
    asked = await here.ask(task, "orders-post")
    assert asked.status_code == 202, asked.text

    path = f"/v1/decisions/{asked.json()['decision_id']}"
    answer = await here.call("operator", "GET", path)

    changes = {row["change"] for row in answer.json()["explanation"]["would_change_it"]}
    assert any("approv" in change for change in changes), changes


@pytest.mark.parametrize("decision_id", ["dec_00000000000000000000000000", "nonsense"])
async def test_an_unknown_decision_is_not_found(here: RiskWorld, decision_id: str) -> None:
    answer = await here.call("operator", "GET", f"/v1/decisions/{decision_id}")

    assert_problem(answer, 404, "not_found")


async def test_who_can_have_a_capability_is_listed_with_why(here: RiskWorld) -> None:
    answer = await here.call("auditor", "GET", "/v1/policy/who-can?capability=customers")

    assert answer.status_code == 200, answer.text
    rows = {row["agent"]: row for row in answer.json()["items"]}
    assert rows["report-writer"]["effect"] == "allow"
    assert rows["report-writer"]["policies"] == ["read-within-the-task"]
    unknown = await here.call("auditor", "GET", "/v1/policy/who-can?capability=nothing")
    assert_problem(unknown, 404, "not_found")


@pytest.mark.parametrize("name", ["orchestrator", "orders-service"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/policy"),
        ("POST", "/v1/policy/reload"),
        ("GET", "/v1/policy/who-can?capability=pages"),
        ("GET", "/v1/decisions/dec_00000000000000000000000000"),
    ],
)
async def test_policies_are_for_operators_and_auditors(
    here: RiskWorld, name: str, method: str, path: str
) -> None:
    assert_problem(await here.call(name, method, path), 403, "access_denied")


async def test_auditors_look_and_operators_load(here: RiskWorld) -> None:
    answer = await here.call("auditor", "POST", "/v1/policy/reload")

    assert_problem(answer, 403, "access_denied")


async def test_a_policy_can_forbid_an_operator_something(here: RiskWorld, folder: Path) -> None:
    text = (
        '@id("no-loading")\nforbid (principal, action == Action::"operate", '
        'resource == Operation::"reload_policies");\n'
    )
    (folder / FILE).write_text(text, "utf-8")
    await here.app.oversight.policing.keep_up()

    assert_problem(await here.call("operator", "POST", "/v1/policy/reload"), 403, "access_denied")


async def test_policies_only_tried_out_change_nothing_and_are_seen(
    engines: tuple[DevStack, Config], folder: Path, tmp_path: Path
) -> None:
    tried = tmp_path / "tried"
    tried.mkdir()
    (tried / "next.cedar").write_text(NO_PAGES, "utf-8")
    config = risk_config(engines[0], folder)
    observed = config.model_copy(
        update={
            "policy": config.policy.model_copy(
                update={"observe": (ObserveEntry.model_construct(name="next", dir=tried),)}
            )
        }
    )
    world = RiskWorld(engines[0].issuer, observed)
    try:
        await world.app.connection.command("FLUSHALL")
        grants = await granted(world, "pages")

        async def logged() -> list[dict[str, Any]]:
            events = await world.events(grants["pages"]["task_id"])
            return [e["data"] for e in events if e["data"].get("action") == "issue_grant"]

        (decision,) = await wait_until(logged, "the decision is logged")
        assert decision["effect"] == "allow"
        assert decision["observed"] == [{"set": "next", "effect": "deny", "policies": ["no-pages"]}]
        assert [row["set"] for row in (await shown(world))["observed"]] == ["next"]
    finally:
        await world.close()
