"""Fixtures: engines once a session, a clean ledger each test."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
import redis
from hypothesis import settings

from broker.clock import SystemClock
from broker.dev.stack import DevStack
from broker.dev.vault import admin
from broker.errors import BackendRefused
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    from broker.config import Config

CORES: Final = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
MOST_WORKERS: Final = 4

for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    # In the background of a script both are ignored, and would be by all that tests start.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

settings.register_profile("default", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("default")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For ``-n auto``: one worker a core and one more; none for files that are named one by one.

    Half of the time a worker waits for its servers. Each has engines of its own to start, and all
    tests to collect.
    """
    named = [argument.partition("::")[0] for argument in config.args]
    if all(name.endswith(".py") for name in named):
        return 0
    return min(CORES + 1, MOST_WORKERS) if CORES > 1 else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids: Sequence[str]) -> None:
    """Refuse ids that are not unique: of tests with the same, a worker would run only the first."""
    twice = [nodeid for nodeid, count in Counter(ids).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"tests need ids of their own: {', '.join(twice)}")


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    """Valkey, OpenBao and PostgreSQL, real, with the dev configuration."""
    stack = DevStack(tmp_path_factory.mktemp("dev"), SystemClock(), durable=False)
    config = stack.start("127.0.0.1:8700", "http://127.0.0.1:8700")
    yield stack, config
    stack.stop()


@pytest.fixture(scope="module")
def empty_ledger(engines: tuple[DevStack, Config]) -> None:
    """Nothing of earlier modules, for a process that begins to serve.

    What those have left would have waited too long to be in its log, and stop its issuing.
    """
    redis.Redis.from_url(engines[1].redis.url).flushall()  # pyright: ignore[reportUnknownMemberType]


@pytest.fixture
async def pristine(engines: tuple[DevStack, Config]) -> None:
    """Engines without credentials of earlier tests, for tests that look at all there are."""
    openbao = engines[0].openbao
    assert openbao is not None
    api = admin(openbao, SystemClock())
    try:
        await api.as_broker("put", "sys/leases/revoke-prefix/database/creds", {"sync": True})
        listed = await api.as_broker("list", "auth/token/accessors")
        for accessor in listed["data"]["keys"]:
            with contextlib.suppress(BackendRefused):  # it is going already
                body = {"accessor": accessor}
                row = await api.as_broker("post", "auth/token/lookup-accessor", body)
                meta: dict[str, str] = row["data"].get("meta") or {}
                if "task" in meta:
                    await api.as_broker("post", "auth/token/revoke-accessor", body)
    finally:
        api.close()


@pytest.fixture
async def world(engines: tuple[DevStack, Config]) -> AsyncGenerator[World]:
    """A broker with an empty ledger."""
    stack, config = engines
    made = World(stack.issuer, config)
    await made.empty()
    yield made
    await made.close()
