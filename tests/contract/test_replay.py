"""Proofs are used once, with a nonce of now, whichever replica they reach: on a real Valkey."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import InvalidDpopProof, LedgerUnavailable, UseDpopNonce
from broker.identity.models import Transport
from broker.ledger.connection import Connection
from broker.ledger.keys import EXPIRING, nonce, replay
from broker.ledger.replay import NONCE_SPAN_S, Replay
from broker.possession import Possession
from tests.clocks import ManualClock
from tests.possession import Sender

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack

URL = "https://broker.example/oauth/token"
TOKEN = "header.payload.signature"
WINDOW_S = 60
SHARDS = 8
SENDER = Sender()


class Replica:
    """One process: a connection, a clock and a memory of its own."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.clock = ManualClock()
        self.connection = Connection(url, shards=SHARDS, timeout_s=0.5)
        self.replay = Replay(self.connection)
        self.possession = Possession(self.connection, self.clock, window_s=WINDOW_S, **settings)

    async def ask(self, transport: Transport, token: str | None = None) -> str | None:
        return await self.possession.verify(transport, access_token=token)

    async def fresh(self, **changes: Any) -> Transport:
        """A request whose proof is good here, now."""
        fields = {"nonce": await self.possession.nonce(), **changes}
        return SENDER.request("POST", URL, self.clock.now(), **fields)

    async def refusal(self, transport: Transport) -> str:
        with pytest.raises(InvalidDpopProof) as caught:
            await self.ask(transport)
        assert not isinstance(caught.value, UseDpopNonce)
        return caught.value.detail

    async def challenge(self, transport: Transport) -> str:
        """The nonce that it wants."""
        with pytest.raises(UseDpopNonce) as caught:
            await self.ask(transport)
        assert caught.value.nonce == await self.possession.nonce()
        return caught.value.nonce


@pytest.fixture
async def one(engines: tuple[DevStack, Config]) -> AsyncGenerator[Replica]:
    made = Replica(engines[1].redis.url)
    await made.connection.command("FLUSHALL")
    yield made
    await made.connection.close()


@pytest.fixture
async def two(engines: tuple[DevStack, Config]) -> AsyncGenerator[Replica]:
    made = Replica(engines[1].redis.url)
    yield made
    await made.connection.close()


# ── the header ───────────────────────────────────────────────────────────────────────────────────


async def test_a_request_without_a_proof_proves_no_key(one: Replica) -> None:
    assert await one.ask(Transport("POST", URL)) is None


async def test_a_good_proof_yields_the_thumbprint(one: Replica) -> None:
    assert await one.ask(await one.fresh()) == SENDER.jkt()


async def test_there_is_one_header(one: Replica) -> None:
    first, second = await one.fresh(), await one.fresh()

    both = Transport("POST", URL, dpop=(*first.dpop, *second.dpop))
    assert "more than one" in await one.refusal(both)
    assert "more than one" in await one.refusal(Transport("POST", URL, dpop=first.dpop * 2))
    # None of them was used up by that.
    assert await one.ask(first)


@pytest.mark.parametrize("value", ["", " ", ",", "x"])
async def test_an_empty_header_is_a_header(one: Replica, value: str) -> None:
    assert await one.refusal(Transport("POST", URL, dpop=(value,)))


async def test_a_proof_is_for_its_request_and_its_token(one: Replica) -> None:
    made = await one.fresh(access_token=TOKEN)

    assert "method" in await one.refusal(Transport("GET", URL, made.dpop))
    assert "URL" in await one.refusal(Transport("POST", f"{URL}/other", made.dpop))
    with pytest.raises(InvalidDpopProof, match="ath"):
        await one.ask(made, "another.token.entirely")
    assert await one.ask(made, TOKEN) == SENDER.jkt()


# ── once ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_proof_is_used_once_by_all_replicas(one: Replica, two: Replica) -> None:
    made = await one.fresh()

    assert await one.ask(made)
    assert "used before" in await one.refusal(made)
    assert "used before" in await two.refusal(made)


async def test_of_many_that_come_at_once_one_is_accepted(one: Replica, two: Replica) -> None:
    made = await one.fresh()

    answers = await asyncio.gather(
        *(replica.ask(made) for replica in (one, two) * 20), return_exceptions=True
    )

    assert answers.count(SENDER.jkt()) == 1
    refused = [a for a in answers if isinstance(a, InvalidDpopProof)]
    assert len(refused) == len(answers) - 1


async def test_the_same_url_written_otherwise_is_a_replay(one: Replica) -> None:
    first = await one.fresh(jti="one", htu="HTTPS://Broker.example:443/oauth/%74oken")
    second = await one.fresh(jti="one")

    assert await one.ask(first)
    assert "used before" in await one.refusal(second)


async def test_ids_are_the_senders_own(one: Replica) -> None:
    """Nobody can use up the id of somebody else, nor of another URL (RFC 9449 section 11.1)."""
    now, fields = one.clock.now(), {"jti": "one", "nonce": await one.possession.nonce()}
    other = f"{URL}/other"

    assert await one.ask(SENDER.request("POST", URL, now, **fields))
    assert await one.ask(Sender().request("POST", URL, now, **fields))
    assert await one.ask(SENDER.request("POST", other, now, **fields))


async def test_a_refused_proof_is_not_used_up(one: Replica) -> None:
    made = await one.fresh(jti="one")
    head, payload, _ = made.dpop[0].split(".")
    forged = Transport("POST", URL, dpop=(f"{head}.{payload}.{'A' * 86}",))

    assert "signature" in await one.refusal(forged)
    await one.challenge(await one.fresh(jti="one", nonce=None))
    assert await one.ask(made)


async def test_a_proof_is_remembered_for_as_long_as_anyone_accepts_it(one: Replica) -> None:
    """Also by a replica whose clock is a window behind."""
    for offset in (-WINDOW_S, 0, WINDOW_S):
        await one.connection.command("FLUSHALL")
        issued_at = one.clock.now() + offset
        assert await one.ask(await one.fresh(iat=issued_at))

        left = [ttl for key, ttl in await keys(one.connection) if ":replay:" in key]
        good_for_ms = (offset + WINDOW_S) * 1000
        assert len(left) == 1
        assert good_for_ms + 55_000 < left[0] <= good_for_ms + 60_001


async def test_what_is_remembered_names_nobody(one: Replica) -> None:
    assert await one.ask(await one.fresh(jti="a-recognisable-id", access_token=TOKEN), TOKEN)

    names = [key for key, _ in await keys(one.connection)]
    assert {name.split(":")[2] for name in names} == {"replay", "nonce"} <= EXPIRING
    assert not any("recognisable" in name or SENDER.jkt() in name for name in names)


# ── nonces ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_proof_needs_a_nonce_and_is_told_which(one: Replica) -> None:
    wanted = await one.challenge(SENDER.request("POST", URL, one.clock.now()))

    assert await one.ask(await one.fresh(nonce=wanted))


async def test_replicas_share_their_nonces(one: Replica, two: Replica) -> None:
    both = await asyncio.gather(*(r.possession.nonce() for r in (one, two, one, two)))

    assert len(set(both)) == 1
    assert await two.ask(await one.fresh())


async def test_the_nonce_before_is_good_and_the_one_before_that_is_not(
    one: Replica, two: Replica
) -> None:
    first = await one.possession.nonce()
    one.clock.advance(NONCE_SPAN_S)
    two.clock.advance(NONCE_SPAN_S)
    second = await one.possession.nonce()

    assert second != first
    assert await one.ask(await one.fresh(nonce=first))
    # Also by a replica that started since.
    assert await two.ask(await two.fresh(nonce=first))
    for replica in (one, two):
        replica.clock.advance(NONCE_SPAN_S)
        assert await replica.challenge(await replica.fresh(nonce=first)) not in {first, second}
        assert await replica.ask(await replica.fresh(nonce=second))


@pytest.mark.parametrize("given", ["made-up", "x" * 256, "é"])
async def test_a_nonce_of_another_broker_is_refused(one: Replica, given: str) -> None:
    assert await one.challenge(await one.fresh(nonce=given)) != given


async def test_nonces_cannot_be_foretold(one: Replica) -> None:
    seen = set[str]()
    for _ in range(5):
        seen.add(await one.possession.nonce())
        one.clock.advance(NONCE_SPAN_S)

    assert len(seen) == 5
    assert all(len(text) >= 22 and text.isascii() for text in seen)


async def test_a_replica_whose_clock_is_ahead_is_believed(one: Replica, two: Replica) -> None:
    # On the edge, so that ten seconds are another span.
    one.clock.advance(NONCE_SPAN_S - one.clock.now() % NONCE_SPAN_S - 5)
    two.clock.advance(NONCE_SPAN_S - two.clock.now() % NONCE_SPAN_S + 5)
    await one.possession.nonce()
    ahead = await two.possession.nonce()

    assert await one.ask(await one.fresh(nonce=ahead))
    one.clock.advance(10)
    assert await one.possession.nonce() == ahead


async def test_replicas_agree_again_after_redis_lost_the_nonces(one: Replica, two: Replica) -> None:
    before = await one.possession.nonce()
    await one.connection.command("FLUSHALL")
    after = await two.possession.nonce()

    assert after != before
    # One of them is behind until it meets a nonce that it doesn't know.
    assert await two.challenge(await two.fresh(nonce=before)) == after
    assert await one.ask(await one.fresh(nonce=after))
    assert await one.possession.nonce() == after


async def test_a_known_nonce_costs_no_round_trip(one: Replica) -> None:
    await one.possession.nonce()
    await one.connection.command("CONFIG", "RESETSTAT")
    assert await one.ask(await one.fresh())

    stats = await one.connection.command("INFO", "commandstats")
    assert stats["cmdstat_set"]["calls"] == 1
    assert "cmdstat_get" not in stats


async def test_nonces_can_be_done_without(engines: tuple[DevStack, Config]) -> None:
    easy = Replica(engines[1].redis.url, require_nonce=False)
    try:
        made = SENDER.request("POST", URL, easy.clock.now())
        assert await easy.ask(made) == SENDER.jkt()
        assert "used before" in await easy.refusal(made)
        # One of who knows whom is no reason to refuse.
        assert await easy.ask(SENDER.request("POST", URL, easy.clock.now(), nonce="old"))
    finally:
        await easy.connection.close()


# ── the store ────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_claimed_is_claimed_until_its_time_is_up(one: Replica, two: Replica) -> None:
    assert await one.replay.claim("assertion", "client\0id", 60_000)
    assert not await two.replay.claim("assertion", "client\0id", 60_000)
    assert await two.replay.claim("another", "client\0id", 60_000)
    assert await two.replay.claim("assertion", "client\0other", 60_000)
    await one.connection.command("DEL", replay("assertion", "client\0id", SHARDS))
    assert await two.replay.claim("assertion", "client\0id", 60_000)


@pytest.mark.parametrize("ttl_ms", [0, -5, 1])
async def test_every_claim_expires(one: Replica, ttl_ms: int) -> None:
    assert await one.replay.claim("assertion", "x", ttl_ms)
    await one.replay.claim("assertion", "y\0\n" + "é" * 10_000, 60_000)

    await one.possession.nonce()
    assert all(ttl != -1 for _, ttl in await keys(one.connection))


async def test_claims_are_spread_over_the_shards() -> None:
    assert len({replay("dpop", f"key {i}", SHARDS).split(":")[1] for i in range(200)}) == SHARDS
    assert nonce(1).startswith("broker:{s00}:nonce:")


async def test_without_a_ledger_nothing_is_accepted(one: Replica) -> None:
    made = await one.fresh()
    dead = Replica("redis://127.0.0.1:1/0")
    relaxed = Replica("redis://127.0.0.1:1/0", require_nonce=False)
    try:
        for replica in (dead, relaxed):
            with pytest.raises(LedgerUnavailable):
                await replica.ask(made)
        with pytest.raises(LedgerUnavailable):
            await dead.possession.nonce()
        with pytest.raises(LedgerUnavailable):
            await dead.replay.claim("dpop", "x", 1000)
        assert "method" in await dead.refusal(Transport("GET", URL, made.dpop))
    finally:
        await dead.connection.close()
        await relaxed.connection.close()


async def keys(connection: Connection) -> list[tuple[str, int]]:
    """Every key, and the milliseconds it has left."""
    client: Any = connection.client
    names = [raw.decode() async for raw in client.scan_iter()]
    return [(name, await client.pttl(name)) for name in names]
