"""What a target does for us with accounts: list all, shut some out, end one. A kind is a file.

Each is given a function that reads the URL to log in with, anew each time, since its file rotates.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from broker.errors import BackendRefused, BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from broker.grants import Grant

CALL_S: Final = 10.0
"""How long a connection or a statement may take."""
TOTAL_S: Final = 60.0
"""How long a target may take over one call of ours."""

T = TypeVar("T")


class Accounts(Protocol):
    """One kind of target, as its admin sees it.

    The methods raise ``BackendUnavailable``, or ``BackendRefused`` where the target said no. What
    they say holds no part of the URL.
    """

    async def shut(self, accounts: Sequence[str]) -> Sequence[str]:
        """Let nobody log in with these any more, and end their sessions. Gone is success.

        It makes no account, and whoever made them can end them after it as before. Those that the
        login may not change are returned; they keep no others in.
        """
        ...

    async def accounts(self) -> frozenset[str]:
        """Return the names of all accounts."""
        ...

    async def end(self, account: str) -> None:
        """End an account: nobody logs in with it again, its sessions end. Gone is success."""
        ...

    async def close(self) -> None:
        """Close what is kept open."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target of the configuration, and which of its accounts are the broker's."""

    name: str
    pattern: str
    capabilities: frozenset[str]
    _at: Accounts = field(repr=False)
    lockout: bool = True
    """Whether accounts are shut out here when they are revoked."""

    def owns(self, account: str) -> bool:
        """Whether an account's name is one of the broker's."""
        return fnmatchcase(account, self.pattern)

    def is_of(self, grant: Grant) -> bool:
        """Whether a grant's account is one of the broker's here."""
        return grant.capability in self.capabilities and self.owns(grant.account)

    async def shut(self, accounts: Sequence[str]) -> Sequence[str]:
        """Shut some of the broker's accounts out; return those that may not be.

        Raises:
            BackendUnavailable, BackendRefused: some may still log in.
        """
        return await self._in_time(self._at.shut(list(filter(self.owns, accounts))))

    async def accounts(self) -> frozenset[str]:
        """Return the broker's accounts there are.

        Raises:
            BackendUnavailable, BackendRefused: it can't be asked.
        """
        return frozenset(filter(self.owns, await self._in_time(self._at.accounts())))

    async def end(self, account: str) -> None:
        """End one of the broker's accounts.

        Raises:
            BackendUnavailable, BackendRefused: it may still be there.
        """
        if not self.owns(account):
            raise BackendRefused(f"target {self.name}: {account!r} isn't the broker's")
        await self._in_time(self._at.end(account))

    async def close(self) -> None:
        """Close what is kept open."""
        await self._at.close()

    async def _in_time(self, work: Coroutine[object, object, T]) -> T:
        try:
            async with asyncio.timeout(TOTAL_S):
                return await work
        except TimeoutError as error:
            raise BackendUnavailable(f"target {self.name} doesn't answer") from error
        except (OSError, ValueError) as error:
            # Its file holds no URL, or whom it trusts can't be read. What the error says may hold
            # parts of the URL, so it ends here.
            why = f"target {self.name} can't be asked: {type(error).__name__}"
            raise BackendRefused(f"{why}; look at its dsn_file and ca_file") from None


def not_installed(package: str) -> BackendRefused:
    """Say that a target needs a package that is an extra of ours."""
    return BackendRefused(f"{package} isn't installed: pip install 'broker[targets]'")
