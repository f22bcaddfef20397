"""Where the client's identity comes from: each source by a real stand-in, and their order."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from broker.client import IdentityMissing, IdentityUnavailable, InvalidRequest, Secret, platforms
from broker.client.environment import find_identity
from broker.client.identity import MintedIdentity, expiry, token_file
from tests.clocks import ManualClock
from tests.issuers import Answer, IssuerKey
from tests.loopback import Asked, Loopback
from tests.unit.svid_agent import SvidAgent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NOWHERE = Path("/nonexistent/tokens/broker")
AUDIENCE = "https://broker.example"
KEY = IssuerKey.new()
CANARY = "canary-c0ffee"


def jwt(*, ends: float, audience: str = AUDIENCE, **claims: object) -> str:
    subject = "spiffe://prod.example.com/a"
    return KEY.sign({"sub": subject, "aud": audience, "exp": int(ends), **claims})


def found(environ: Mapping[str, str], projected: Path = NOWHERE) -> str:
    """The token that an environment leads to."""
    identity = find_identity(environ, projected=projected)
    if isinstance(identity, MintedIdentity):
        return identity.token(AUDIENCE).reveal()
    return identity().reveal()


def program(*lines: str) -> str:
    return f"{sys.executable} -c '{chr(10).join(lines)}'"


@pytest.fixture
def github() -> Iterator[Loopback]:
    def answer(asked: Asked) -> Answer:
        if asked.headers.get("authorization") != "Bearer job-token":
            return Answer(b'{"message": "' + CANARY.encode() + b'"}', status=403)
        return Answer(json.dumps({"value": jwt(ends=time.time() + 300), "count": 1}).encode())

    with Loopback(answer) as server:
        yield server


def github_environ(server: Loopback, token: str = "job-token") -> dict[str, str]:
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{server.url}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": token,
    }


# ── order ────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_source_that_is_there_is_used(tmp_path: Path, github: Loopback) -> None:
    file, projected = tmp_path / "file", tmp_path / "projected"
    file.write_text("of-the-file\n")
    projected.write_text("of-the-pod")
    with SvidAgent(tmp_path / "agent.sock", lambda a: jwt(ends=time.time() + 60)) as agent:
        environ = {
            "BROKER_IDENTITY_TOKEN_FILE": str(file),
            "BROKER_IDENTITY_TOKEN": "direct",
            "BROKER_IDENTITY_COMMAND": program('print("of-the-command")'),
            "SPIFFE_ENDPOINT_SOCKET": agent.address,
            **github_environ(github),
        }
        order: list[str] = []
        for name in (*list(environ)[:3], None):
            order.append(found(environ, projected))
            environ |= {name: ""} if name else {}
        assert order[:3] == ["of-the-file", "direct", "of-the-command"]
        assert agent.asked == [[AUDIENCE]]
        del environ["SPIFFE_ENDPOINT_SOCKET"]
        found(environ, projected)
        assert len(github.asked) == 1
        assert found({}, projected) == "of-the-pod"


def test_a_source_that_fails_is_not_replaced_by_the_next(tmp_path: Path) -> None:
    environ = {
        "BROKER_IDENTITY_TOKEN_FILE": str(tmp_path / "gone"),
        "BROKER_IDENTITY_TOKEN": "somebody-else",
    }
    with pytest.raises(IdentityMissing, match="gone"):
        found(environ)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "BROKER_IDENTITY_TOKEN_FILE"),
        ({"GITHUB_ACTIONS": "true"}, "id-token: write"),
        ({"GITLAB_CI": "true"}, "id_tokens"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "projected volume"),
        ({"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x.example"}, "BROKER_IDENTITY_COMMAND"),
    ],
)
def test_without_a_source_it_is_said_what_to_set(environ: dict[str, str], said: str) -> None:
    with pytest.raises(IdentityMissing, match=said) as caught:
        found(environ)
    assert str(NOWHERE) in caught.value.detail


# ── a file ───────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    identity = token_file(file)
    assert identity().reveal() == "one"
    file.write_text("two\n")
    assert identity().reveal() == "two"


# ── a command ────────────────────────────────────────────────────────────────────────────────────


def test_a_command_is_split_run_without_a_shell_and_told_the_audience(tmp_path: Path) -> None:
    script = tmp_path / "a script"
    script.write_text(
        "import os, sys; print(os.environ['BROKER_AUDIENCE'], *sys.argv[1:], sep='|')"
    )
    command = f"{sys.executable} '{script}' '$HOME;true' --x"
    token = platforms.token_command(command).token(AUDIENCE)
    assert token.reveal() == f"{AUDIENCE}|$HOME;true|--x"


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        (program(f'print("{CANARY}"); raise SystemExit(3)'), IdentityMissing, "exit code 3"),
        (program(f'print("two words {CANARY}")'), IdentityMissing, "holds no token"),
        (program(f'import sys; sys.stderr.write("{CANARY}")'), IdentityMissing, "holds no token"),
        ("/nonexistent/program", IdentityMissing, "can't be run"),
        ("'open", InvalidRequest, "split"),
        ("  ", InvalidRequest, "no words"),
    ],
    ids=["fails", "words", "silent", "missing", "quotes", "empty"],
)
def test_a_command_that_gives_no_token_says_so_and_nothing_of_its_output(
    command: str, kind: type[Exception], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind, match=said) as caught:
        platforms.token_command(command).token(None)
    assert CANARY not in f"{caught.value!r} {vars(caught.value)}".replace(command, "")
    assert CANARY not in "".join(capfd.readouterr())


def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open('{pid}', 'w').write(str(p.pid)); time.sleep(60)"
    )
    script = tmp_path / "hang.py"
    script.write_text(code)
    identity = platforms.token_command(f"{sys.executable} {script}", timeout=2)
    with pytest.raises(IdentityUnavailable, match="within 2 seconds"):
        identity.token(None)
    state = Path(f"/proc/{pid.read_text()}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the grandchild lives on"
        os.sched_yield()


# ── GitHub Actions ───────────────────────────────────────────────────────────────────────────────


def test_github_is_asked_for_the_audience(github: Loopback) -> None:
    token = found(github_environ(github))
    assert expiry(Secret(token)) is not None
    (asked,) = github.asked
    assert asked.path == "/token?api-version=2.0&audience=https%3A%2F%2Fbroker.example"


def test_what_github_refuses_is_said_without_its_words(github: Loopback) -> None:
    with pytest.raises(IdentityMissing, match="id-token: write") as caught:
        found(github_environ(github, "another"))
    assert CANARY not in repr(vars(caught.value))
    assert "another" not in repr(vars(caught.value))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"value": 1}', b'{"value": "a b"}', b"\xff"])
def test_an_answer_of_githubs_without_a_token(github: Loopback, body: bytes) -> None:
    github.answer = lambda _: Answer(body)
    with pytest.raises(IdentityMissing):
        found(github_environ(github))


def test_github_that_is_down_may_be_up_in_a_moment(github: Loopback) -> None:
    github.answer = lambda _: Answer(b"", status=503)
    with pytest.raises(IdentityUnavailable) as caught:
        found(github_environ(github))
    assert not caught.value.sent


def test_githubs_token_is_never_sent_in_the_clear() -> None:
    with pytest.raises(InvalidRequest, match="https"):
        platforms.github_actions("http://github.example/token", Secret("t"))


# ── SPIFFE ───────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_gives_an_svid_for_the_audience(tmp_path: Path) -> None:
    made = jwt(ends=time.time() + 300)
    with SvidAgent(tmp_path / "agent.sock", lambda _: made) as agent:
        assert found({"SPIFFE_ENDPOINT_SOCKET": agent.address}) == made
        assert agent.asked == [[AUDIENCE]]


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, IdentityMissing, "register"),
        (grpc.StatusCode.UNAVAILABLE, IdentityUnavailable, "UNAVAILABLE"),
        (grpc.StatusCode.INVALID_ARGUMENT, IdentityMissing, "INVALID_ARGUMENT"),
    ],
    ids=["denied", "down", "invalid"],
)
def test_an_agent_that_refuses(
    tmp_path: Path, status: grpc.StatusCode, kind: type[Exception], said: str
) -> None:
    with SvidAgent(tmp_path / "agent.sock", lambda _: "") as agent:
        agent.status = status
        with pytest.raises(kind, match=said) as caught:
            found({"SPIFFE_ENDPOINT_SOCKET": agent.address})
    assert "canary-of-the-agent" not in repr(vars(caught.value))


def test_an_agent_that_says_nothing_has_a_time_limit(tmp_path: Path) -> None:
    with SvidAgent(tmp_path / "agent.sock", lambda _: "") as agent:
        agent.silent.set()
        identity = platforms.workload_api(agent.address, timeout=0.2)
        with pytest.raises(IdentityUnavailable, match="DEADLINE_EXCEEDED"):
            identity.token(AUDIENCE)


@pytest.mark.parametrize("address", ["unix:///nonexistent/agent.sock", "nonsense", "http://x"])
def test_an_agent_that_is_not_there(address: str) -> None:
    with pytest.raises((IdentityMissing, IdentityUnavailable), match="SPIFFE agent"):
        found({"SPIFFE_ENDPOINT_SOCKET": address})


def test_another_audience_of_an_agents_is_not_taken(tmp_path: Path) -> None:
    other = jwt(ends=time.time() + 300, audience="https://somebody.else")
    with (
        SvidAgent(tmp_path / "agent.sock", lambda _: other) as agent,
        pytest.raises(IdentityMissing) as caught,
    ):
        found({"SPIFFE_ENDPOINT_SOCKET": agent.address})
    assert other not in repr(vars(caught.value))


# ── what is minted is kept ───────────────────────────────────────────────────────────────────────


class Mint:
    """Counts how often it was asked; its tokens live for ``lifetime`` seconds."""

    def __init__(self, clock: ManualClock, lifetime: float | None = 300) -> None:
        self.clock, self.lifetime, self.made = clock, lifetime, 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self, audience: str | None) -> Secret:
        self.go.wait(10)
        self.made += 1
        ends: Any = None if self.lifetime is None else self.clock.now() + self.lifetime
        return Secret(KEY.sign({"aud": audience, "exp": ends, "n": self.made}))


def test_a_token_is_kept_until_a_minute_before_it_ends() -> None:
    clock = ManualClock()
    mint = Mint(clock)
    identity = MintedIdentity(mint, clock=clock)
    first = identity.token("a")
    clock.advance(239)
    assert identity.token("a") is first
    clock.advance(1)
    assert identity.at_hand("a") is None
    assert identity.token("a") is not first
    assert mint.made == 2


def test_a_short_lived_token_is_used_for_four_fifths_of_its_life() -> None:
    clock = ManualClock()
    identity = MintedIdentity(Mint(clock, 10), clock=clock)
    first = identity.token("a")
    clock.advance(7.9)
    assert identity.at_hand("a") is first
    clock.advance(0.2)
    assert identity.at_hand("a") is None


@pytest.mark.parametrize("lifetime", [None, -5, 0])
def test_a_token_that_does_not_say_how_long_it_lives_is_not_kept(lifetime: float | None) -> None:
    clock = ManualClock()
    mint = Mint(clock, lifetime)
    identity = MintedIdentity(mint, clock=clock)
    identity.token("a")
    identity.token("a")
    assert mint.made == 2


def test_another_audience_has_another_token_and_a_refused_one_is_forgotten() -> None:
    clock = ManualClock()
    mint = Mint(clock)
    identity = MintedIdentity(mint, clock=clock)
    identity.token("a")
    identity.token("b")
    assert mint.made == 2
    identity.forget()
    identity.token("b")
    assert mint.made == 3


def test_twenty_threads_that_need_a_token_have_one_made() -> None:
    clock = ManualClock()
    mint = Mint(clock)
    identity = MintedIdentity(mint, clock=clock)
    mint.go.clear()
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(identity.token, "a") for _ in range(20)]
        mint.go.set()
        tokens = [one.result(10) for one in waiting]
    assert mint.made == 1
    assert len({id(token) for token in tokens}) == 1


@pytest.mark.parametrize(
    "token",
    [
        *("", "x", "a.b.c", "a.W10.c", "a.eyJleHAiOnRydWV9.c", "a.eyJleHAiOiIxIn0.c", "a.bnVsbA.c"),
        *("a." + "W" * 4000 + ".c", "a.eyJleHAiOjFlNDAwfQ.c", "a.eyJleHAiOk5hTn0.c"),
    ],
    ids=range(10),
)
def test_what_cannot_be_read_says_nothing_of_its_end(token: str) -> None:
    assert expiry(Secret(token)) is None
