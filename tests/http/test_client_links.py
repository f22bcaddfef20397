"""Both clients at a real broker, in every way they link up with it: sources, keys, lost answers."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from broker.client import (
    AlreadyDelivered,
    AsyncClient,
    Client,
    Denied,
    IdentityMissing,
    IdentityRefused,
    InvalidToken,
    Retries,
    Secret,
)
from broker.client.platforms import github_actions
from tests.http.consenting import ConsentWorld, consent_config, give_rights
from tests.http.served import Served
from tests.issuers import Answer
from tests.loopback import Asked, Loopback

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.client import Elevation
    from broker.config import Config
    from broker.dev.stack import DevStack

QUICK = Retries(first=0.001)


@pytest.fixture(scope="module")
def served(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    config = consent_config(engines[0], tmp_path_factory.mktemp("links") / "policies")
    made = Served(lambda: ConsentWorld(engines[0].issuer, config))
    made.clean()
    made.run(give_rights(engines[0], config))
    yield made
    made.close()


def audience(served: Served) -> str:
    (issuer,) = (i for i in served.world.config.identity.issuers if i.name == "dev")
    return str(issuer.audience)


def minted(served: Served, name: str) -> Loopback:
    """GitHub, as far as a job can tell: gives out tokens that the broker believes."""

    def answer(asked: Asked) -> Answer:
        assert asked.path.endswith(f"audience={audience(served)}")
        assert asked.headers["authorization"] == "Bearer job"
        return Answer(json.dumps({"value": served.world.identity(name)}).encode())

    return Loopback(answer)


def glass(served: Served, **options: Any) -> Elevation:
    """Break the glass of a new task as its agent, and end it: an agent has one at a time."""
    task = served.task()
    with Client(
        served.url, lambda: Secret(served.world.identity("report-writer")), task_id=task, **options
    ) as agent:
        broken = agent.break_glass(task, "orders-admin", intent="the site is down")
        assert agent.end_elevation(task, broken.elevation_id).state == "ended"
        return broken


# ── sources ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_of_githubs_opens_tasks(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with minted(served, "orchestrator") as github:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{github.url}/t?v=2")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "job")
        # The broker calls itself by another port than this one, so it has to be said whom it's for.
        with Client(served.url) as client, pytest.raises(IdentityMissing, match="BROKER_AUDIENCE"):
            client.open_task("report-writer", "p", ["orders-read"])
        assert github.asked == []
        monkeypatch.setenv("BROKER_AUDIENCE", audience(served))
        with Client(served.url) as client:
            for _ in range(2):
                assert client.open_task("report-writer", "p", ["orders-read"]).state == "active"
        async with AsyncClient(served.url) as client:
            opened = await client.open_task("report-writer", "p", ["orders-read"])
            assert opened.state == "active"
        assert len(github.asked) == 2


async def test_a_command_is_asked_when_nothing_else_is_there(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token, script = tmp_path / "token", tmp_path / "mint.py"
    token.write_text(served.world.identity("orchestrator"))
    script.write_text(f"print(open({str(token)!r}).read())")
    monkeypatch.setenv("BROKER_IDENTITY_COMMAND", f"{sys.executable} {script}")
    with Client(served.url) as client:
        assert client.list_tasks() is not None
    async with AsyncClient(served.url) as client:
        assert await client.list_tasks() is not None


def test_an_identity_for_somebody_else_is_refused(served: Served) -> None:
    with Loopback(lambda _: Answer(b'{"value": "a.b.c"}')) as github:
        identity = github_actions(github.url, Secret("job"))
        with (
            Client(served.url, identity, audience="x") as client,
            pytest.raises(IdentityRefused, match="doesn't accept this identity"),
        ):
            client.list_tasks()


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_opens_what_a_plain_token_does_not(served: Served) -> None:
    with pytest.raises(Denied, match="policy forbids"):
        glass(served)
    assert glass(served, dpop=True).break_glass

    task = served.task()
    async with AsyncClient(
        served.url,
        lambda: Secret(served.world.identity("report-writer")),
        task_id=task,
        dpop=True,
    ) as agent:
        for _ in range(3):
            assert (await agent.heartbeat(task)).state == "active"
        broken = await agent.break_glass(task, "orders-admin", intent="it is down")
        assert broken.break_glass
        issued = await agent.request_grant(task, "orders-admin")
        assert issued.credential.password is not None


async def test_a_stolen_token_is_of_no_use(served: Served) -> None:
    stolen: list[str] = []

    class Thief(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            stolen.append(request.headers.get("authorization", ""))
            return await super().handle_async_request(request)

    async with AsyncClient(
        served.url,
        lambda: Secret(served.world.identity("orchestrator")),
        dpop=True,
        http_transport=Thief(),
    ) as client:
        await client.list_tasks()
    scheme, _, token = stolen[-1].partition(" ")
    assert scheme == "DPoP"
    async with httpx2.AsyncClient(base_url=served.url) as http:
        for headers in ({"authorization": f"Bearer {token}"}, {"authorization": f"DPoP {token}"}):
            answer = await http.get("/v1/tasks", headers=headers)
            assert answer.status_code == 401


# ── lost answers ─────────────────────────────────────────────────────────────────────────────────


class Loses(httpx2.HTTPTransport):
    """Loses the first answer to a POST of this path's end, after the broker has given it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.lost = path, 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if request.url.path.endswith(self.path) and not self.lost:
            self.lost += 1
            response.read()
            raise httpx2.ReadError("lost")
        return response


def orchestrator(served: Served, path: str, **options: Any) -> Client:
    return Client(
        served.url,
        lambda: Secret(served.world.identity("orchestrator")),
        http_transport=Loses(path),
        retries=QUICK,
        **options,
    )


@pytest.mark.parametrize("dpop", [False, True])
def test_a_lost_answer_opens_no_second_task(served: Served, dpop: bool) -> None:
    with orchestrator(served, "/v1/tasks", dpop=dpop) as client:
        before = len(list(client.iter_tasks()))
        client.open_task("report-writer", "p", ["orders-read"])
        assert len(list(client.iter_tasks())) == before + 1


def test_a_lost_credential_is_said_to_be_lost_and_can_be_revoked(served: Served) -> None:
    task = served.task()
    with orchestrator(served, "/grants") as client:
        with pytest.raises(AlreadyDelivered) as caught:
            client.request_grant(task, "orders-read")
        assert client.get_grant(caught.value.grant_id).state == "active"
        assert len(client.list_grants(task_id=task).items) == 1
        assert client.revoke_grant(caught.value.grant_id).state in {"revoked", "revoking"}
        assert client.request_grant(task, "orders-read").state == "active"


def test_a_lost_token_is_had_again(served: Served) -> None:
    with orchestrator(served, "/oauth/token", dpop=True) as client:
        assert client.list_tasks() is not None


def test_what_is_refused_is_raised_as_what_it_is(served: Served) -> None:
    with (
        Client(served.url, lambda: Secret(served.world.identity("auditor"))) as client,
        pytest.raises(Denied),
    ):
        client.open_task("report-writer", "p", ["orders-read"])
    with (
        Client(served.url, lambda: Secret("a.b.c")) as client,
        pytest.raises(IdentityRefused) as caught,
    ):
        client.list_tasks()
    assert not isinstance(caught.value, InvalidToken)
