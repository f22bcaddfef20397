"""The metrics of all workers of a host, shown by whichever of them is asked.

Workers share one socket, so nobody can choose whom to ask. Each answers the others on a socket of
its own, in a folder that nobody else can enter, and each sample says whose it is: ``worker``, as
``instance`` would tell replicas apart. Counters start anew when a worker does, as they do then.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import parser
from prometheus_client.registry import Collector, CollectorRegistry

from broker.logs import get_logger
from broker.metrics import acceptable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from prometheus_client.metrics_core import Metric

    from broker.metrics import Metrics

log = get_logger("metrics")
_OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
_parse: Callable[[str], Iterable[Metric]] = cast("Any", parser).text_string_to_metric_families
_WITHIN_S: Final = 2.0
"""A worker that takes longer, or is being started anew, is left out of this answer."""


class WorkerMetrics:
    """One worker's side: it answers the others, and asks them."""

    def __init__(
        self, metrics: Metrics, read: Callable[[], Awaitable[object]], folder: Path, number: int
    ) -> None:
        """``read`` brings the metrics up to date; all workers are given the same ``folder``."""
        self._metrics = metrics
        self._read = read
        self._folder = folder
        self._number = str(number)
        self._server: asyncio.Server | None = None

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return everything of all workers, and its media type."""
        others = [p for p in sorted(self._folder.iterdir()) if p.name != self._number]
        texts = await asyncio.gather(self._own(), *map(self._ask, others))
        told = {
            self._number: texts[0],
            **dict(zip([p.name for p in others], texts[1:], strict=True)),
        }
        merged = _Merged((worker, text) for worker, text in told.items() if text)
        encode, media_type = choose_encoder(acceptable(accept))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(merged)
        return encode(registry), media_type

    async def __aenter__(self) -> Self:
        """Begin to answer the others."""
        path = self._folder / self._number
        path.unlink(missing_ok=True)  # of one that was killed
        self._server = await asyncio.start_unix_server(self._answer, path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close()
        (self._folder / self._number).unlink(missing_ok=True)

    async def _own(self) -> str:
        await self._read()
        return self._metrics.exposition(_OPENMETRICS)[0].decode()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write((await self._own()).encode())
            await writer.drain()
        writer.close()

    async def _ask(self, path: Path) -> str:
        try:
            async with asyncio.timeout(_WITHIN_S):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    return (await reader.read()).decode()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            log.warning("a worker doesn't say its metrics", worker=path.name, problem=repr(error))
            return ""


class _Merged(Collector):
    def __init__(self, told: Iterable[tuple[str, str]]) -> None:
        self._families: dict[str, Metric] = {}
        for worker, text in told:
            families = _parse(text)
            for family in families:
                own = [s._replace(labels={"worker": worker, **s.labels}) for s in family.samples]
                family.samples = []
                self._families.setdefault(family.name, family).samples += own

    def collect(self) -> Iterable[Metric]:
        return self._families.values()
