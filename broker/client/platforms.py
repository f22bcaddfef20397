"""Identities that a platform or a program mints: a command, GitHub Actions, a SPIFFE agent.

Each has a time limit. What they answer is a secret: no error shows any of it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote, urlsplit

import httpx2

from broker.client.errors import InvalidRequest
from broker.client.identity import MintedIdentity, checked
from broker.client.reasons import IdentityMissing, IdentityUnavailable

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.secret import Secret

TIMEOUT_S: Final = 10.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def token_command(
    command: str, *, timeout: float = TIMEOUT_S, clock: Clock | None = None
) -> MintedIdentity:
    """Return an identity that a program writes to its standard output.

    The command is split as a shell would (``shlex``), and there is no shell. It finds the audience
    in ``BROKER_AUDIENCE``, if that is known. After ``timeout`` seconds it is killed.

    Raises:
        InvalidRequest: the command can't be split.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        # The command isn't shown: somebody may have put a password into it.
        msg = f"BROKER_IDENTITY_COMMAND can't be split into words: {error}"
        raise InvalidRequest(msg, code="invalid_command") from None
    if not words:
        raise InvalidRequest("BROKER_IDENTITY_COMMAND has no words", code="invalid_command")
    return MintedIdentity(partial(_run, words, timeout), clock=clock)


def _run(words: list[str], timeout: float, audience: str | None) -> Secret:
    name = f"The identity command {words[0]!r}"
    more = {"BROKER_AUDIENCE": audience} if audience else {}
    try:
        process = subprocess.Popen(  # noqa: S603  the caller's own command, without a shell
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **more},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no command"
        raise IdentityMissing(f"{name} can't be run: {why}") from None
    with process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise IdentityUnavailable(f"{name} didn't end within {timeout:g} seconds") from None
        except BaseException:  # interrupted
            _end(process)
            raise
    if process.returncode:
        raise IdentityMissing(f"{name} failed: exit code {process.returncode}")
    return checked(output.decode("ascii", "replace"), f"{name} ended well, and its output")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a command, what it started included: it may hold the pipe open."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def github_actions(
    url: str, request_token: Secret, *, timeout: float = TIMEOUT_S, clock: Clock | None = None
) -> MintedIdentity:
    """Return the identity of a job of GitHub Actions, which GitHub mints (OpenID Connect).

    ``url`` and ``request_token`` are what a job with ``permissions: id-token: write`` finds in
    ``ACTIONS_ID_TOKEN_REQUEST_URL`` and ``ACTIONS_ID_TOKEN_REQUEST_TOKEN``.

    Raises:
        InvalidRequest: the token would be sent in the clear.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        msg = "ACTIONS_ID_TOKEN_REQUEST_URL must be an https URL"
        raise InvalidRequest(msg, code="invalid_url")
    mint = partial(_ask_github, url, request_token, timeout)
    return MintedIdentity(mint, needs_audience="GitHub Actions", clock=clock)


def _ask_github(url: str, request_token: Secret, timeout: float, audience: str | None) -> Secret:
    joined = f"{url}{'&' if urlsplit(url).query else '?'}audience={quote(audience or '', safe='')}"
    headers = {
        "authorization": f"Bearer {request_token.reveal()}",
        "accept": "application/json; api-version=2.0",
    }
    try:
        with httpx2.Client(timeout=timeout, trust_env=False) as http:
            answer = http.get(joined, headers=headers)
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        msg = f"GitHub's token endpoint gave no answer: {type(error).__name__}"
        raise IdentityUnavailable(msg) from None
    if answer.status_code == 429 or answer.status_code >= 500:  # noqa: PLR2004  it may pass
        raise IdentityUnavailable(f"GitHub's token endpoint answered {answer.status_code}")
    value: Any = None
    with suppress(ValueError):
        document = answer.json()
        value = (
            cast("dict[str, Any]", document).get("value") if isinstance(document, dict) else None
        )
    if answer.status_code != 200 or not isinstance(value, str):  # noqa: PLR2004  OK
        raise IdentityMissing(
            f"GitHub's token endpoint answered {answer.status_code} and no token: has the job "
            "`permissions: { id-token: write }`?"
        )
    return checked(value, "The answer of GitHub's token endpoint")


def workload_api(
    socket: str, *, timeout: float = TIMEOUT_S, clock: Clock | None = None
) -> MintedIdentity:
    """Return the identity that a SPIFFE agent on this machine gives to this workload: a JWT-SVID.

    ``socket`` is as in ``SPIFFE_ENDPOINT_SOCKET``: ``unix:///path`` or ``tcp://address:port``.
    Needs the extra ``broker[spiffe]``.
    """
    mint = partial(_ask_agent, socket, timeout)
    return MintedIdentity(mint, needs_audience="a SPIFFE agent", clock=clock)


def _ask_agent(socket: str, timeout: float, audience: str | None) -> Secret:
    try:
        from broker.client import workload_api as api  # noqa: PLC0415  an extra, and gRPC is heavy
    except ImportError:
        raise IdentityMissing(
            "SPIFFE_ENDPOINT_SOCKET is set, and asking a SPIFFE agent needs the extra: "
            "pip install 'broker[spiffe]'"
        ) from None
    return checked(api.fetch_svid(socket, audience or "", timeout), "The SPIFFE agent's answer")
