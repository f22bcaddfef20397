"""Valkey and Redis: an account is an ACL user."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from broker.errors import BackendRefused, BackendUnavailable
from broker.targets.protocol import CALL_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from broker.secret import Secret


_NO_FILE: Final = "not configured to use an ACL file"


class Valkey:
    """A server, as a user that may run ``ACL``. Each node of a cluster is a target of its own."""

    def __init__(self, login: Callable[[], Secret]) -> None:
        """``login`` reads ``redis://``, ``rediss://`` or ``unix://``, as redis-py takes them."""
        self._login = login

    async def shut(self, accounts: Sequence[str]) -> Sequence[str]:
        """Delete these users, which ends their connections too.

        Also from the ACL file, if there is one: the server would have them again once restarted.
        Turning one off instead would make it anew where it has gone meanwhile.
        """
        async with self._session() as session:
            await session.acl_deluser(*accounts)
            try:
                await session.acl_save()
            except ResponseError as error:
                if _NO_FILE not in str(error):
                    raise
        return ()

    async def accounts(self) -> frozenset[str]:
        """Return the names of all ACL users."""
        async with self._session() as session:
            names: list[str] = await session.acl_users()
        return frozenset(names)

    async def end(self, account: str) -> None:
        """Delete an ACL user: to shut it out is its end."""
        await self.shut([account])

    async def close(self) -> None:
        """Nothing is kept open."""

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncGenerator[Any]:
        try:
            client: Any = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
                self._login().reveal(),
                decode_responses=True,
                encoding_errors="replace",
                socket_timeout=CALL_S,
                socket_connect_timeout=CALL_S,
            )
            async with client:
                yield client
        except (RedisConnectionError, TimeoutError, OSError) as error:
            raise BackendUnavailable(f"Valkey: {type(error).__name__}") from error
        except ResponseError as error:
            raise BackendRefused("Valkey: it refuses; may its user run ACL?") from error
        except (RedisError, ValueError) as error:  # the latter: what no URL is
            raise BackendRefused(f"Valkey: {type(error).__name__}") from error
