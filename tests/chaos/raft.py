"""OpenBao as a cluster: three nodes on raft, any of which may lead."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from broker.dev.engines.openbao import ACTIVE, SEALED, UNINITIALISED, OpenBao
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STANDBY: Final = 429
SERVING: Final = (ACTIVE, STANDBY)


class Node(OpenBao):
    """The first to start makes the cluster; the others join it, and open with its key."""

    def __init__(self, data: Path, number: int, first: Node | None = None) -> None:
        super().__init__(data / f"node-{number}", free_port())
        self._number = number
        self._first = first
        self._cluster_port = free_port()
        self.others: Sequence[Node] = ()

    @property
    def port(self) -> int:
        assert self._port is not None
        return self._port

    def health(self) -> int:
        """200 leads, 429 follows, 503 is sealed, 0 doesn't answer."""
        return self._health()

    def _launch(self) -> None:
        fresh = not self._raft.exists()
        if fresh:
            self._raft.mkdir(mode=0o700)
        self._on_free_port(self._fixed_port, self._listen)
        if fresh and self._first is None:
            self._initialise()
        elif fresh and self._first is not None:
            for name in ("unseal-key", "root-token"):
                shutil.copy(self._first.home / name, self.home / name)
            self._wait_until(lambda: self._health() == SEALED, "joined")
        key = self._unseal_key_file.read_text()
        self._call("PUT", "sys/unseal", {"key": key})
        self._wait_until(lambda: self._health() not in {0, SEALED, UNINITIALISED}, "open")

    def _settings(self, port: int) -> dict[str, object]:
        peers = [{"leader_api_addr": node.address} for node in self.others]
        raft: dict[str, object] = {
            "path": str(self._raft),
            "node_id": f"node-{self._number}",
            "performance_multiplier": "1",
            **({"retry_join": peers} if self._first is not None else {}),
        }
        cluster = f"127.0.0.1:{self._cluster_port}"
        tcp = {"address": f"127.0.0.1:{port}", "cluster_address": cluster, "tls_disable": True}
        return {
            "storage": {"raft": raft},
            "listener": {"tcp": tcp},
            "api_addr": f"http://127.0.0.1:{port}",
            "cluster_addr": f"https://{cluster}",
            "ui": False,
        }


def cluster(data: Path, size: int) -> list[Node]:
    """Make the nodes of one cluster; nothing is started."""
    first = Node(data, 0)
    nodes = [first, *(Node(data, number, first) for number in range(1, size))]
    for node in nodes:
        node.others = [other for other in nodes if other is not node]
    return nodes
