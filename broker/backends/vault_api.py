"""The few calls made to Vault or OpenBao, over hvac's adapter. The only file that knows hvac.

hvac is synchronous and runs in two bounded thread pools, one for issuing and one for revoking, so
that a mass revocation never starves issuing. It reads ``VAULT_TOKEN`` and ``~/.vault-token`` when
it is given no token: every call here passes one explicitly. What a call is part of is taken before
a thread has it (``tracing.headers``), for threads don't know.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
from hvac import exceptions as vault_errors
from hvac.adapters import JSONAdapter
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from broker import tracing
from broker.errors import (
    BackendDown,
    BackendRefused,
    BackendUnavailable,
    BrokerError,
    ConfigError,
)
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from pathlib import Path

    from broker.clock import Clock

_RETRY_AFTER: Final = 5
_GONE: Final = (
    "invalid lease",
    "lease not found",
    "invalid accessor",
    "wrapping token is not valid",
)
_UNREACHABLE: Final = (
    "failed to connect",
    "connection refused",
    "connection reset",
    "broken pipe",
    "eof",
    "bad connection",
    "invalid connection",
    "no such host",
    "i/o timeout",
    "deadline exceeded",
)
"""What drivers say when a target is down; Vault answers such a revoke with 400, not 5xx."""


class VaultGone(BackendRefused):
    """What was asked about doesn't exist any more."""


class VaultForbidden(BackendRefused):
    """403: the token is dead or lacks the right."""


class VaultDeclined(BackendRefused):
    """400: what was asked is not as it has to be there, or as a role allows it."""


@dataclass(frozen=True, slots=True)
class VaultLogin:
    """How the broker proves itself to Vault: ``kind`` approle, jwt, kubernetes or token_file.

    ``body`` makes the login request anew each time, since the files behind it rotate; for
    ``token_file`` it holds the token itself.
    """

    kind: str
    mount: str
    body: Callable[[], Mapping[str, str]]


class VaultApi:
    """One Vault, as the broker's own identity or as a task's token."""

    def __init__(
        self,
        address: str,
        login: VaultLogin,
        clock: Clock,
        *,
        namespace: str = "",
        ca_file: Path | None = None,
        timeout_s: float = 5.0,
        issue_concurrency: int = 16,
        revoke_concurrency: int = 16,
    ) -> None:
        """``timeout_s`` bounds each call; the concurrencies bound each thread pool."""
        self._login = login
        self._clock = clock
        self._own: tuple[Secret, float] | None = None
        self._login_lock = asyncio.Lock()
        session = requests.Session()
        session.trust_env = False
        session.verify = str(ca_file) if ca_file else True
        size = issue_concurrency + 2 * revoke_concurrency
        adapter = HTTPAdapter(pool_connections=size, pool_maxsize=size)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        self._session = session
        self._base: dict[str, Any] = {
            "base_uri": address,
            "session": session,
            "timeout": timeout_s,
            "allow_redirects": False,
            "namespace": namespace or None,
        }
        server = urlsplit(address)
        self._where: dict[str, str | int] = {"server.address": server.hostname or ""}
        if server.port:
            self._where["server.port"] = server.port
        self._issue = ThreadPoolExecutor(issue_concurrency, "vault-issue")
        self._places = asyncio.Semaphore(issue_concurrency)
        self._lane_width = max(1, issue_concurrency // 2)
        self._lanes: dict[str, asyncio.Semaphore] = {}
        # Wider than one lane (lanes.py), so that one that hangs doesn't hold up the others.
        self._revoke = ThreadPoolExecutor(2 * revoke_concurrency, "vault-revoke")

    async def as_task(
        self,
        token: Secret,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        lane: str,
    ) -> dict[str, Any]:
        """Call with a task's own token. A ``lane`` that hangs takes half of the places at most."""
        gate = self._lanes.setdefault(lane, asyncio.Semaphore(self._lane_width))
        async with self._turn(gate, path):
            return await self._run(self._issue, token.reveal(), method, path, body)

    async def as_holder(
        self, token: Secret, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Call with a token that somebody has brought, or without any if it is empty."""
        return await self._run(self._issue, token.reveal(), method, path, body)

    async def as_broker(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        revoking: bool = False,
        wrap_s: int = 0,
    ) -> dict[str, Any]:
        """Call as the broker; a dead token of the broker's own is replaced once.

        With ``wrap_s`` the answer comes in a wrapping token that lives for so many seconds.
        """
        pool = self._revoke if revoking else self._issue
        token = await self._own_token()
        try:
            return await self._run(pool, token.reveal(), method, path, body, wrap_s)
        except VaultForbidden:
            if not await self._is_dead(token):
                raise
            if self._own is not None and self._own[0] is token:  # nobody has replaced it yet
                self._own = None
            token = await self._own_token()
            return await self._run(pool, token.reveal(), method, path, body, wrap_s)

    async def health(self) -> dict[str, Any]:
        """Return ``sys/health``, whatever state the server says it is in."""
        query = "?standbyok=true&sealedcode=200&uninitcode=200&perfstandbyok=true"
        return await self._run(self._issue, "", "get", f"sys/health{query}", None)

    async def rights(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Return what the broker's own token may do on each path (``sys/capabilities-self``)."""
        answer = await self.as_broker("post", "sys/capabilities-self", {"paths": list(paths)})
        return {path: list(answer["data"][path]) for path in paths}

    async def server_date(self) -> str:
        """Return the server's Date header, or an empty string."""

        def ask() -> str:
            with _mapped_errors("get", "sys/health"):
                base = self._base
                answer = self._session.get(
                    f"{base['base_uri']}/v1/sys/health?standbyok=true", timeout=base["timeout"]
                )
            return answer.headers.get("Date", "")

        return await asyncio.get_running_loop().run_in_executor(self._issue, ask)

    async def _is_dead(self, token: Secret) -> bool:
        try:
            await self._run(self._issue, token.reveal(), "get", "auth/token/lookup-self", None)
        except VaultForbidden:
            return True
        return False

    async def _own_token(self) -> Secret:
        if self._login.kind == "token_file":
            return Secret(self._proof()["token"])
        async with self._login_lock:
            if self._own is not None and self._clock.monotonic() < self._own[1]:
                return self._own[0]
            answer = await self._run(
                self._issue,
                "",
                "post",
                f"auth/{self._login.mount}/login",
                self._proof(),
            )
            lifetime = answer["auth"]["lease_duration"] or 3600
            token = Secret(answer["auth"]["client_token"])
            self._own = (token, self._clock.monotonic() + lifetime * 2 / 3)
            return token

    def _proof(self) -> Mapping[str, str]:
        try:
            return self._login.body()
        except ConfigError as error:
            msg = "the broker can't log in to Vault: run `broker doctor`"
            raise BackendRefused(msg, retry_after=_RETRY_AFTER) from error

    async def _run(
        self,
        pool: ThreadPoolExecutor,
        token: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        wrap_s: int = 0,
    ) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        place = contextlib.nullcontext()
        if pool is not self._revoke:
            place = self._turn(self._places, path)
        async with place:
            with self._span(method, path):
                headers = tracing.headers() | (_wrapped(wrap_s) if wrap_s else {})
                words = token, method, path, body, headers
                return await loop.run_in_executor(pool, self._call, *words)

    def _span(self, method: str, path: str) -> contextlib.AbstractContextManager[None]:
        """Have a call as a span. Nothing is in its path but names and prefixes."""
        about = tracing.of_method(method.upper()) | self._where
        about["url.path"] = f"/v1/{path.partition('?')[0]}"
        return tracing.span(method.upper(), about, client=True, fine=VaultGone)

    @contextlib.asynccontextmanager
    async def _turn(self, gate: asyncio.Semaphore, path: str) -> AsyncGenerator[None]:
        """Wait for a place, but no longer than a call may take.

        What comes too late would be minted for a grant that was given up meanwhile.
        """
        try:
            async with asyncio.timeout(self._base["timeout"]):
                await gate.acquire()
        except TimeoutError as error:
            msg = f"Vault {path.partition('?')[0]}: too many calls under way"
            raise BackendRefused(msg, retry_after=_RETRY_AFTER) from error
        try:
            yield
        finally:
            gate.release()

    def _call(
        self,
        token: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: dict[str, str],
    ) -> dict[str, Any]:
        adapter = JSONAdapter(token=token, **self._base)
        more = {"json": body} if body else {}
        with _mapped_errors(method, path):
            answer = adapter.request(method, f"/v1/{path}", headers, **more)
        return answer if isinstance(answer, dict) else _without_json(answer, method, path)

    def close(self) -> None:
        """Close connections and threads."""
        self._issue.shutdown(wait=False, cancel_futures=True)
        self._revoke.shutdown(wait=False, cancel_futures=True)
        self._session.close()


@contextlib.contextmanager
def _mapped_errors(method: str, path: str) -> Any:  # noqa: ANN401, C901
    """Sort failures into: it did nothing, and nobody knows what it did."""
    what = f"Vault {method.upper()} {path.partition('?')[0]}"
    try:
        yield
    except vault_errors.InvalidPath as error:
        if not _vaults_own(error):
            # Of what is in Vault's place, a proxy with nothing behind it: it knows of no lease.
            raise BackendUnavailable(
                f"{what}: 404, and not from Vault", retry_after=_RETRY_AFTER
            ) from error
        raise VaultGone(f"{what}: 404") from error
    except vault_errors.Forbidden as error:
        if "invalid accessor" in _text(error):  # what HashiCorp Vault answers; OpenBao says 400
            raise VaultGone(f"{what}: gone") from error
        raise VaultForbidden(f"{what}: 403 permission denied") from error
    except vault_errors.InvalidRequest as error:
        if any(gone in _text(error) for gone in _GONE):
            raise VaultGone(f"{what}: gone") from error
        if any(sign in _text(error).lower() for sign in _UNREACHABLE):
            msg = f"{what}: Vault can't reach what the credential is for"
            raise BackendRefused(msg, retry_after=_RETRY_AFTER) from error
        raise VaultDeclined(f"{what}: 400 bad request") from error
    except vault_errors.VaultDown as error:
        raise BackendDown(f"{what}: sealed or standby", retry_after=_RETRY_AFTER) from error
    except (vault_errors.Unauthorized, vault_errors.RateLimitExceeded) as error:
        raise BackendRefused(f"{what}: {type(error).__name__}", retry_after=_RETRY_AFTER) from error
    except requests.exceptions.ConnectionError as error:
        if _never_sent(error):
            raise BackendDown(f"{what}: no connection", retry_after=_RETRY_AFTER) from error
        raise BackendUnavailable(f"{what}: connection lost", retry_after=_RETRY_AFTER) from error
    except (vault_errors.VaultError, requests.exceptions.RequestException, ValueError) as error:
        raise BackendUnavailable(
            f"{what}: {type(error).__name__}", retry_after=_RETRY_AFTER
        ) from error


def _without_json(answer: requests.Response, method: str, path: str) -> dict[str, Any]:
    """Return the nothing that Vault says when there is nothing to say.

    Raises:
        BackendDown: a standby that knows no leader to pass it on to; it has done nothing.
        BackendUnavailable: of what is in Vault's place.
    """
    what = f"Vault {method.upper()} {path.partition('?')[0]}"
    if answer.is_redirect:
        raise BackendDown(f"{what}: standby without a leader", retry_after=_RETRY_AFTER)
    if answer.content:
        raise BackendUnavailable(
            f"{what}: {answer.status_code}, and not from Vault", retry_after=_RETRY_AFTER
        )
    return {}


def _wrapped(seconds: int) -> dict[str, str]:
    return {"X-Vault-Wrap-TTL": f"{seconds}s"}


def _vaults_own(error: vault_errors.VaultError) -> bool:
    """Whether an answer is Vault's by its shape: errors, or an envelope that says what is gone."""
    said: Any = error.json  # hvac says that it is text
    return isinstance(said, dict) and ("errors" in said or "request_id" in said)


def _text(error: vault_errors.VaultError) -> str:
    return " ".join(map(str, error.errors or ()))


def _never_sent(error: requests.exceptions.ConnectionError) -> bool:
    """Whether the connection was never made, so that Vault can't have acted on the request."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, (NewConnectionError, ConnectTimeoutError))


async def vault_state(vault: VaultApi) -> str:
    """Say in a word how Vault is."""
    try:
        health = await vault.health()
    except BrokerError as error:
        return error.detail
    if not health.get("initialized"):
        return "not initialised"
    return "sealed" if health.get("sealed") else "ok"
