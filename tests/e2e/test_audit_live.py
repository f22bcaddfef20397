"""The signed log of `broker serve`, on real engines: written, told, verified, exported, proved."""

from __future__ import annotations

import asyncio
import json
import signal
import tomllib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import redis
import tomli_w

from tests.audit_bench import records, segments
from tests.dev.broker_process import Server, broker, eventually
from tests.e2e.test_cli_live import Cli, address, config_of
from tests.issuers import Answer
from tests.loopback import Asked, Loopback
from tests.unit.test_audit_ocsf import assert_valid
from tests.world import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

SECRET = "whsec_" + b64encode(bytes(32)).decode()


class Sink:
    """A receiver of webhooks that is down until told otherwise."""

    def __init__(self) -> None:
        self.up = False
        self.server = Loopback(self._answer)

    def _answer(self, _: Asked) -> Answer:
        return Answer(status=200 if self.up else 503)

    @property
    def ids(self) -> list[str]:
        taken = [event["id"] for asked in self.server.asked for event in json.loads(asked.body)]
        return list(dict.fromkeys(taken))


@pytest.fixture(scope="module")
def tokens(engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    for name, subject in SUBJECTS.items():
        (folder / name).write_text(engines[0].issuer.token(subject).reveal())
    return folder


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    with made.server:
        yield made


@pytest.fixture
def config(engines: tuple[DevStack, Config], tmp_path: Path, sink: Sink) -> Path:
    """A broker of its own, with an empty ledger and two sinks."""
    url = engines[1].redis.url
    redis.Redis.from_url(url).flushall()  # pyright: ignore[reportUnknownMemberType]
    (tmp_path / "secret").write_text(SECRET)
    file = config_of(engines[0], tmp_path)
    document: dict[str, Any] = tomllib.loads(file.read_text())
    document["audit"] = {
        "sinks": [
            {
                "name": "siem",
                "kind": "webhook",
                "url": f"{sink.server.url}/",
                "secret_file": "secret",
                "timeout": "1s",
            },
            {"name": "console", "kind": "stdout", "types": ["task."]},
        ]
    }
    file.write_text(tomli_w.dumps(document))
    return file


def life(cli: Cli) -> str:
    """One task, one credential, until all is dead."""
    task = cli.open()
    ran = cli.run("report-writer", "grant", "request", task, "orders-read", "--field", "password")
    assert ran.code == 0, ran.err
    assert cli.json("orchestrator", "task", "complete", task)["state"] == "completed"
    return task


def test_all_that_happened_is_in_the_log_signed_and_delivered(
    config: Path, tokens: Path, tmp_path: Path, sink: Sink
) -> None:
    log = tmp_path / "state" / "audit"
    cli = Cli(address(config), config, tokens)
    with Server(tmp_path / "out", "serve", "--config", config) as server:
        server.wait_ready()
        task = life(cli)
        events = cli.json("auditor", "audit", "list", "--task", task)["items"]
        assert events

        def drained() -> bool:
            return {e["id"] for e in events} <= {r["id"] for r in records(log)}

        eventually(drained, "the task's events are in the log")

        # The webhook is down all this time: issuing went on, and it shows.
        def warned() -> bool:
            return "siem" in httpx2.get(f"{cli.url}/readyz").json()["checks"]["audit"]

        eventually(warned, "readiness warns of the sink")
        assert httpx2.get(f"{cli.url}/readyz").status_code == 200
        sink.up = True

        def delivered() -> bool:
            return {e["id"] for e in events} <= set(sink.ids)

        eventually(delivered, "the sink has got them")
        story = cli.run("auditor", "audit", "show", task)
        assert story.code == 0
        assert "nothing of it is live" in story.out
        tail = cli.run("auditor", "audit", "tail", "--json")
        assert {e["id"] for e in events} <= {json.loads(row)["id"] for row in tail.out.splitlines()}
        assert cli.run("orchestrator", "audit", "tail").code == 4
        assert server.end(signal.SIGTERM) == 0
        told = [json.loads(line) for line in server.said]

    # At the end all of it is signed, and told to the sinks.
    checked = broker("audit", "verify", "--config", config, "--ledger", "--json")
    assert checked.code == 0, checked.out
    assert checked.json["unsigned"] == 0
    assert checked.json["size"] == len(records(log))
    assert sink.ids == [event["id"] for event in records(log)]
    mine = [e["id"] for e in records(log) if e["type"].startswith("broker.task.")]
    assert [event["id"] for event in told] == mine != []
    check_files(config, tmp_path, events[0]["id"])


def check_files(config: Path, tmp_path: Path, event_id: str) -> None:
    """The files alone: export, a proof, and a change that is found."""
    exported = broker("audit", "export", "--config", config, "--format", "ocsf")
    for row in map(json.loads, exported.out.splitlines()):
        assert_valid(row, row["metadata"]["version"])
    proof = tmp_path / "proof.json"
    proof.write_text(broker("audit", "prove", event_id, "--config", config).out)
    assert broker("audit", "check", proof, "--config", config).code == 0

    [first, *_] = segments(tmp_path / "state" / "audit")
    first.write_bytes(first.read_bytes().replace(b"orders-read", b"orders-all!", 1))
    changed = broker("audit", "verify", "--config", config)
    assert changed.code == 1
    assert "changed" in changed.out


def test_a_killed_broker_loses_no_event(config: Path, tokens: Path, tmp_path: Path) -> None:
    log = tmp_path / "state" / "audit"
    cli = Cli(address(config), config, tokens)
    with Server(tmp_path / "one", "serve", "--config", config) as server:
        server.wait_ready()
        first = life(cli)
        assert server.end(signal.SIGKILL) != 0
    with Server(tmp_path / "two", "serve", "--config", config) as server:
        server.wait_ready()
        second = life(cli)
        assert server.end(signal.SIGTERM) == 0
        # It was ended before the dead one's lease had run out: the next takes what is left.
    with Server(tmp_path / "three", "serve", "--config", config) as server:
        server.wait_ready()
        events = {
            event["id"]
            for task in (first, second)
            for event in cli.json("auditor", "audit", "list", "--task", task)["items"]
        }

        def drained() -> bool:
            return events <= {record["id"] for record in records(log)}

        eventually(drained, "all events are in the log")
        assert server.end(signal.SIGTERM) == 0
    assert broker("audit", "verify", "--config", config, "--ledger").code == 0
    ids = [record["id"] for record in records(log)]
    assert len(ids) == len(set(ids))


def test_auditors_get_the_checkpoint_and_the_key(
    config: Path, tokens: Path, tmp_path: Path
) -> None:
    cli = Cli(address(config), config, tokens)
    with Server(tmp_path / "out", "serve", "--config", config) as server:
        server.wait_ready()
        life(cli)
        auditor = asyncio.run(_token(cli, "auditor"))
        other = asyncio.run(_token(cli, "orchestrator"))

        def signed() -> bool:
            answer = httpx2.get(f"{cli.url}/v1/audit/checkpoint", headers=auditor)
            return answer.status_code == 200 and int(answer.text.splitlines()[1]) > 0

        eventually(signed, "there is a checkpoint of some records")
        answer = httpx2.get(f"{cli.url}/v1/audit/checkpoint", headers=auditor)
        assert answer.headers["content-type"].startswith("text/plain")
        key = httpx2.get(f"{cli.url}/v1/audit/key", headers=auditor)
        assert key.text == broker("audit", "key", "--config", config).out
        for path in ("checkpoint", "key"):
            url = f"{cli.url}/v1/audit/{path}"
            assert httpx2.get(url, headers=other).status_code == 403
            assert httpx2.get(url).status_code == 401
        (tmp_path / "kept").write_text(answer.text)
        assert server.end(signal.SIGTERM) == 0
    checked = broker("audit", "verify", "--config", config, "--known", tmp_path / "kept")
    assert checked.code == 0


async def _token(cli: Cli, name: str) -> dict[str, str]:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": (cli.tokens / name).read_text(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "resource": tomllib.loads(cli.config.read_text())["broker"]["issuer"],
    }
    async with httpx2.AsyncClient() as http:
        answer = await http.post(f"{cli.url}/oauth/token", data=form)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}
