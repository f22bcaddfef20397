"""``broker grant``: wrapped, opened, renewed, rotated."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.cli import failures
from tests.unit.fake_broker import DSN, GRANT, ISSUED, PASSWORD, problem

if TYPE_CHECKING:
    from tests.unit.cli_runner import Run
    from tests.unit.fake_broker import FakeBroker

GRANT_ID: Final = GRANT["grant_id"]
TOKEN: Final = "hvs.canary-token"
WRAPPED: Final[dict[str, Any]] = {
    **ISSUED,
    "credential": {"type": "wrapped", "token": TOKEN, "creation_path": "sys/wrapping/wrap"},
}
REQUEST: Final = ("grant", "request", "tsk_1", "orders-read")
UNWRAP: Final = ("grant", "unwrap", GRANT_ID)


def test_a_wrapped_credential_is_asked_for_and_says_who_opens_it(
    fake: FakeBroker, run: Run
) -> None:
    fake.on("POST /v1/tasks/tsk_1/grants", 201, WRAPPED)

    ran = run(*REQUEST, "--wrapped", "--wrap-ttl", "2m")

    assert fake.last.json == {
        "capability": "orders-read",
        "delivery": "wrapped",
        "wrap_ttl": "2m",
    }
    assert TOKEN in ran.out
    assert f"broker grant unwrap {GRANT_ID} --token-stdin" in ran.err
    assert run(*REQUEST, "--wrapped", "--field", "token") == (0, f"{TOKEN}\n", "")
    assert run(*REQUEST, "--wrap-ttl", "2m").code == 2


def test_it_is_opened_with_a_token_from_input_and_printed_in_one_way(
    fake: FakeBroker, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.on(f"POST /v1/grants/{GRANT_ID}/unwrap", 200, ISSUED)

    def opened(*how: str) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{TOKEN}\n"))
        return run(*UNWRAP, "--token-stdin", "--as-task", "tsk_1", *how)

    assert opened("--field", "dsn") == (0, f"{DSN}\n", "")
    assert fake.last.json == {"token": TOKEN}
    assert "tsk_1" in fake.exchanges[-1].form["authorization_details"][0]
    assert opened("--json").json["credential"] == ISSUED["credential"]
    assert "export BROKER_CREDENTIAL_USERNAME=v-orders" in opened("--env").out
    ran = opened()
    assert (PASSWORD in ran.out, TOKEN in ran.out + ran.err) == (True, False)
    seen = len(fake.seen)
    assert opened("--env", "--json").code == 2
    assert len(fake.seen) == seen


@pytest.mark.parametrize("how", [(), ("--token-stdin",)])
def test_without_a_token_nothing_is_sent(
    fake: FakeBroker, run: Run, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    ran = run(*UNWRAP, *how)

    assert ran.code == 2
    assert "standard input" in ran.err
    assert not fake.seen


def test_an_interception_is_said_and_fails(
    fake: FakeBroker, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers[f"POST /v1/grants/{GRANT_ID}/unwrap"].append(
        problem(409, "wrapping_intercepted", "Somebody else has opened this credential.")
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(TOKEN))

    ran = run(*UNWRAP, "--token-stdin")

    assert (ran.code, ran.out) == (1, "")
    assert "Somebody else has opened" in ran.err
    assert TOKEN not in ran.err


def test_a_renewal_says_until_when_and_what_was_shortened(fake: FakeBroker, run: Run) -> None:
    answer = {**GRANT, "state": "active", "notes": ["ttl shortened to 9m: the longest"]}
    fake.on(f"POST /v1/grants/{GRANT_ID}/renew", 200, answer)

    ran = run("grant", "renew", GRANT_ID, "--ttl", "10m")

    assert fake.last.json == {"ttl": "10m"}
    assert f"{GRANT_ID}: lives until 2026-01-02" in ran.out
    assert "ttl shortened to 9m" in ran.err
    assert run("grant", "renew", GRANT_ID, "--json").json["notes"] == answer["notes"]


def test_a_rotation_prints_the_new_credential(fake: FakeBroker, run: Run) -> None:
    fake.on(f"POST /v1/grants/{GRANT_ID}/rotate", 201, {**ISSUED, "replaces": GRANT_ID})

    assert run("grant", "rotate", GRANT_ID, "--overlap", "1m", "--field", "dsn").out == f"{DSN}\n"

    assert fake.last.json == {"overlap": "1m"}
    run("grant", "rotate", GRANT_ID, "--wrapped")
    assert fake.last.json == {"delivery": "wrapped"}
    assert run("grant", "rotate", GRANT_ID, "--json").json["replaces"] == GRANT_ID


@pytest.mark.parametrize("what", ["renew", "rotate"])
def test_that_approval_is_needed_is_its_own_exit_code(
    fake: FakeBroker, run: Run, what: str
) -> None:
    fake.on(f"POST /v1/grants/{GRANT_ID}/{what}", 202, {"approval_id": "apr_1", "state": "pending"})

    ran = run("grant", what, GRANT_ID)

    assert ran.code == failures.PENDING
    assert "apr_1" in ran.err
