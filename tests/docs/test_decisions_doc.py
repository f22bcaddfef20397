"""docs/decisions.md: its configuration loads, its commands run, and are answered as it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from broker.policy.arguments import MAX_TEXT, MAX_TEXTS, REASONS
from broker.wire_authzen import MAX_BATCH, MAX_DEPTH, MAX_EFFECTS
from tests.docs.blocks import DOCS, blocks, configuration
from tests.http.served import Served
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack

PAGE = "decisions.md"
TEXT = (DOCS / PAGE).read_text("utf-8")
STEPS: list[tuple[str, str]] = re.findall(r"(?ms)^```sh\n(.*?)^```\n\n```json\n(.*?)^```", TEXT)
BASH = shutil.which("bash")


class Documented(World):
    """A world with the page's agent."""

    def identity(self, name: str) -> str:
        if name == "support-agent":
            return self.issuer.token("agent/support-agent").reveal()
        return super().identity(name)


@pytest.fixture
def served(engines: tuple[DevStack, Config]) -> Generator[Served]:
    (document,) = blocks(PAGE).values()
    config = configuration(engines[0], document, as_written=False)
    made = Served(lambda: Documented(engines[0].issuer, config))
    made.clean()
    yield made
    made.close()


def run(command: str, environment: dict[str, str]) -> Any:
    """What a command of the page prints, as a shell runs it."""
    assert BASH is not None
    done = subprocess.run(
        [BASH, "-eu", "-c", command],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def without_ids(answer: Any) -> Any:
    text = re.sub(r"\b(dec|tsk|apr)_[0-9a-z]+", r"\1_…", json.dumps(answer, ensure_ascii=False))
    return json.loads(re.sub(r'"20[^"]*Z"', '"…Z"', text))


@pytest.mark.skipif(not (BASH and shutil.which("curl")), reason="the page's commands need curl")
def test_each_command_is_answered_as_the_page_says(served: Served) -> None:
    ask = {
        "agent": "support-agent",
        "purpose": "answer a customer",
        "capabilities": ["customer-lookup", "fetch-page", "refund"],
    }
    task = served.call("orchestrator", "POST", "/v1/tasks", ask)["task_id"]
    environment = {
        "BROKER_URL": served.url,
        "TASK": task,
        "AGENT_TOKEN": served.token("support-agent", task),
        "GATEWAY_TOKEN": served.token("orders-service"),
    }

    assert len(STEPS) == TEXT.count("```sh") == 4
    for command, expected in STEPS:
        answer = run(command, environment)
        assert without_ids(answer) == json.loads(expected)
        if found := answer.get("context", {}).get("decision_id"):
            environment["DECISION"] = found


def test_the_page_names_every_reason_and_the_bounds_there_are() -> None:
    for reason in REASONS:
        assert f"`{reason}`" in TEXT
    for number in (MAX_BATCH, MAX_DEPTH, MAX_EFFECTS):
        assert re.search(rf"\b{number}\b", TEXT)
    for number in (MAX_TEXT, MAX_TEXTS):
        assert f"{number:,}" in TEXT
