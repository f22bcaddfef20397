"""What a person's login is, and where it is kept: the ID token of the issuer that a broker names.

Which brokers there are logins for stands in one small file that only its owner can read; the tokens
are in the keyring of the operating system, or on request in that file too. So a program without a
login costs one look for a file, and no keyring is woken up for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from broker.client.errors import Unauthenticated
from broker.client.login_keyring import Keyring
from broker.clock import SystemClock
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from broker.clock import Clock

Kept = Literal["keyring", "file"]
MARGIN_S: Final = 60.0
"""A token with less to live than this is renewed first."""


@dataclass(frozen=True, slots=True)
class Login:
    """A person's login at a broker. ``token`` proves them until ``expires_at`` (epoch seconds).

    ``refresh_token`` may be empty; with it the next token comes from ``token_endpoint``.
    """

    server: str
    issuer: str
    client_id: str
    token_endpoint: str
    token: Secret
    expires_at: float
    refresh_token: Secret

    def lasts(self, now: float) -> bool:
        """Say whether its token is good for a while."""
        return self.expires_at - now > MARGIN_S

    def written(self) -> str:
        """Return it as text, tokens and all, for where it is kept."""
        row = {name: getattr(self, name) for name in _TEXTS}
        tokens = {"token": self.token.reveal(), "refresh_token": self.refresh_token.reveal()}
        return json.dumps({**row, **tokens, "expires_at": self.expires_at})

    @classmethod
    def read(cls, text: str) -> Login:
        """Read such a text.

        Raises:
            ValueError: it is none.
        """
        try:
            row = cast("dict[str, Any]", json.loads(text))
            given = {name: str(row[name]) for name in _TEXTS}
            return cls(
                **given,
                token=Secret(str(row["token"])),
                expires_at=float(row["expires_at"]),
                refresh_token=Secret(str(row["refresh_token"])),
            )
        except (KeyError, TypeError, ValueError):
            raise ValueError("not a login") from None  # the text may hold a token


_TEXTS: Final = ("server", "issuer", "client_id", "token_endpoint")


class Logins:
    """The logins of this person on this machine, by the URLs of brokers."""

    def __init__(
        self,
        folder: Path | None = None,
        keyring: Keyring | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``folder`` is ``broker`` among the person's configuration, unless given."""
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        self.file = (folder or Path(config) / "broker") / "logins.json"
        self._keyring = keyring or Keyring()
        self._clock = clock or SystemClock()

    def servers(self) -> list[str]:
        """Return the brokers that there is a login for.

        Raises:
            Unauthenticated: the file isn't private, or can't be read.
        """
        return sorted(self._rows())

    def get(self, server: str) -> Login | None:
        """Return the login at a broker, if there is one.

        Raises:
            Unauthenticated: it is kept where it can't be had from.
        """
        row = self._rows().get(server)
        if row is None:
            return None
        text = str(row.get("login", "")) or self._keyring.get(server)
        try:
            found = Login.read(text)
        except ValueError:
            raise _lost(server) from None
        if found.server != server:
            raise _lost(server)
        return found

    def kept(self, server: str) -> Kept | None:
        """Say where the login at a broker is kept."""
        row = self._rows().get(server)
        return None if row is None else ("file" if "login" in row else "keyring")

    def keep(self, login: Login, where: Kept) -> None:
        """Keep a login, in the place of the one before.

        Raises:
            Unauthenticated: it can't be kept there.
        """
        with self._alone():
            self._keep(login, where)

    def _keep(self, login: Login, where: Kept) -> None:
        rows = self._rows()
        if where == "keyring":
            self._keyring.set(login.server, login.written())
        rows[login.server] = {"login": login.written()} if where == "file" else {}
        self._write(rows)

    def forget(self, server: str) -> bool:
        """Delete the login at a broker; whether there was one."""
        if server not in self._rows():
            return False
        with self._alone():
            rows = self._rows()
            row = rows.pop(server, {})
            if "login" not in row:
                self._keyring.delete(server)
            self._write(rows)
        return True

    def token(self, server: str) -> Secret | None:
        """Return what ``current`` does, renewed at the login's issuer."""
        if server not in self._rows():
            return None
        from broker.client.login_flows import LoginFlows  # noqa: PLC0415  seldom needed

        return self.current(server, LoginFlows(clock=self._clock).renew)

    def current(self, server: str, renew: Callable[[Login], Login]) -> Secret | None:
        """Return the token of the login at a broker, a new one if it is about to expire.

        One program at a time renews: a refresh token may be good for one use only.

        Raises:
            Unauthenticated: there is a login, and it is over.
        """
        login = self.get(server)
        if login is None or login.lasts(self._clock.now()):
            return login and login.token
        with self._alone():
            login = self.get(server)
            if login is None or login.lasts(self._clock.now()):
                return login and login.token
            if not login.refresh_token.reveal():
                raise ended(server)
            renewed = renew(login)
            if not renewed.refresh_token.reveal():  # RFC 6749 section 6: the old one stays good
                renewed = replace(renewed, refresh_token=login.refresh_token)
            self._keep(renewed, self.kept(server) or "keyring")
            return renewed.token

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        folder = self.file.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (folder / "logins.lock").open("w")
        except OSError as error:
            raise _unreadable(self.file, error.strerror or "it can't be written") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _rows(self) -> dict[str, dict[str, Any]]:
        try:
            with self.file.open("rb") as file:
                _check_private(self.file, os.fstat(file.fileno()))
                rows = json.loads(file.read())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unreadable(self.file, error.strerror or "it can't be read") from None
        except ValueError:
            raise _unreadable(self.file, "it is not what `broker login` wrote") from None
        if not isinstance(rows, dict):
            raise _unreadable(self.file, "it is not what `broker login` wrote")
        return cast("dict[str, dict[str, Any]]", rows)

    def _write(self, rows: dict[str, dict[str, Any]]) -> None:
        folder = self.file.parent
        try:
            handle, name = tempfile.mkstemp(dir=folder, prefix=".logins-")  # for its owner alone
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(rows, file, indent=2)
            Path(name).replace(self.file)
        except OSError as error:
            why = error.strerror or "it can't be written"
            raise _unreadable(self.file, why) from None


def ended(server: str) -> Unauthenticated:
    """Return the error of a login whose tokens are over."""
    return Unauthenticated(f"The login at {server} has ended", code="login_ended")


def _lost(server: str) -> Unauthenticated:
    return Unauthenticated(
        f"The login at {server} isn't in the keyring any more", code="login_ended"
    )


def _unreadable(file: Path, why: str) -> Unauthenticated:
    return Unauthenticated(
        f"The file of logins {file} can't be used: {why}", code="logins_unusable"
    )


def _check_private(file: Path, about: os.stat_result) -> None:
    if about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077:
        raise _unreadable(file, f"others may read or own it; chmod 600 {file}")
