"""``broker policy``: on files alone, and against a real HTTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cedarpy
import pytest

from broker.client import Client, Secret
from tests.unit.fake_broker import JWT, FakeBroker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli_runner import Run

CONFIG: Final = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"

[vault]
address = "https://vault.example.com:8200"
auth = "approle"
role_id_file = "not-here"
secret_id_file = "nor-this"

[policy]
dir = "policies"

[[policy.observe]]
name = "next"
dir = "next"

[[identity.issuers]]
name = "ci"
issuer = "https://issuer.example"
audience = "broker"
jwks_url = "https://issuer.example/jwks"

[[principals]]
name = "writer"
role = "agent"
owner = "docs@example.com"
identity = { issuer = "ci", subject = "1" }
capabilities = ["send", "deploy"]

[[principals]]
name = "reader"
role = "agent"
owner = "docs@example.com"
identity = { issuer = "ci", subject = "2" }

[[capabilities]]
name = "deploy"
power = "privileged"
backend = "vault"
path = "database/creds/deploy"

[[capabilities]]
name = "send"
power = "operate"
backend = "tool"
arguments = { to = "string" }
"""
OURS: Final = """\
@id("only-to-us")
@advice("Send to addresses of ours.")
forbid (principal, action == Action::"call:send", resource)
unless { context.arguments.to like "*@example.com" };
"""
CASES: Final = """\
[[cases]]
rule = "destination-known"
name = "mail goes to us"
tool = "send"
agent = "writer"
arguments = { to = "a@example.com" }
expect = "allow"

[[cases]]
rule = "destination-known"
name = "and to nobody else"
tool = "send"
agent = "writer"
arguments = { to = "a@elsewhere.example" }
expect = "deny"
decided_by = ["only-to-us"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a folder of policies, one that is tried out, and no secret files."""
    for name in ("policies", "next"):
        (tmp_path / name).mkdir()
    (tmp_path / "policies" / "own.cedar").write_text(OURS)
    (tmp_path / "policies" / "own.cases.toml").write_text(CASES)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path / "config.toml"


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def test_check_says_that_policies_are_fine(run: Run, config: Path) -> None:
    ran = run("policy", "check", "--config", str(config))

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "5 files: 0 errors, 0 warnings\n"
    assert run("policy", "check", "--config", str(config), "--json").json == {"findings": []}


def test_check_names_what_is_doubtful_and_fails_if_that_is_wanted(run: Run, config: Path) -> None:
    wide = '@id("wide") permit (principal, action == Action::"approve", resource);\n'
    (config.parent / "next" / "n.cedar").write_text(wide)

    ran = run("policy", "check", "-c", str(config))
    assert ran.code == 0
    assert "n.cedar: wide: warning: lets anybody approve [too-wide]\n    say who may: " in ran.out
    assert "6 files: 0 errors, " in ran.out

    assert run("policy", "check", "-c", str(config), "--strict").code == 1
    found = run("policy", "check", "-c", str(config), "--json").json["findings"]
    assert {row["file"] for row in found} == {"n.cedar", "default/people.cedar"}


def test_check_fails_on_what_cant_be_used(run: Run, config: Path) -> None:
    own = config.parent / "policies"
    (own / "bad.cedar").write_text("permit (principal, action, resource) when { context.x };")

    ran = run("policy", "check", str(own), "--json")
    assert ran.code == 1
    assert {row["file"] for row in ran.json["findings"]} == {"bad.cedar", "own.cedar"}, (
        "without a configuration there is no tool called send"
    )
    assert run("policy", "check", "-c", str(config)).code == 1


def test_the_cases_of_the_package_and_of_the_folder_are_run(run: Run, config: Path) -> None:
    ran = run("policy", "test", "--config", str(config))

    assert (ran.code, ran.err) == (0, "")
    count = int(ran.out.split(" ")[0])
    assert ran.out == f"{count} cases, 0 failed\n"
    cases = run("policy", "test", "--config", str(config), "--json").json["cases"]
    assert len(cases) == count
    assert [row["name"] for row in cases if row["file"] == "own.cases.toml"] == [
        "mail goes to us",
        "and to nobody else",
    ]


def test_a_case_that_fails_is_shown(run: Run, config: Path) -> None:
    own = config.parent / "policies"
    (own / "own.cases.toml").write_text(CASES.replace('"allow"', '"needs_approval"'))
    (own / "more.cedar").write_text(
        '@id("late") forbid (principal, action == Action::"operate", resource) '
        "when { context.time.hour == 3 };"
    )

    ran = run("policy", "test", "--config", str(config))
    assert ran.code == 1
    assert "mail goes to us" in ran.out
    assert "effect: needs_approval, but it is allow" in ran.out
    assert ran.out.endswith(" cases, 1 failed\n")
    assert ran.err == "No case shows: late\n"


def test_a_folder_alone_will_do(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    assert run("policy", "check", str(folder)).out == "4 files: 0 errors, 0 warnings\n"
    assert run("policy", "test", str(folder)).code == 0


@pytest.mark.parametrize("command", ["check", "test"])
def test_what_to_look_at_is_named_once(run: Run, config: Path, command: str) -> None:
    assert run("policy", command).code == 2
    assert run("policy", command, str(config.parent), "--config", str(config)).code == 2
    missing = run("policy", command, str(config.parent / "nowhere"))
    assert missing.code == 1
    assert "can't be read" in missing.err


def test_schema_prints_what_cedar_reads(run: Run, config: Path) -> None:
    plain, with_tools = run("policy", "schema").out, run("policy", "schema", "-c", str(config)).out

    for text in (plain, with_tools):
        assert cedarpy.Schema.from_str(text)
    assert '"call:send"' in with_tools
    assert '"call:send"' not in plain


def test_who_can_by_a_configuration(run: Run, config: Path) -> None:
    ran = run("policy", "who-can", "send", "--config", str(config), "--json")

    assert ran.json["capability"] == "send"
    writer, reader = ran.json["items"]
    assert (writer["agent"], writer["effect"]) == ("writer", "allow")
    assert writer["depends_on_arguments"] == ["only-to-us"]
    assert (reader["agent"], reader["reasons"]) == ("reader", ["capability_not_allowed"])

    shown = run("policy", "who-can", "deploy", "--config", str(config)).out
    assert "privileged-by-approval" in shown
    assert "1 approval, at most 10m, telling security, revocable at once" in shown
    unknown = run("policy", "who-can", "nothing", "--config", str(config))
    assert unknown.code == 1
    assert "there are: deploy, send" in unknown.err


# ── a running broker ─────────────────────────────────────────────────────────────────────────────

ADVICE: Final = "A human has to approve exactly this request."
POLICY: Final[dict[str, Any]] = {
    "policy": "privileged-by-approval",
    "file": "default/power.cedar",
    "effect": "permit",
    "advice": ADVICE,
    "obligations": {"approvals": 2, "max_ttl_ms": 90_000, "notify": ["a"], "require_binding": True},
}
FORBID: Final[dict[str, Any]] = {
    **POLICY,
    "policy": "no",
    "effect": "forbid",
    "advice": None,
    "obligations": {},
}
SHOWN: Final[dict[str, Any]] = {
    "digest": "0123456789abcdef",
    "problem": "own.cedar: unexpected token\x1b[2J",
    "remote": "besides",
    "policies": [POLICY],
    "observed": [{"set": "next", "policies": [FORBID]}],
}
WHO: Final[dict[str, Any]] = {
    "agent": "writer",
    "owner": "docs@example.com",
    "effect": "needs_approval",
    "reasons": ["approval_required"],
    "policies": ["privileged-by-approval"],
    "obligations": {"approvals": 1},
    "depends_on_arguments": [],
    "new_in_a_later_version": 7,
}
EXPLAINED: Final[dict[str, Any]] = {
    "decision_id": "dec_1",
    "time": "2026-01-02T03:04:05.678Z",
    "task_id": "tsk_1",
    "principal": "writer",
    "said": {"effect": "needs_approval", "reasons": "approval_required"},
    "question": {"action": "issue_grant", "resource": {"type": "Capability", "id": "deploy"}},
    "explanation": {
        "effect": "needs_approval",
        "reasons": ["approval_required"],
        "decided_by": [POLICY, FORBID],
        "near": [
            {"policy": "a", "file": "a.cedar", "missing": ["context.risk < 3"]},
            {"policy": "b", "file": "b.cedar", "missing": []},
        ],
        "would_change_it": [
            {"change": "one_approval", "text": "with the approval of one human", "effect": "allow"}
        ],
        "left_out": ["c"],
        "notes": ["not in force any more: d"],
    },
}


def test_show(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/policy", 200, SHOWN)

    ran = run("policy", "show")
    assert ran.code == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[1][:3] == ["privileged-by-approval", "permit", "default/power.cedar"]
    assert "2 approvals, at most 1m30s, telling a, a bound token" in ran.out
    assert rows[2][0] == "no"
    assert rows[2][-1] == "next"
    assert "digest 0123456789abcdef" in ran.err
    assert "asked besides these" in ran.err
    assert "unexpected token\\x1b[2J" in ran.err
    assert run("policy", "show", "--json").json == SHOWN


def test_reload(fake: FakeBroker, run: Run) -> None:
    done = {"changed": True, "digest": "d", "grants": {"revoked": 2, "revoking": 1}}
    fake.on("POST /v1/policy/reload", 200, done)
    fake.on("POST /v1/policy/reload", 200, {**done, "changed": False, "grants": {}})

    assert run("policy", "reload").out == "d: other policies\n2 revoked, 1 being revoked\n"
    assert run("policy", "reload").out == "d: the same policies\n"


def test_who_can(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/policy/who-can", 200, {"capability": "deploy", "items": [WHO]})

    ran = run("policy", "who-can", "deploy")
    assert fake.last.query == {"capability": "deploy"}
    assert ran.out.splitlines()[1].split()[:3] == ["writer", "needs_approval", WHO["policies"][0]]
    assert "1 approval" in ran.out
    assert run("policy", "who-can", "deploy", "--json").json["items"] == [WHO]


def test_explain(fake: FakeBroker, run: Run) -> None:
    fake.on("GET /v1/decisions/dec_1", 200, EXPLAINED)

    ran = run("policy", "explain", "dec_1")
    assert ran.code == 0
    assert "Capability deploy" in ran.out
    duties = "2 approvals, at most 1m30s, telling a, a bound token"
    for line in (
        f"  privileged-by-approval (default/power.cedar) permits, asking for {duties}: {ADVICE}",
        "  no (default/power.cedar) forbids",
        "  a (a.cedar) lacks context.risk < 3",
        "  b (b.cedar) applies, in vain",
        "  with the approval of one human: allow",
        "  not asked, they look at the call's arguments: c",
        "  not in force any more: d",
    ):
        assert line in ran.out.splitlines()
    assert run("policy", "explain", "dec_1", "--json").json == EXPLAINED


def test_a_decision_no_policy_was_asked_about(fake: FakeBroker, run: Run) -> None:
    plain = {**EXPLAINED, "question": None, "explanation": None}
    fake.on("GET /v1/decisions/dec_1", 200, plain)

    ran = run("policy", "explain", "dec_1")
    assert ran.code == 0
    assert "No policy was asked" in ran.err


def test_the_client_reads_all_of_it(fake: FakeBroker) -> None:
    fake.on("GET /v1/policy", 200, SHOWN)
    fake.on("GET /v1/policy/who-can", 200, {"capability": "deploy", "items": [WHO]})
    fake.on("GET /v1/decisions/dec_1", 200, EXPLAINED)

    with Client(fake.url, lambda: Secret(JWT)) as broker:
        policies = broker.get_policies()
        who = broker.who_can("deploy")
        explained = broker.explain_decision("dec_1")

    assert policies.policies[0].obligations["approvals"] == 2
    assert policies.observed[0].policies[0].effect == "forbid"
    assert who.items[0].extra == {"new_in_a_later_version": 7}
    assert explained.time is not None
    assert explained.explanation is not None
