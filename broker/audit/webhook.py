"""The webhook sink: batches of CloudEvents by HTTP POST, in CloudEvents' own JSON form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.audit.posting import Poster
from broker.audit.record import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from broker.clock import Clock
    from broker.secret import Secret

MEDIA_TYPE: Final = "application/cloudevents-batch+json; charset=utf-8"


class Webhook:
    """Posts events to one URL."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        timeout_s: float = 10.0,
        ca_file: Path | None = None,
        token: Callable[[], Secret] | None = None,
        secret: Callable[[], Secret] | None = None,
    ) -> None:
        """``token`` and ``secret`` read their files; ``timeout_s`` bounds a delivery as a whole.

        Raises:
            ConfigError: a file can't be used.
        """
        self._poster = Poster(
            lambda: url, clock, timeout_s=timeout_s, ca_file=ca_file, token=token, secret=secret
        )

    async def deliver(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Post the events as one batch; anything but a 2xx is a failure."""
        body = b"[" + b",".join(canonical(event) for event in events) + b"]"
        ids = [str(event.get("id", "")) for event in events]
        await self._poster.post(body, media_type=MEDIA_TYPE, ids=ids)

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()
