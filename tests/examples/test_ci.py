"""examples/ci: the workflow is one, and what its steps run does what it says."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.examples.running import EXAMPLES

if TYPE_CHECKING:
    from tests.examples.running import Place

FILE = EXAMPLES / "ci" / "workflow.yml"
INSTALL = "pip install broker 'psycopg[binary]'"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    document: dict[Any, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return {"on" if key is True else key: value for key, value in document.items()}


def test_it_has_the_shape_of_a_workflow(workflow: dict[str, Any]) -> None:
    assert workflow.keys() == {"name", "on", "permissions", "jobs"}
    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"]
        assert job["steps"]
        for step in job["steps"]:
            assert len({"uses", "run"} & step.keys()) == 1
            assert step.keys() <= {"name", "uses", "run", "with", "env"}


def test_it_holds_no_secret(workflow: dict[str, Any]) -> None:
    assert "secrets." not in FILE.read_text("utf-8")
    (job,) = workflow["jobs"].values()
    assert job["env"].keys() == {"BROKER_URL"}


def test_its_steps(workflow: dict[str, Any], place: Place) -> None:
    (job,) = workflow["jobs"].values()
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert scripts[0] == INSTALL  # what is installed here already
    bash = shutil.which("bash")
    assert bash is not None
    said = [place.run(bash, "-e", "-c", script) for script in scripts[1:]]
    assert [line.split() for line in said[0].splitlines()] == [
        [status, "50"] for status in ("open", "paid", "returned", "shipped")
    ]
    (task,) = [
        task for task in place.ask("task", "list") if task["purpose"].startswith("nightly report")
    ]
    assert (task["state"], task["agent"]) == ("completed", "report-writer")
    (grant,) = place.ask("grant", "list", "--task", task["task_id"])
    assert grant["state"] == "revoked"
