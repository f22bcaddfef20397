"""What the broker costs beside what it stands on, measured in one run: ``make bench``.

Each row is a ratio of ours to a reference on the same engines in the same minute, since these
machines are noisy. The broker runs as a process of its own; the load comes from this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
import psycopg

from broker.client import Client
from broker.clock import SystemClock
from broker.dev import bench_cascade, bench_decisions, bench_outage
from broker.dev.bench_exchange import AGENT, CONNECTIONS, ExchangeBench, median_rate
from broker.dev.config import subject_of
from broker.dev.engines.process import free_port
from broker.dev.issuer import DevIssuer
from broker.ledger.connection import Connection
from broker.secret import Secret
from broker.token_request import EXCHANGE, TYPE_JWT

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

_clock = SystemClock()
ROUNDS: Final = 100
GRANTS: Final = 2000
PER_TASK: Final = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``better`` says which way is good, ``target`` what to reach, or 0."""

    row: str
    ours: float
    reference: float
    unit: str
    ratio: float
    target: float
    better: str


def main() -> int:
    """Start a dev broker, measure, print the table, stop it."""
    words = sys.argv[1:]
    rounds = int(words[0]) if words and words[0].isdecimal() else ROUNDS
    rows: list[Row] = []
    if "outage" not in words:
        with dev_broker(f"[oauth]\nrate = 1_000_000\n{bench_cascade.CONFIG}") as ready:
            bench = Bench(ready)
            rows += [
                *bench.decisions(),
                *bench.exchanges(),
                *bench.time_to_dead(rounds),
                *bench.cascade(),
                *bench.memory(GRANTS),
            ]
    with dev_broker(bench_outage.CONFIG) as ready:
        rows += Bench(ready).outage()
    for row in rows:
        wanted = f" (to reach: {row.target})" if row.target else ""
        sys.stdout.write(
            f"{row.row}: {row.ours:.2f} {row.unit} against {row.reference:.2f} {row.unit}, "
            f"ratio {row.ratio:.2f}{wanted}\n"
        )
    return 0


@contextlib.contextmanager
def dev_broker(config: str) -> Generator[dict[str, Any]]:
    """Run one with this configuration; the line that it prints when it is ready."""
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder:
        file = Path(folder) / "bench.toml"
        file.write_text(config, "utf-8")
        command = [sys.executable, "-m", "broker", "dev", "--port", "0", "--json"]
        command += ["--data", f"{folder}/data", "--config", str(file)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None  # noqa: S101  it was asked for as a pipe
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(30)


class Bench:
    """The measurements, against one running dev broker."""

    def __init__(self, ready: dict[str, Any]) -> None:
        """``ready`` is the line ``broker dev --json`` prints."""
        self._ready = ready
        data = Path(ready["data"])
        issuer = DevIssuer(data, _clock)

        def identity(name: str) -> Callable[[], Secret]:
            return lambda: issuer.token(subject_of(name, data))

        self._identity = identity
        self._orchestrator = Client(ready["url"], identity("orchestrator"))
        root = Path(ready["vault_token_file"]).read_text("utf-8").strip()
        self._vault = httpx2.Client(
            base_url=f"{ready['vault']}/v1/", headers={"X-Vault-Token": root}, trust_env=False
        )
        self._theirs: list[tuple[float, float]] = []
        admin = Path(ready["postgres_admin_dsn_file"]).read_text("utf-8").strip()
        self._place = admin.rpartition("@")[2]

    def exchanges(self) -> list[Row]:
        """Token exchanges a second at 32 connections, against OpenBao's login."""
        bench = ExchangeBench(self._ready["url"], Path(self._ready["data"]), self._vault)
        task = self._orchestrator.open_task(AGENT, "bench", ["orders-read"], ttl="1h")
        ours, theirs = bench.measure(task.task_id)
        self._orchestrator.complete(task.task_id)
        rate, reference = median_rate(ours), median_rate(theirs)
        name = f"tracked token exchanges, {CONNECTIONS} connections"
        return [Row(name, rate, reference, "per s", rate / reference, 2.0, "higher")]

    def decisions(self) -> list[Row]:
        """Decisions a second at 32 connections, against a bare echo; and one by itself."""
        url: str = self._ready["url"]
        tokens: list[tuple[str, str]] = []
        opened = [
            self._orchestrator.open_task(AGENT, "bench", [bench_decisions.TOOL], ttl="1h")
            for _ in range(bench_decisions.TASKS)
        ]
        for task in opened:
            detail = [{"type": "broker_task", "task_id": task.task_id}]
            form = {
                "grant_type": EXCHANGE,
                "subject_token_type": TYPE_JWT,
                "subject_token": self._identity(AGENT)().reveal(),
                "authorization_details": json.dumps(detail),
            }
            answer = httpx2.post(f"{url}/oauth/token", data=form, trust_env=False)
            tokens.append((task.task_id, answer.raise_for_status().json()["access_token"]))
        ours, echoes = bench_decisions.measure(url, tokens)
        for task in opened:
            self._orchestrator.complete(task.task_id)
        rate, reference = median_rate(ours), median_rate(echoes)
        name = f"tool-call decisions, {bench_decisions.CONNECTIONS} connections"
        rows = [Row(name, rate, reference, "per s", rate / reference, 0.4, "higher")]
        few = bench_decisions.alone(bench_decisions.COUNTS[0])
        for count in bench_decisions.COUNTS:
            found = few if count == bench_decisions.COUNTS[0] else bench_decisions.alone(count)
            for percent, took, base in zip((50, 99), found, few, strict=True):
                name = f"one decision by {count} policies and ours, p{percent}"
                rows.append(Row(name, took, base, "ms", took / base, 0.0, "lower"))
        return rows

    def time_to_dead(self, rounds: int) -> list[Row]:
        """Time from ending a task to its credential refused and confirmed, against a sync revoke.

        The two take turns, each with one new credential, so that both see the same machine.
        Refused: PostgreSQL has shut the credential out, which an open session sees at once.
        Confirmed: the call has come back; ours has looked the lease up by then.
        """
        mine = [self._time(*self._our_credential()) for _ in self._both(rounds)]
        rows: list[Row] = []
        for at, what in enumerate(("refused", "confirmed")):
            for percent, target in ((50, 1.3), (99, 1.3)):
                ours = _percentile([times[at] for times in mine], percent)
                reference = _percentile([times[at] for times in self._theirs], percent)
                name = f"task complete to credential {what}, p{percent} of {rounds}"
                rows.append(Row(name, ours, reference, "ms", ours / reference, target, "lower"))
        return rows

    def _both(self, rounds: int) -> Iterator[int]:
        """Let the reference take its turn before each of ours."""
        self._theirs = []
        for turn in range(rounds):
            self._theirs.append(self._time(*self._their_credential()))
            yield turn

    def _our_credential(self) -> tuple[str, Secret, Callable[[], object]]:
        task = self._orchestrator.open_task("report-writer", "bench", ["orders-read"])
        credential = self._orchestrator.request_grant(task.task_id, "orders-read").credential
        if credential.username is None or credential.password is None:
            sys.exit("the broker issued no database credential")
        return (
            credential.username,
            credential.password,
            lambda: self._orchestrator.complete(task.task_id),
        )

    def _their_credential(self) -> tuple[str, Secret, Callable[[], object]]:
        answer = self._vault.get("database/creds/orders-read").json()
        lease = {"lease_id": answer["lease_id"], "sync": True}
        data = answer["data"]
        return (
            data["username"],
            Secret(data["password"]),
            lambda: self._vault.put("sys/leases/revoke", json=lease).raise_for_status(),
        )

    def _time(
        self, username: str, password: Secret, end: Callable[[], object]
    ) -> tuple[float, float]:
        """Return the milliseconds until a credential is refused, and until its end is answered."""
        dsn = f"postgresql://{username}:{password.reveal()}@{self._place}"
        with psycopg.connect(dsn, autocommit=True) as session, ThreadPoolExecutor(1) as pool:
            session.execute("SELECT 1")
            begun = _clock.monotonic()
            answer = pool.submit(lambda: (end(), _clock.monotonic())[1])
            select.select([session.fileno()], [], [], 30)
            refused = _clock.monotonic()
            confirmed = answer.result()
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            return (refused - begun) * 1000, (confirmed - begun) * 1000
        sys.exit("an ended credential still logs in: the figures would mean nothing")

    def cascade(self) -> list[Row]:
        """Seconds until a chain of tasks is dead, against revoking as many leases directly."""
        reference = bench_cascade.theirs(self._vault)
        took = bench_cascade.ours(self._orchestrator, self._ready["redis"])
        name = (
            f"chain of {bench_cascade.DEPTH} with {bench_cascade.GRANTS} grants: root to all dead"
        )
        return [Row(name, took, reference, "s", took / reference, 0.0, "lower")]

    def outage(self) -> list[Row]:
        """Seconds until grants of three backends are dead, one of which is away for a while.

        The reference is the time that as many leases take that are revoked directly; for issuing,
        how long it takes when nothing else goes on.
        """
        cache = bench_outage.Cache(Path(self._ready["data"]) / "cache", free_port()).start()
        try:
            cache.mount(self._vault)
            seen = bench_outage.measure(self._orchestrator, cache, self._ready["redis"])
            some = bench_outage.PER_TASK
            path = f"cache/creds/{bench_outage.CACHE}"
            third = bench_cascade.theirs(self._vault, some, path) / some
        finally:
            cache.stop()
        # Of the two others the half are tokens, which nothing stands behind but the ledger.
        one = bench_cascade.theirs(self._vault) / bench_cascade.GRANTS / 2
        others = seen.grants - seen.third
        rows: list[Row] = []
        for name, took, reference in (
            (
                f"{others} grants of two backends expire, a third away: to all dead",
                seen.others_dead_s,
                one * others,
            ),
            (f"the third is back: to its {seen.third} dead", seen.third_dead_s, third * seen.third),
        ):
            rows.append(Row(name, took, reference, "s", took / reference, 0.0, "lower"))
        before, meanwhile = (
            bench_outage.percentile(times, 99) for times in (seen.before_ms, seen.meanwhile_ms)
        )
        name = "issuing meanwhile, p99"
        return [*rows, Row(name, meanwhile, before, "ms", meanwhile / before, 0.0, "lower")]

    def memory(self, grants: int) -> list[Row]:
        """Redis memory per live grant, against OpenBao's memory per live token lease.

        The audit stream is a row of its own: it grows by what happened, not by what is alive.
        """
        server = OpenBaoMemory(Path(self._ready["data"]) / "openbao" / "pid")
        for _ in range(grants):
            self._vault.post("auth/token/create", json={"ttl": "1h"}).raise_for_status()
        reference = server.grown() / grants
        before = asyncio.run(_redis_bytes(self._ready["redis"]))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._fifty_grants, range(grants // PER_TASK)))
        after = asyncio.run(_redis_bytes(self._ready["redis"]))
        live = grants // PER_TASK * PER_TASK
        return [
            _memory_row("Redis bytes per live grant", "ledger", before, after, live, reference),
            _memory_row("Redis bytes of events per grant", "audit", before, after, live, reference),
        ]

    def _fifty_grants(self, _: int) -> None:
        task = self._orchestrator.open_task("report-writer", "bench", ["orders-read"], ttl="1h")
        for _ in range(PER_TASK):
            self._orchestrator.request_grant(task.task_id, "orders-read")


class OpenBaoMemory:
    """How much the server's resident memory has grown since this was made."""

    def __init__(self, pid_file: Path) -> None:
        self._status = Path(f"/proc/{pid_file.read_text('utf-8').split()[0]}/status")
        self._before = self._resident()

    def grown(self) -> int:
        """Bytes."""
        return self._resident() - self._before

    def _resident(self) -> int:
        line = next(
            row for row in self._status.read_text("utf-8").splitlines() if row.startswith("VmRSS:")
        )
        return int(line.split()[1]) * 1024


async def _redis_bytes(url: str) -> dict[str, int]:
    """Bytes of the ledger's tables, and of its audit streams, by MEMORY USAGE of every key."""
    connection = Connection(url)
    found = {"ledger": 0, "audit": 0}
    try:
        for key in await connection.command("KEYS", "*"):
            size = await connection.command("MEMORY", "USAGE", key, "SAMPLES", 0)
            found["audit" if key.endswith(b":audit") else "ledger"] += int(size or 0)
    finally:
        await connection.close()
    return found


def _memory_row(
    name: str, part: str, before: dict[str, int], after: dict[str, int], live: int, reference: float
) -> Row:
    ours = (after[part] - before[part]) / live
    return Row(name, ours, reference, "bytes", ours / reference, 0.12, "lower")


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    sys.exit(main())
