"""What the client takes from the environment.

Read here with ``os.environ`` and not with pydantic-settings, which takes longer to import than all
of the client.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.client.errors import InvalidRequest, Unauthenticated
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

Identity = Callable[[], Secret]
"""Returns the caller's workload JWT, a fresh one if the last may be about to expire."""

DEFAULT_URL: Final = "http://127.0.0.1:8700"
URL: Final = "BROKER_URL"
TASK_ID: Final = "BROKER_TASK_ID"
TOKEN_FILE: Final = "BROKER_IDENTITY_TOKEN_FILE"
TOKEN: Final = "BROKER_IDENTITY_TOKEN"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker is, who is calling, and as whose agent."""

    url: str
    identity: Identity
    task_id: str | None


def from_environment(environ: Mapping[str, str] = os.environ, url: str | None = None) -> Settings:
    """Read the settings; an empty variable counts as one that isn't set.

    Where nothing says who is calling it is the person who has logged in, at ``url`` if given.
    """
    url = url or environ.get(URL) or DEFAULT_URL
    path, token = environ.get(TOKEN_FILE), environ.get(TOKEN)
    identity = _logged_in(url)
    if path:
        identity = token_file(path)
    elif token:
        identity = _fixed(token)
    return Settings(url, identity, environ.get(TASK_ID) or None)


def token_file(path: str | Path) -> Identity:
    """Return an identity that reads a workload JWT from a file, anew each time: it is rotated."""

    def read() -> Secret:
        try:
            text = Path(path).read_text("ascii")
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "it is not a token"
            raise Unauthenticated(
                f"The identity token file {path} can't be read: {why}", code="identity_missing"
            ) from None
        return _checked(text, f"The identity token file {path}")

    return read


def _logged_in(url: str) -> Identity:
    """Return the identity of ``broker login``, which is looked for when it is needed."""

    def read() -> Secret:
        from broker.client.login import Logins  # noqa: PLC0415  seldom needed

        found = Logins().token(checked_url(url))
        return found if found is not None else no_identity()

    return read


def no_identity() -> Secret:
    """Stand in where no identity is set.

    Raises:
        Unauthenticated: always, saying what to set.
    """
    raise Unauthenticated(
        f"No workload identity: set {TOKEN_FILE} to a file with a workload JWT; a person runs "
        "`broker login`",
        code="identity_missing",
    )


def checked_url(url: str) -> str:
    """Return the broker's URL without a slash at its end.

    Raises:
        InvalidRequest: it isn't the plain URL of a server.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    else:
        good = good and not (parts.query or parts.fragment or "@" in parts.netloc)
    if not good or not url.isprintable() or " " in url:
        # The URL isn't repeated: somebody may have put a password into it.
        raise InvalidRequest(
            "The broker's URL must look like https://broker.example:8700, without a user or query",
            code="invalid_url",
        )
    return url.rstrip("/")


def _fixed(token: str) -> Identity:
    return lambda: _checked(token, TOKEN)


def _checked(text: str, source: str) -> Secret:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Unauthenticated(f"{source} holds no token", code="identity_missing")
    return Secret(token)
