"""Bundles from the SPIFFE Workload API: a real gRPC server, speaking as an agent does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from spiffe._proto import workload_pb2, workload_pb2_grpc

from broker.errors import InvalidToken, Unavailable
from broker.identity.jwks_sources import KeySourceError
from broker.identity.spiffe import TrustDomain
from broker.identity.workload_api import WorkloadApiSource, split_der
from tests.clocks import ManualClock
from tests.issuers import IssuerKey
from tests.svids import Authority
from tests.unit.spiffe_world import KEY, ME, ROOT, TD, claims, settings, verify
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID = f"spiffe://{TD}"
PARTNER = "spiffe://partner.example.net"
NEXT = IssuerKey.new(kid="jwt-2")
NEXT_ROOT = Authority.root("next")


def jwks(*keys: IssuerKey, use: str | None = None) -> bytes:
    """A JWT bundle as agents send it: their keys don't say what they are for."""
    return json.dumps({"keys": [key.jwk(use=use) for key in keys]}).encode()


class Agent(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """A Workload API whose answers a test changes as it goes; a status takes an answer's place."""

    def __init__(self, socket: Path) -> None:
        self.address = f"unix://{socket}"
        self.jwt: dict[str, bytes] | grpc.StatusCode = {ID: jwks(KEY)}
        self.x509: dict[str, bytes] | grpc.StatusCode = {ID: ROOT.der}
        self.asked = self.ended = 0
        self.silent = threading.Event()
        self._server: Any = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)  # pyright: ignore[reportUnknownMemberType]
        self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def FetchJWTBundles(self, request: object, context: Any) -> Iterator[object]:  # noqa: N802
        yield from self._stream(self.jwt, workload_pb2.JWTBundlesResponse, context)

    def FetchX509Bundles(self, request: object, context: Any) -> Iterator[object]:  # noqa: N802
        yield from self._stream(self.x509, workload_pb2.X509BundlesResponse, context)

    def _stream(self, answer: Any, response: Any, context: Any) -> Iterator[object]:
        self.asked += 1
        # SPIFFE Workload Endpoint section 4.
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
        gone = threading.Event()
        context.add_callback(gone.set)
        if self.silent.is_set():
            gone.wait(30)
            self.ended += 1
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "no")
        yield response(bundles=answer)
        # A real agent keeps the stream open until something changes.
        gone.wait(30)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "api.sock")
    agent.start()
    yield agent
    agent.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def domain(agent: Agent, clock: ManualClock) -> TrustDomain:
    return new_domain(agent, clock)


def new_domain(agent: Agent, clock: ManualClock, **changes: object) -> TrustDomain:
    given = settings(bundle_url=None, workload_api=agent.address, leeway_s=300, **changes)
    return TrustDomain(given, clock)


async def proves(domain: TrustDomain, key: IssuerKey = KEY) -> bool:
    try:
        return (await verify(domain, key.sign(claims()))).subject == ME
    except InvalidToken:
        return False


async def certifies(domain: TrustDomain, root: Authority = ROOT) -> bool:
    try:
        return (await domain.verify_certificate([root.svid(ME)])).subject == ME
    except InvalidToken:
        return False


async def test_both_kinds_of_svid(agent: Agent, domain: TrustDomain) -> None:
    assert await proves(domain)
    assert await certifies(domain)
    assert agent.asked == 2


async def test_rotation(agent: Agent, domain: TrustDomain) -> None:
    assert await proves(domain)
    agent.jwt, agent.x509 = {ID: jwks(KEY, NEXT)}, {ID: ROOT.der + NEXT_ROOT.der}
    assert await proves(domain, NEXT)
    assert await certifies(domain, NEXT_ROOT)
    assert await certifies(domain)


async def test_what_an_agent_takes_back_is_gone_within_seconds(
    agent: Agent, domain: TrustDomain, clock: ManualClock
) -> None:
    assert await proves(domain)
    agent.jwt, agent.x509 = {ID: jwks()}, {ID: b""}
    clock.advance(10)
    assert not await proves(domain)
    assert not await certifies(domain)


async def test_keys_of_one_kind_only(agent: Agent, domain: TrustDomain, clock: ManualClock) -> None:
    agent.x509 = grpc.StatusCode.UNIMPLEMENTED
    assert await proves(domain)
    assert not await certifies(domain)
    agent.jwt, agent.x509 = {PARTNER: jwks(KEY)}, {ID: ROOT.der}
    clock.advance(10)
    assert await certifies(domain)
    assert not await proves(domain)


async def test_the_bundle_of_a_federated_trust_domain_is_its_own(
    agent: Agent, domain: TrustDomain, clock: ManualClock
) -> None:
    """Nothing of one proves anybody in the other, and one that is spoiled spoils no other."""
    agent.jwt = {ID: jwks(KEY), PARTNER: jwks(NEXT)}
    agent.x509 = {ID: ROOT.der, PARTNER: NEXT_ROOT.der}
    partner = new_domain(agent, clock, name="partner", trust_domain="partner.example.net")
    whose = PARTNER + "/a"
    assert (await verify(partner, NEXT.sign(claims(sub=whose)))).issuer_name == "partner"
    assert (await partner.verify_certificate([NEXT_ROOT.svid(whose)])).subject == whose
    assert not await proves(domain, NEXT)
    assert not await certifies(domain, NEXT_ROOT)
    agent.jwt, agent.x509 = {**agent.jwt, PARTNER: b"?"}, {**agent.x509, PARTNER: b"?"}
    clock.advance(10)
    assert await proves(domain)
    assert await certifies(domain)


async def test_keys_for_another_use_are_left_out(agent: Agent, domain: TrustDomain) -> None:
    agent.jwt = {ID: jwks(KEY, use="x509-svid")}
    assert not await proves(domain)


# ── an agent that doesn't answer ─────────────────────────────────────────────────────────────────


async def test_an_agent_that_starts_later(tmp_path: Path, clock: ManualClock) -> None:
    agent = Agent(tmp_path / "api.sock")
    domain = new_domain(agent, clock)
    for ask in (proves, certifies):
        with pytest.raises(Unavailable, match="'prod'"):
            await ask(domain)
    agent.start()
    clock.advance(10)
    assert await proves(domain)
    assert await certifies(domain)
    agent.stop()


async def test_an_agent_that_restarts(
    agent: Agent, domain: TrustDomain, clock: ManualClock
) -> None:
    assert await proves(domain)
    agent.stop()
    clock.advance(10)
    assert await proves(domain)
    agent.jwt = {ID: jwks(NEXT)}
    agent.start()
    clock.advance(10)
    assert await proves(domain, NEXT)
    assert not await proves(domain)


async def test_an_agent_that_no_longer_knows_us(
    agent: Agent, domain: TrustDomain, clock: ManualClock
) -> None:
    """It says that the keys aren't for us: the old ones don't serve until it is sure again."""
    assert await proves(domain)
    agent.jwt = agent.x509 = grpc.StatusCode.PERMISSION_DENIED
    clock.advance(10)
    for ask in (proves, certifies):
        with pytest.raises(Unavailable):
            await ask(domain)
    agent.jwt, agent.x509 = {ID: jwks(KEY)}, {ID: ROOT.der}
    clock.advance(10)
    assert await proves(domain)


async def test_a_trust_domain_that_the_agent_does_not_know(
    agent: Agent, clock: ManualClock
) -> None:
    unknown = new_domain(agent, clock, trust_domain="unknown.example")
    with pytest.raises(Unavailable):
        await unknown.verify_certificate([ROOT.svid("spiffe://unknown.example/a")])


@pytest.mark.parametrize(
    ("jwt", "x509"),
    [
        ({}, {ID: ROOT.der}),
        ({ID: jwks(KEY)}, {}),
        ({ID: b"?"}, {ID: ROOT.der}),
        ({ID: jwks(KEY)}, {ID: b"?"}),
        ({ID: jwks(KEY)}, {ID: ROOT.der[:-1]}),
        (grpc.StatusCode.UNAVAILABLE, {ID: ROOT.der}),
        ({ID: jwks(KEY)}, grpc.StatusCode.INTERNAL),
    ],
)
async def test_an_answer_that_says_nothing_leaves_the_old_keys(
    agent: Agent, domain: TrustDomain, clock: ManualClock, jwt: Any, x509: Any
) -> None:
    assert await proves(domain)
    agent.jwt, agent.x509 = jwt, x509
    clock.advance(10)
    assert await proves(domain)
    assert await certifies(domain)
    with pytest.raises(KeySourceError):
        await WorkloadApiSource(agent.address, TD).fetch()


async def test_closing_does_not_wait_for_a_silent_agent(agent: Agent, domain: TrustDomain) -> None:
    agent.silent.set()
    asking = asyncio.create_task(proves(domain))

    async def asked() -> bool:
        return agent.asked > 0

    async def ended() -> bool:
        return agent.ended > 0

    await wait_until(asked, "the agent is asked")
    await asyncio.wait_for(domain.aclose(), 2)
    with pytest.raises(asyncio.CancelledError):
        await asking
    # Nor does a thread of ours wait on, until the call's own time is up.
    await wait_until(ended, "the call is given up", within_s=2)


# ── the library, and its wire ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data", [b"\x30", b"\x31\x00", b"\x30\x01", b"\x30\x85\x00\x00\x00\x00\x00"]
)
def test_what_is_no_certificate_is_not_split(data: bytes) -> None:
    with pytest.raises(ValueError, match="DER"):
        list(split_der(ROOT.der + data))


def test_certificates_are_split() -> None:
    assert list(split_der(b"")) == []
    assert list(split_der(ROOT.der + NEXT_ROOT.der)) == [ROOT.der, NEXT_ROOT.der]


MISSING = """
import sys
import broker.identity.authenticator
assert not {"grpc", "spiffe"} & set(sys.modules)  # loaded for those who configured it only
sys.modules["grpc"] = None
from broker.clock import SystemClock
from broker.errors import ConfigError
from broker.identity.models import TrustDomainSettings
from broker.identity.spiffe import TrustDomain
try:
    TrustDomain(
        TrustDomainSettings(
            name="prod", trust_domain="td", audience="a", workload_api="unix:///x"
        ),
        SystemClock(),
    )
except ConfigError as error:
    print(error.detail)
"""


def test_without_the_library_it_says_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, check=True)
    assert b"trust domain 'prod': workload_api needs a library" in done.stdout
    assert b"install broker[spiffe]" in done.stdout
