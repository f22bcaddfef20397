"""``broker grant receipt``, ``retry`` and ``abandon``: what is asked, shown and refused."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.keys import KeyRing
from broker.receipts import TYPE
from tests.unit.fake_broker import GRANT, problem

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli_runner import Run
    from tests.unit.fake_broker import FakeBroker

GRANT_ID = GRANT["grant_id"]
STUCK: Final[dict[str, Any]] = {
    **GRANT,
    "state": "stuck",
    "ended_at": None,
    "time_to_dead_ms": None,
    "attempts": 6,
    "error": "no database",
    "next_attempt_at": "2026-01-02T03:06:00.000Z",
}
OTHER: Final = {**STUCK, "grant_id": "grt_00cccccccccccccccccccccccc", "backend": "token"}
CLAIMS: Final[dict[str, Any]] = {
    "iss": "https://issuer.example",
    "grant_id": GRANT_ID,
    "confirmed": False,
    "statement": "operator: it is scrapped",
    "evidence": None,
}


class Signed:
    """A receipt, and the broker's keys."""

    def __init__(self) -> None:
        ring = KeyRing([ec.generate_private_key(ec.SECP256R1())])
        self.keys = ring.jwks()
        self.receipt = ring.sign({"typ": TYPE}, CLAIMS)


@pytest.fixture
def signed(fake: FakeBroker) -> Signed:
    made = Signed()
    fake.on("GET /.well-known/jwks.json", 200, made.keys)
    answer = {"receipt": made.receipt, "claims": CLAIMS}
    fake.on(f"GET /v1/grants/{GRANT_ID}/receipt", 200, answer)
    return made


def test_a_receipt_is_shown_or_kept(signed: Signed, run: Run) -> None:
    shown = run("grant", "receipt", GRANT_ID).out
    assert "confirmed  no" in shown
    assert "operator: it is scrapped" in shown
    assert run("grant", "receipt", GRANT_ID, "--json").json == {
        "receipt": signed.receipt,
        "claims": CLAIMS,
    }


def test_a_receipt_is_verified_by_the_brokers_keys_or_by_kept_ones(
    signed: Signed, run: Run, fake: FakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, keys = tmp_path / "receipt.json", tmp_path / "keys.json"
    kept.write_text(run("grant", "receipt", GRANT_ID, "--json").out)
    assert "genuine" in run("grant", "receipt", GRANT_ID, "--verify", str(kept)).out
    keys.write_text(json.dumps(signed.keys))
    fake.seen.clear()
    monkeypatch.setattr("sys.stdin", io.StringIO(signed.receipt + "\n"))
    by_kept = ("--verify", "-", "--jwks", str(keys), "--json")
    ran = run("grant", "receipt", GRANT_ID, *by_kept)
    assert ran.err == ""
    assert ran.json == {"verified": True, "claims": CLAIMS}
    assert not fake.seen, "kept keys need no broker"


def test_what_is_not_a_good_receipt_of_this_grant_is_not_verified(
    signed: Signed, run: Run, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(Signed().keys))
    for content, options, said in (
        (signed.receipt, ("--jwks", str(keys)), "kept since it was signed"),
        (signed.receipt[:-8] + "AAAAAAAA", (), "doesn't fit"),
        ("nonsense", (), "not good"),
        ("{}", (), "no receipt"),
    ):
        kept = tmp_path / "receipt"
        kept.write_text(content)
        ran = run("grant", "receipt", GRANT_ID, "--verify", str(kept), *options)
        assert (ran.code, ran.out) == (1, ""), content
        assert said in ran.err
    kept.write_text(signed.receipt)
    assert "it is of" in run("grant", "receipt", "grt_other", "--verify", str(kept)).err
    assert run("grant", "receipt", GRANT_ID, "--verify", "/nowhere").code == 1
    assert run("grant", "receipt", GRANT_ID, "--jwks", str(keys)).code == 2


def test_there_is_no_receipt_yet(fake: FakeBroker, run: Run) -> None:
    answer = problem(409, "not_dead_yet", "The grant is stuck.", state="stuck")
    fake.answers[f"GET /v1/grants/{GRANT_ID}/receipt"].append(answer)
    ran = run("grant", "receipt", GRANT_ID, "--json")
    assert (ran.code, json.loads(ran.err)["error"]["code"]) == (1, "not_dead_yet")


def test_one_grant_is_retried(fake: FakeBroker, run: Run) -> None:
    fake.on(f"POST /v1/grants/{GRANT_ID}/retry", 200, STUCK)
    ran = run("grant", "retry", GRANT_ID, "--reason", "it is back")
    assert (ran.code, ran.out) == (0, f"{GRANT_ID}: stuck, to be tried again now\n")
    assert fake.last.json == {"reason": "it is back"}


def test_all_that_is_stuck_is_retried_but_for_what_died_meanwhile(
    fake: FakeBroker, run: Run
) -> None:
    fake.on("GET /v1/grants", 200, {"items": [STUCK, OTHER], "next": None})
    fake.on(f"POST /v1/grants/{GRANT_ID}/retry", 200, STUCK)
    fake.answers[f"POST /v1/grants/{OTHER['grant_id']}/retry"].append(
        problem(409, "conflict", "It is revoked.")
    )
    tried = run("grant", "retry", "--all-stuck", "--json").json["retried"]
    assert [grant["grant_id"] for grant in tried] == [GRANT_ID]
    fake.seen.clear()
    assert run("grant", "retry", "--all-stuck", "--backend", "vault").code == 0
    assert [seen.path for seen in fake.seen] == ["/v1/grants", f"/v1/grants/{GRANT_ID}/retry"]
    assert fake.seen[0].query["state"] == "stuck"


@pytest.mark.parametrize(
    "arguments",
    [(), (GRANT_ID, "--all-stuck"), (GRANT_ID, "--backend", "vault"), ("--backend", "vault")],
    ids=["neither", "both", "a backend's grant", "a backend"],
)
def test_what_to_retry_is_said_once(fake: FakeBroker, run: Run, arguments: tuple[str, ...]) -> None:
    assert run("grant", "retry", *arguments).code == 2
    assert not fake.seen


def test_a_grant_is_given_up_with_a_reason_and_not_without(fake: FakeBroker, run: Run) -> None:
    given_up = {**STUCK, "state": "abandoned", "statement": "operator: scrapped"}
    fake.on(f"POST /v1/grants/{GRANT_ID}/abandon", 200, given_up)
    assert run("grant", "abandon", GRANT_ID).code == 2
    ran = run("grant", "abandon", GRANT_ID, "--reason", "scrapped")
    assert ran.out == f"{GRANT_ID}: abandoned, and never confirmed dead\n"
    assert fake.last.json == {"reason": "scrapped"}


def test_the_stuck_are_listed_with_since_when_how_often_and_why(
    fake: FakeBroker, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    fake.on("GET /v1/grants", 200, {"items": [STUCK], "next": None})
    shown = run("grant", "list", "--state", "stuck").out
    for word in (GRANT_ID, "asked", " ago", " 6 ", "no database"):
        assert word in shown
    assert "no database" not in run("grant", "list").out


def test_revoking_what_was_given_up_is_not_called_a_success(fake: FakeBroker, run: Run) -> None:
    fake.on(f"DELETE /v1/grants/{GRANT_ID}", 200, {**STUCK, "state": "abandoned"})
    ran = run("grant", "revoke", GRANT_ID)
    assert ran.out == f"{GRANT_ID}: abandoned\n"
    assert "never confirmed dead" in ran.err
