"""RabbitMQ, by its management plugin: an account is a user."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

import httpx2

from broker.errors import BackendRefused, BackendUnavailable
from broker.targets.protocol import CALL_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from broker.secret import Secret

_GONE: Final = 404


class RabbitMQ:
    """A node's management API, as a user with the tag ``administrator``."""

    def __init__(self, login: Callable[[], Secret], ca_file: Path | None = None) -> None:
        """``login`` reads ``https://USER:PASSWORD@HOST:15671``; ``ca_file`` is whom it trusts."""
        self._login = login
        self._ca_file = ca_file

    async def shut(self, accounts: Sequence[str]) -> Sequence[str]:
        """Leave all to who made them: changing a user that has gone would make it anew."""
        return accounts

    async def accounts(self) -> frozenset[str]:
        """Return the names of all users."""
        async with self._api() as api:
            users = await _call(api, "GET", "/api/users")
        if users is None:  # where there is no such list there is no RabbitMQ
            raise BackendRefused("RabbitMQ: 404 for its list of users")
        return frozenset(str(row["name"]) for row in users)

    async def end(self, account: str) -> None:
        """Delete a user, and close what connections it has."""
        name = quote(account, safe="")
        async with self._api() as api:
            await _call(api, "DELETE", f"/api/users/{name}")
            for row in await _call(api, "GET", f"/api/connections/username/{name}") or ():
                connection = quote(str(row["name"]), safe="")
                await _call(api, "DELETE", f"/api/connections/{connection}")

    async def close(self) -> None:
        """Nothing is kept open."""

    @contextlib.asynccontextmanager
    async def _api(self) -> AsyncGenerator[httpx2.AsyncClient]:
        place = urlsplit(self._login().reveal())
        if place.scheme not in ("http", "https") or not place.hostname:
            raise BackendRefused("its file doesn't hold https://USER:PASSWORD@HOST:PORT")
        host = place.netloc.rpartition("@")[2]
        try:
            async with httpx2.AsyncClient(
                base_url=f"{place.scheme}://{host}{place.path.rstrip('/')}",
                auth=(unquote(place.username or ""), unquote(place.password or "")),
                verify=ssl.create_default_context(cafile=self._ca_file),
                timeout=CALL_S,
                trust_env=False,
            ) as api:
                yield api
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise BackendUnavailable(f"RabbitMQ: {type(error).__name__}") from error


async def _call(api: httpx2.AsyncClient, method: str, path: str) -> list[dict[str, Any]] | None:
    """Return what there is, or None where there is no such thing."""
    answer = await api.request(method, path)
    if answer.status_code == _GONE:
        return None
    if answer.is_client_error:
        raise BackendRefused(f"RabbitMQ: {answer.status_code}")
    answer.raise_for_status()
    return answer.json() if answer.content else []
