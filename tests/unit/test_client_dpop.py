"""The client's DPoP proofs, read by the verifier of the broker; its keys; its nonces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.client import (
    Client,
    ConnectionFailed,
    InvalidRequest,
    Secret,
    UnexpectedAnswer,
    UseDpopNonce,
    calls,
)
from broker.client.dpop import DpopKey
from broker.client.messages import Request, Response
from broker.client.retrying import Retries
from broker.client.session import Session
from broker.identity.dpop import Proof, verify_proof
from tests.clocks import ManualClock
from tests.unit.fake_broker import TASK
from tests.unit.test_client_core import URL, identity, ok, play

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "https://issuer.example"
METADATA = ok({"issuer": ISSUER})
LOST = ConnectionFailed("lost", sent=True)
PEM = (Encoding.PEM, PrivateFormat.PKCS8)


def session(
    key: DpopKey | None = None, clock: ManualClock | None = None, url: str = URL
) -> Session:
    return Session(
        url,
        identity,
        task_id=None,
        clock=clock or ManualClock(),
        dpop=key or DpopKey.new(),
        retries=Retries(jitter=lambda: 0.0),
    )


def token(text: str, kind: str = "DPoP") -> Response:
    return ok({"access_token": text, "token_type": kind, "expires_in": 300})


def wants_nonce(status: int, nonce: str) -> Response:
    body: dict[str, Any] = (
        {"error": "use_dpop_nonce"} if status == 400 else {"code": "use_dpop_nonce", "status": 401}
    )
    return Response(status, {"dpop-nonce": nonce}, json.dumps(body).encode())


def proved(request: Request, path: str, access_token: str | None = None) -> Proof:
    return verify_proof(
        request.headers["dpop"],
        method=request.method,
        url=ISSUER + path,
        now=ManualClock().now(),
        window_s=60,
        access_token=access_token,
    )


def test_every_request_has_a_proof_of_its_own_for_this_request_and_token() -> None:
    sent, _ = play(
        session().run(calls.list_tasks(state="active")), METADATA, token("t1"), ok({"items": []})
    )
    assert "dpop" not in sent[0].headers
    first = proved(sent[1], "/oauth/token")
    second = proved(sent[2], "/v1/tasks", "t1")
    assert first.jkt == second.jkt
    assert first.jti != second.jti
    assert sent[2].headers["authorization"] == "DPoP t1"


def test_nonces_are_taken_kept_and_taken_anew() -> None:
    core = session()
    sent, _ = play(
        core.run(calls.get_task("a")),
        METADATA,
        wants_nonce(400, "n1"),
        token("t1"),
        wants_nonce(401, "n2"),
        ok(TASK),
    )
    assert [proved(r, "/oauth/token").nonce for r in sent[1:3]] == [None, "n1"]
    assert [proved(r, "/v1/tasks/a", "t1").nonce for r in sent[3:]] == ["n1", "n2"]
    fresh = Response(200, {"dpop-nonce": "n3"}, json.dumps(TASK).encode())
    play(core.run(calls.get_task("a")), fresh)
    sent, _ = play(core.run(calls.get_task("a")), ok(TASK))
    assert proved(sent[0], "/v1/tasks/a", "t1").nonce == "n3"


def test_a_call_that_only_lacks_a_nonce_is_repeated_though_it_is_not_repeatable() -> None:
    core = session()
    call = calls.revoke({"all": True}, "r")
    done = ok({"revocation_id": "rev_1", "matched": 0, "revoked": 0, "revoking": 0})
    sent, _ = play(core.run(call), METADATA, token("t1"), wants_nonce(401, "n1"), done)
    assert [r.path for r in sent][2:] == ["/v1/revocations"] * 2


def test_a_broker_that_always_wants_another_nonce_is_an_error() -> None:
    with pytest.raises(UseDpopNonce):
        play(
            session().run(calls.get_task("a")),
            METADATA,
            *(wants_nonce(400, str(n)) for n in range(3)),
        )


def test_what_is_sent_again_has_another_proof_made_for_when_it_is_sent() -> None:
    core = session()
    play(core.run(calls.get_task("a")), METADATA, token("t1"), ok(TASK))
    busy = Response(429, {"retry-after": "50"}, b'{"code": "rate_limited"}')
    sent, _ = play(core.run(calls.get_task("a")), LOST, busy, ok(TASK))
    proofs = [proved(r, "/v1/tasks/a", "t1") for r in sent]
    assert len({p.jti for p in proofs}) == 3
    assert [p.issued_at - ManualClock().now() for p in proofs] == [0, 0, 50]


@pytest.mark.parametrize("url", [URL, f"{URL}:443", "https://10.0.0.1:8700"])
def test_a_proof_names_the_brokers_public_address(url: str) -> None:
    sent, _ = play(session(url=url).run(calls.get_task("a")), METADATA, token("t"), ok(TASK))
    assert proved(sent[2], "/v1/tasks/a", "t").url == f"{ISSUER}/v1/tasks/a"


def test_a_token_that_is_not_bound_is_refused() -> None:
    with pytest.raises(UnexpectedAnswer, match="not bound"):
        play(session().run(calls.get_task("a")), METADATA, token("t", "Bearer"))


def test_a_key_is_read_from_a_file(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "key.pem"
    file.write_bytes(key.private_bytes(*PEM, NoEncryption()))
    jkts: set[str] = set()
    for made in (DpopKey.load(file), DpopKey.load(str(file))):
        proof = made.proof("GET", f"{ISSUER}/x", now=ManualClock().now(), nonce=None, token=None)
        request = Request("GET", "/x", {"dpop": proof})
        jkts.add(proved(request, "/x").jkt)
    assert len(jkts) == 1
    assert "PRIVATE" not in repr(DpopKey.load(file))


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    wrong = (
        ec.generate_private_key(ec.SECP384R1()).private_bytes(*PEM, NoEncryption()),
        ed25519.Ed25519PrivateKey.generate().private_bytes(*PEM, NoEncryption()),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(*PEM, BestAvailableEncryption(b"x")),
        b"canary",
        b"",
    )
    for content in wrong:
        file.write_bytes(content)
        with pytest.raises(InvalidRequest, match=r"key\.pem") as caught:
            DpopKey.load(file)
        assert caught.value.code == "invalid_dpop_key"
        assert "canary" not in caught.value.detail
    with pytest.raises(InvalidRequest, match="No such file"):
        DpopKey.load(tmp_path / "none")


def test_the_environment_binds_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: dict[str, Any] = {"url": URL, "identity": lambda: Secret("x")}
    monkeypatch.setenv("BROKER_DPOP_KEY", str(tmp_path / "gone"))
    with pytest.raises(InvalidRequest, match="gone"):
        Client(**made)
    Client(**made, dpop=False).close()
    monkeypatch.delenv("BROKER_DPOP_KEY")
    monkeypatch.setenv("BROKER_DPOP", "maybe")
    with pytest.raises(InvalidRequest, match="BROKER_DPOP"):
        Client(**made)
