"""The credentials of a running task: approved, renewed, rotated, given back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from broker.client import (
    Approval,
    ApprovalDenied,
    ApprovalRequired,
    Client,
    Denied,
    GrantEnded,
    HeldGrant,
    InvalidRequest,
    Secret,
)
from tests.sdk.world import eventually, logs_in

if TYPE_CHECKING:
    from tests.sdk.colours import Colour
    from tests.sdk.world import Sdk

AGENT: Any = ("report-writer", "the weekly report")


def test_a_credential_is_had_as_programs_take_it(client: Any) -> None:
    with client.task(*AGENT, ["orders-read", "orders-api"]) as task:
        orders = task.grant("orders-read", ttl="2m", intent="count them")
        password = orders.credential.password
        assert isinstance(password, Secret)
        assert isinstance(orders.dsn(), Secret)
        env = orders.env()
        assert env["PGPASSWORD"] == password.reveal()
        assert env["PGUSER"] == orders.credential.username
        assert env["DATABASE_URL"] == orders.dsn().reveal()
        assert env["PGDATABASE"]
        assert {"PGHOST", "PGPORT"} <= env.keys()
        assert password.reveal() not in f"{orders!r} {vars(orders)!r}"
        api = task.grant("orders-api")
        assert api.env() == {"ACCESS_TOKEN": api.credential.token.reveal()}
        with pytest.raises(InvalidRequest) as caught:
            api.dsn()
        assert caught.value.code == "no_dsn"
        with pytest.raises(Denied):
            task.grant("orders-write")


def test_what_needs_approval_says_so_at_once_unless_it_is_to_wait(client: Any) -> None:
    with client.task(*AGENT, ["deploy"]) as task:
        with pytest.raises(ApprovalRequired) as caught:
            task.grant("deploy")
        assert caught.value.approval_id


@pytest.mark.parametrize("yes", [True, False], ids=["yes", "no"])
def test_it_waits_for_a_human(sdk: Sdk, client: Any, yes: bool) -> None:
    seen: list[Approval] = []

    def progress(approval: Approval) -> None:
        seen.append(approval)
        sdk.say(approval.approval_id, yes=yes)

    with client.task(*AGENT, ["orders-admin"]) as task:
        with pytest.raises(ApprovalRequired) as caught:
            task.grant("orders-admin")
        asked = caught.value.approval_id
        sdk.say(asked, yes=yes)
        if yes:
            dsn = task.grant("orders-admin", wait="20s").dsn().reveal()
            assert logs_in(dsn)
        else:
            with pytest.raises(ApprovalDenied):
                task.grant("orders-admin", wait="20s", on_wait=progress)


def test_it_waits_no_longer_than_told(client: Any) -> None:
    with client.task(*AGENT, ["deploy"]) as task:
        with pytest.raises(ApprovalRequired) as caught:
            task.grant("deploy", wait="1s")
        assert caught.value.code == "approval_required"


def test_a_long_task_renews_its_credentials(sdk: Sdk, client: Any) -> None:
    with client.task(*AGENT, ["orders-lasting"]) as task:
        orders = task.grant("orders-lasting")
        first, dsn = orders.expires_at, orders.dsn().reveal()

        def outlived() -> bool:
            return (orders.expires_at - first).total_seconds() > 4

        sdk.swept_until(outlived, "it was renewed more than once")
        assert orders.dsn().reveal() == dsn
        assert logs_in(dsn)
    assert not logs_in(dsn)


def test_what_cannot_be_renewed_is_replaced_new_before_old(sdk: Sdk, client: Any) -> None:
    changes: list[tuple[str, bool]] = []

    def changed(held: HeldGrant) -> None:
        changes.append((held.grant_id, logs_in(held.dsn().reveal()) and logs_in(old)))

    with client.task(*AGENT, ["orders-brief"]) as task:
        orders = task.grant("orders-brief", rotate="2s", on_change=changed)
        first, old = orders.grant_id, orders.dsn().reveal()
        sdk.swept_until(lambda: changes, "it was rotated")
        assert changes[0][1], "both work for the time of the overlap"
        assert orders.grant_id != first
        assert orders.issued.replaces is not None
        sdk.swept_until(lambda: not logs_in(old), "the old one ends")
        last = orders.dsn().reveal()
    assert not logs_in(last)


def test_what_ends_with_nothing_to_be_done_says_so(sdk: Sdk, client: Any) -> None:
    with client.task(*AGENT, ["orders-brief"]) as task:
        orders = task.grant("orders-brief", renew=False)

        def ended() -> bool:
            try:
                orders.dsn()
            except GrantEnded:
                return True
            return False

        eventually(ended, "its time is up")


def test_one_is_rotated_and_given_back_by_hand(client: Any) -> None:
    with client.task(*AGENT, ["orders-read"]) as task:
        orders = task.grant("orders-read")
        old = orders.dsn().reveal()
        task.rotate(orders, overlap="1m")
        new = orders.dsn().reveal()
        assert new != old
        assert logs_in(new)
        assert logs_in(old)
        assert task.release(orders).state == "revoked"
        assert not logs_in(new)


def test_one_is_carried_wrapped(sdk: Sdk, colour: Colour) -> None:
    client = colour.client(sdk.url, sdk.identity("orchestrator"))
    with client.task(*AGENT, ["orders-read"]) as task:
        carried = task.grant("orders-read", delivery="wrapped", wrap_ttl="1m")
        token = carried.credential.token
        agent = colour.client(sdk.url, sdk.identity("report-writer"), task_id=task.task_id)
        with agent.join() as joined:
            orders = joined.unwrap(carried.grant_id, token)
            assert logs_in(orders.dsn().reveal())


class Losing(httpx2.HTTPTransport):
    """Loses the first answer that brings a credential."""

    lost = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().handle_request(request)
        if request.url.path.endswith("/grants") and request.method == "POST" and not self.lost:
            self.lost += 1
            answer.close()
            raise httpx2.ReadError("the connection broke", request=request)
        return answer


def test_a_credential_whose_answer_was_lost_is_revoked_and_another_one_comes(sdk: Sdk) -> None:
    transport = Losing()
    identity = sdk.identity("orchestrator")
    client = Client(sdk.url, identity, http_transport=transport)
    with client, client.task("report-writer", "report", ["orders-read"]) as task:
        orders = task.grant("orders-read")
        assert transport.lost == 1
        assert logs_in(orders.dsn().reveal())
        states = {g.grant_id: g.state for g in client.iter_grants(task_id=task.task_id)}
        assert states.pop(orders.grant_id) == "active"
        assert list(states.values()) == ["revoked"]
