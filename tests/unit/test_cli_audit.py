"""``broker audit`` on the log's files, and its client commands against a server of their shapes."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cloudevents.core.formats.json import JSONFormat

from broker.audit.fingerprint import Fingerprints
from broker.audit.log import LogWriter
from broker.audit.note import log_origin
from broker.audit.record import cloud_event
from broker.audit.signing_key import load_signer
from broker.clock import SystemClock
from broker.events import Event
from tests.audit_bench import segments
from tests.unit.fake_broker import EVENT, FakeBroker
from tests.unit.test_audit_ocsf import assert_valid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli_runner import Run

ISSUER = "https://broker.example.com"
BEGIN = 1_800_000_000_000
TASK = "tsk_03" + "0" * 24
GRANT = "grt_03" + "0" * 24
LIFE: list[tuple[str, dict[str, Any]]] = [
    (
        "decision",
        {"id": "dec_1", "action": "open_task", "effect": "allow", "capability": "orders-read"},
    ),
    ("task.opened", {"agent": "report-writer", "purpose": "the \x1b[2J report", "owner": "o"}),
    ("grant.activated", {"capability": "orders-read", "agent": "report-writer"}),
    ("grant.revoked", {"evidence": "gone", "time_to_dead_ms": 12, "attempts": 0}),
    ("task.ended", {"state": "completed", "reason": "completed"}),
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a broker that has written a log: one task's life, and another event."""
    file = tmp_path / "config.toml"
    file.write_text(f'[broker]\nissuer = "{ISSUER}"\n[redis]\nurl = "redis://127.0.0.1:1"\n')
    state = tmp_path / ".broker"
    signer = load_signer(state / "audit-signing.key", log_origin(ISSUER))
    events = [
        Event(f"{BEGIN + n}-03-0", BEGIN + n, kind, TASK, GRANT, "report-writer", data, chain=TASK)
        for n, (kind, data) in enumerate(LIFE)
    ]
    other = Event(f"{BEGIN + 60_000}-05-0", BEGIN + 60_000, "freeze.set", "", "", "op", {})
    with LogWriter.open(state / "audit", signer=signer, clock=SystemClock()) as writer:
        writer.append([cloud_event(event, source=ISSUER) for event in [*events, other]], {})
        writer.checkpoint()
    return file


@pytest.fixture
def log(config: Path) -> Path:
    return config.parent / ".broker" / "audit"


@pytest.fixture
def key(run: Run, config: Path) -> str:
    ran = run("audit", "key", "--config", str(config))
    assert ran.code == 0
    return ran.out.strip()


# ── verify ───────────────────────────────────────────────────────────────────────────────────────


def test_a_log_that_is_whole_verifies(run: Run, config: Path, log: Path, key: str) -> None:
    ran = run("audit", "verify", "--config", str(config))
    assert ran.code == 0
    assert "nothing was changed: 6 records, 6 here, 6 signed" in ran.out

    by_key = run("audit", "verify", str(log), "--key", key, "--json")
    assert by_key.code == 0
    assert by_key.json["ok"]
    assert by_key.json["records"] == 6

    (log.parent / "log.key").write_text(key + "\n")
    assert run("audit", "verify", str(log), "--key", str(log.parent / "log.key")).code == 0


def test_a_changed_record_is_found_and_its_place_said(run: Run, config: Path, log: Path) -> None:
    [path] = segments(log)
    path.write_bytes(path.read_bytes().replace(b'"attempts":0', b'"attempts":1'))

    ran = run("audit", "verify", "--config", str(config))

    assert ran.code == 1
    assert f"changed    {path.name}, line" in ran.out
    assert "record 3" in ran.out
    assert "NOT what was written" in ran.out
    again = run("audit", "verify", "--config", str(config), "--json")
    assert again.code == 1
    assert not again.json["ok"]


def test_a_log_that_was_cut_is_found_by_a_checkpoint_kept_elsewhere(
    run: Run, config: Path, log: Path, tmp_path: Path
) -> None:
    ran = run("audit", "checkpoint", "--config", str(config))
    assert ran.code == 0
    kept = tmp_path / "kept"
    kept.write_text(ran.out)
    [path] = segments(log)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    for file in (log / "checkpoints").iterdir():
        file.unlink()

    found = run("audit", "verify", "--config", str(config), "--known", str(kept))

    assert found.code == 1
    assert "truncated" in found.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("audit", "verify"), 2, "Signed by whom"),
        (("audit", "verify", "--key", "nonsense"), 2, "--key nonsense"),
        (("audit", "verify", "--key", "a+b+c"), 2, "--key a+b+c"),
        (("audit", "export"), 2, "Which log"),
        (("audit", "export", "nowhere"), 1, "no log in nowhere"),
        (("audit", "export", "LOG", "--after", "soon"), 2, "neither an event's id nor a time"),
        (("audit", "export", "LOG", "--format", "xml"), 2, "xml"),
        (("audit", "prove", "1-00-1", "--config", "CONFIG"), 1, "no event '1-00-1'"),
        (("audit", "check", "CONFIG", "--config", "CONFIG"), 2, "not JSON"),
        (("audit", "verify", "--ledger", "--config", "CONFIG"), 3, "doesn't answer"),
        (("audit", "checkpoint", "nowhere"), 1, "no checkpoint"),
        (("audit", "show", TASK, "--log", "nowhere"), 1, "Nothing is known"),
        (("audit", "verify", "--config", "CONFIG", "--known", "nowhere"), 2, "can't be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cant_be_done_is_said(
    run: Run, config: Path, log: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    named = {"LOG": str(log), "CONFIG": str(config)}

    ran = run(*(named.get(word, word) for word in arguments))

    assert ran.code == code, ran.err
    assert said in ran.err
    assert ran.out == ""


def test_verifying_makes_no_key(run: Run, config: Path) -> None:
    key = config.parent / ".broker" / "audit-signing.key"
    key.unlink()

    ran = run("audit", "verify", "--config", str(config))

    assert ran.code == 1
    assert "There is no key" in ran.err
    assert not key.exists()


def test_a_log_without_records_is_none(run: Run, key: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert run("audit", "verify", str(tmp_path / "empty"), "--key", key).code == 1


# ── export ───────────────────────────────────────────────────────────────────────────────────────


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_export_writes_cloudevents(run: Run, config: Path) -> None:
    ran = run("audit", "export", "--config", str(config))

    assert ran.code == 0
    read = [JSONFormat().read(None, line) for line in ran.out.splitlines()]
    assert next(event.get_type() for event in read) == "broker.decision"
    assert {event.get_source() for event in read} == {ISSUER}
    assert len(read) == 6


def test_export_writes_ocsf(run: Run, log: Path) -> None:
    ran = run("audit", "export", str(log), "--format", "ocsf")

    assert ran.code == 0
    events = lines(ran.out)
    for event in events:
        assert_valid(event, event["metadata"]["version"])
    assert {event["class_uid"] for event in events} == {3003, 3004, 6003}


@pytest.mark.parametrize(
    ("bounds", "count"),
    [
        (("--after", f"{BEGIN + 1}-03-0"), 4),
        (("--until", f"{BEGIN + 1}-03-0"), 2),
        (("--after", "2027-01-15T08:00:30Z"), 1),
        (("--until", "2027-01-15T08:00:30"), 5),
        (("--after", "2027-01-15", "--until", "2027-01-16"), 6),
        (("--after", "2027-01-16"), 0),
    ],
    ids=str,
)
def test_export_can_be_bounded(run: Run, log: Path, bounds: tuple[str, ...], count: int) -> None:
    ran = run("audit", "export", str(log), *bounds)

    assert ran.code == 0
    assert len(lines(ran.out)) == count


# ── proofs ───────────────────────────────────────────────────────────────────────────────────────


def test_an_event_is_proved_to_be_in_the_log(
    run: Run, config: Path, key: str, tmp_path: Path
) -> None:
    proof = tmp_path / "proof.json"
    ran = run("audit", "prove", f"{BEGIN + 2}-03-0", "--config", str(config))
    assert ran.code == 0
    proof.write_text(ran.out)

    checked = run("audit", "check", str(proof), "--key", key)
    assert checked.code == 0
    assert "record 2 is in the log: broker.grant.activated" in checked.out
    assert run("audit", "check", str(proof), "--key", key, "--json").json["valid"]

    proof.write_text(ran.out.replace("orders-read", "orders-all!"))
    assert run("audit", "check", str(proof), "--key", key).code == 1
    tlog = run("audit", "prove", f"{BEGIN + 2}-03-0", "--config", str(config), "--tlog")
    assert tlog.out.startswith("c2sp.org/tlog-proof@v1\n")


def test_a_log_is_proved_to_have_only_grown(
    run: Run, config: Path, log: Path, key: str, tmp_path: Path
) -> None:
    old, proof = tmp_path / "old", tmp_path / "proof.json"
    old.write_text(run("audit", "checkpoint", str(log)).out)
    signer = load_signer(config.parent / ".broker" / "audit-signing.key", log_origin(ISSUER))
    head = log_head(config, log)
    with LogWriter.open(log, signer=signer, clock=SystemClock(), head=head) as writer:
        event = Event(f"{BEGIN + 9}-01-0", BEGIN + 9, "test", "", "", "", {})
        writer.append([cloud_event(event, source=ISSUER)], {})
        writer.checkpoint()

    proof.write_text(run("audit", "grown", str(old), "--config", str(config)).out)

    ran = run("audit", "check", str(proof), "--key", key)
    assert ran.code == 0
    assert "the log of 6 records has only grown, to 7" in ran.out


def log_head(config: Path, log: Path) -> Any:
    """How far the log goes, as a ledger would remember it."""
    from broker.audit.errors import LedgerBehindLog  # noqa: PLC0415  for this one answer

    signer = load_signer(config.parent / ".broker" / "audit-signing.key", log_origin(ISSUER))
    with pytest.raises(LedgerBehindLog) as behind:
        LogWriter.open(log, signer=signer, clock=SystemClock())
    return behind.value.head


# ── stories and fingerprints ─────────────────────────────────────────────────────────────────────


def test_a_story_is_told_from_the_files(run: Run, log: Path) -> None:
    ran = run("audit", "show", TASK, "--log", str(log))

    assert ran.code == 0
    assert f"task     {TASK}" in ran.out
    assert "agent    report-writer" in ran.out
    assert "nothing of it is live" in ran.out
    assert "\x1b" not in ran.out
    stages = [line.split()[1] for line in ran.out.splitlines() if line.startswith("2027-")]
    assert stages[:2] == ["intent", "decision"]
    assert run("audit", "show", TASK, "--log", str(log), "--json").json["agent"] == "report-writer"


def test_a_story_is_told_from_the_api(fake: FakeBroker, run: Run) -> None:
    row = {**EVENT, "task_id": TASK, "type": "task.opened", "data": {"agent": "a", "purpose": "p"}}
    fake.on("GET /v1/audit/events", 200, {"items": [row], "next": None})

    ran = run("audit", "show", TASK)

    assert ran.code == 0
    assert fake.last.query["task_id"] == TASK
    assert "purpose  p" in ran.out


def test_tail_begins_a_while_ago_and_goes_on_to_the_end(fake: FakeBroker, run: Run) -> None:
    first = {**EVENT, "id": "1-00-1"}
    fake.on("GET /v1/audit/events", 200, {"items": [first], "next": "1-00-1"})
    fake.on("GET /v1/audit/events", 200, {"items": [{**EVENT, "id": "2-00-1"}], "next": None})

    ran = run("audit", "tail", "--since", "1h", "--json")

    assert ran.code == 0
    assert [row["id"] for row in lines(ran.out)] == ["1-00-1", "2-00-1"]
    begin, then = (request.query["after"] for request in fake.seen)
    assert begin.endswith("-00-0")
    assert abs(int(begin.split("-")[0]) / 1000 + 3600 - SystemClock().now()) < 60
    assert then == "1-00-1"
    assert run("audit", "tail").code == 0
    assert run("audit", "tail", "--since", "soon").code == 2


def test_a_fingerprint_is_made_of_what_is_read(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config.parent / ".broker" / "fingerprint.key"
    assert run("audit", "fingerprint", "--config", str(config)).code == 1
    assert not path.exists()
    prints = Fingerprints.load_or_create(path)

    for given in (b"hunter2", b"hunter2\n", b"hunter2\r\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        ran = run("audit", "fingerprint", "--config", str(config))
        assert ran.out.strip() == prints.of("hunter2")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n\n")))
    ran = run("audit", "fingerprint", "--config", str(config), "--json")
    assert ran.json == {"fingerprint": prints.of(b"\xff\n")}
