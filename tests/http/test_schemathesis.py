"""schemathesis over our OpenAPI document: nothing is answered that the document doesn't say.

Each operation is called by whoever may call it, with data made to fit the document and data made
not to; then by everybody else. A third test goes along the document's links: a task that was opened
is asked for grants, kept alive, ended. The checks of schemathesis are on, but for those that
``CONFIG`` turns off and says why.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig

from broker.http.app import routed
from tests.docs.blocks import DOCS
from tests.http.parties import party_world
from tests.http.served import Served
from tests.http.sharpened import aim, sharpened

if TYPE_CHECKING:
    from collections.abc import Generator

    from schemathesis import Case
    from schemathesis.core.transport import Response

    from broker.config import Config
    from broker.dev.stack import DevStack

CALLERS: Final = ("orchestrator", "report-writer", "operator", "auditor", "orders-service", "")
"""Principals; ``""`` is somebody without a token."""
ENTITLED: Final = (
    ("/v1/tasks", "orchestrator"),
    ("/v1/grants", "orchestrator"),
    ("/v1/approvals", "approver"),
    ("/v1/", "operator"),
    ("/access/v1/", "orchestrator"),
    ("/oauth/introspect", "orders-service"),
    ("/oauth/revoke", "orchestrator"),
    ("", ""),
)
"""Who may call what begins so."""

BY_A_BOUND_TOKEN: Final = {
    "POST /v1/tasks/{task_id}/break-glass",
    "POST /v1/reviews/{elevation_id}/close",
}
"""Operations that nobody gets done by a plain token: tests/http/test_elevations.py does them."""

AFTER_MORE: Final = {
    "POST /v1/grants/{grant_id}/unwrap",
    "POST /v1/grants/{grant_id}/renew",
    "POST /v1/grants/{grant_id}/retry",
    "POST /v1/grants/{grant_id}/abandon",
    "GET /v1/grants/{grant_id}/receipt",
    "GET /v1/reconciliations",
    "GET /v1/audit/events/{event_id}",
    "POST /v1/policy/dry-run",
    "GET /v1/login",
}
"""Operations on what was wrapped, can be renewed, is stuck, dead, compared, logged or configured,
and on one of two members: they have tests of their own that do them.
"""

BEYOND_WORDS: Final = (
    r"^/oauth/"
    r"|^/v1/(revocations|freezes|signals|principals|owners/retire|keys/rotate|policy/dry-run)$"
)
"""Paths where data that fits the document may be refused: it can't say all that must hold."""

UPSETTING: Final = (
    "/keys/rotate",
    "/freezes",
    "/signals",
    "/revocations",
    "/suspend",
    "/retire",
)
"""Paths after which tokens are dead, or callers stopped, or everything frozen."""

STOPPING: Final = "/(freezes|signals|revocations|rotate|suspend|retire)$"
"""Paths after which there is little life left to go along."""

CONFIG: Final[dict[str, Any]] = {
    "generation": {
        "with-security-parameters": False,  # each call has one caller's token, or none
        "deterministic": bool(os.environ.get("CI")),
    },
    "phases": {"coverage": {"generate-duplicate-query-parameters": True}},
    "checks": {
        # A revoked grant is still there to be looked at, and says that it is dead.
        "use_after_free": {"enabled": False},
        # 422 is an Idempotency-Key that came before, with another request.
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "401", "403", "404", "409", "422", "429"]
        },
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "405", "409", "422", "429"]
        },
    },
    "operations": [
        {
            "include-path-regex": BEYOND_WORDS,
            "checks": {"positive_data_acceptance": {"enabled": False}},
        },
        {
            # Here the document allows one backend alone (sharpened.py); the broker, none or any.
            "include-path-regex": "/reconciliations$",
            "checks": {"negative_data_rejection": {"enabled": False}},
        },
        {
            # Another decision of the task than its own is not found, though the task is there.
            "include-path-regex": "/executions$",
            "checks": {"ensure_resource_availability": {"enabled": False}},
        },
    ],
}
OPERATIONS: Final = sorted(
    f"{method.upper()} {path}"
    for path, methods in json.loads((DOCS / "openapi.json").read_text("utf-8"))["paths"].items()
    for method in methods
)
"""What there is. The cases are made when they are run: each worker of pytest collects all tests."""
SLOW: Final = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.function_scoped_fixture,
)
QUICK: Final = settings(deadline=None, database=None, suppress_health_check=SLOW, max_examples=10)


@functools.cache
def document() -> dict[str, Any]:
    return sharpened(routed("http://127.0.0.1:8700").openapi())


def read(*more: dict[str, Any]) -> Any:
    """Read the document, with more to say about operations."""
    config = CONFIG | {"operations": [*CONFIG["operations"], *more]}
    return schemathesis.openapi.from_dict(
        document(),
        config=SchemathesisConfig.from_dict(config),  # pyright: ignore[reportUnknownMemberType]
    )


@pytest.fixture(scope="module")
def schema() -> Any:
    """Return the document as schemathesis has it, which leaves most of its own types open."""
    return read()


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest) -> Any:
    """One operation of it."""
    request.node._nodeid = request.node.nodeid  # noqa: SLF001  it looks there, where older pytests had it
    return read({"exclude-name": request.param, "enabled": False})


ONE: Final[Any] = schemathesis.pytest.from_fixture("operation")


@pytest.fixture(scope="module")
def running(
    engines: tuple[DevStack, Config], tmp_path_factory: pytest.TempPathFactory
) -> Generator[Served]:
    state_dir = str(tmp_path_factory.mktemp("served"))  # its keys rotate
    served = Served(
        lambda: party_world(
            engines[0],
            shared=("orders-api",),
            broker={"state_dir": state_dir},
            oauth={"rate": 1_000_000},
        )
    )
    served.task()
    assert served.world.app.audit is not None
    served.run(served.world.app.audit.stop())  # from here on there is a checkpoint to be had
    yield served
    served.close()


@pytest.fixture
def served(running: Served) -> Served:
    running.clean()
    return running


@pytest.fixture(scope="module")
def answered() -> Counter[tuple[str, int]]:
    """How often each operation was answered with which status."""
    return Counter()


def entitled(case: Case[Any]) -> str:
    if case.operation.label == "DELETE /v1/approvals/{approval_id}":
        return "orchestrator"  # who asked takes it back
    return next(name for start, name in ENTITLED if case.operation.path.startswith(start))


def as_caller(served: Served, name: str) -> dict[str, Any]:
    headers: dict[str, str] = {}
    if name:
        task_id = served.task() if name == "report-writer" else None
        headers["Authorization"] = f"Bearer {served.token(name, task_id)}"
    return {"base_url": served.url, "session": served.session, "headers": headers}


def check(served: Served, answered: Counter[tuple[str, int]], case: Case[Any], name: str) -> None:
    arguments = as_caller(served, name)
    aim(served, case)
    answer = case.call(**arguments)
    answered[case.operation.label, answer.status_code] += 1
    done = answer.status_code < 300 or case.method == "DELETE"  # what it undoes was done first
    if case.operation.path.endswith(UPSETTING) and done:
        served.clean()
    case.validate_response(  # pyright: ignore[reportUnknownMemberType]
        answer, transport_kwargs=arguments
    )


@ONE.parametrize()
@QUICK
def test_whoever_may_call(
    case: Case[Any], served: Served, answered: Counter[tuple[str, int]]
) -> None:
    check(served, answered, case, entitled(case))


@ONE.parametrize()
@ONE.given(name=st.sampled_from(CALLERS))
@QUICK
def test_anybody(
    case: Case[Any], served: Served, answered: Counter[tuple[str, int]], name: str
) -> None:
    check(served, answered, case, name)


def test_along_the_links(schema: Any, served: Served, answered: Counter[tuple[str, int]]) -> None:
    class Life(schema.exclude(path_regex=STOPPING).as_state_machine()):
        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            return as_caller(served, entitled(case))

        def after_call(self, response: Response, case: Case[Any]) -> None:
            super().after_call(response, case)  # pyright: ignore[reportUnknownMemberType]
            answered[f"link to {case.operation.label}", response.status_code] += 1

    Life.run(settings=settings(QUICK, max_examples=20, stateful_step_count=8))


def test_every_operation_was_done_and_refused(
    schema: Any, answered: Counter[tuple[str, int]]
) -> None:
    """So that the tests above don't pass because everything was turned away at the door."""
    operations = {result.ok().label for result in schema.get_all_operations()}
    assert operations == set(OPERATIONS)
    done = {label for label, status in answered if 200 <= status < 300}
    if not operations <= {label for label, _ in answered}:
        pytest.skip("not all of the tests above were run")
    assert operations - BY_A_BOUND_TOKEN - AFTER_MORE <= done
