"""What the client takes from the environment: where the broker is, who is calling, by which key.

Read here with ``os.environ`` and not with pydantic-settings, which takes longer to import than all
of the client.

The identity is that of the first of these that is there, and of no other: where it fails, the next
one isn't tried, since that may well be somebody else.

1. what the program gives as ``identity``;
2. ``BROKER_IDENTITY_TOKEN_FILE``, read anew each time;
3. ``BROKER_IDENTITY_TOKEN``, as for GitLab's ``id_tokens``;
4. ``BROKER_IDENTITY_COMMAND``;
5. ``SPIFFE_ENDPOINT_SOCKET``: the SPIFFE Workload API;
6. ``ACTIONS_ID_TOKEN_REQUEST_URL`` and ``…_TOKEN``: GitHub Actions;
7. the file ``/var/run/secrets/tokens/broker``: a projected volume of Kubernetes. Never the token
   of the service account itself, which is for the API server;
8. the login of a person at this broker: ``broker login``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.client.errors import InvalidRequest
from broker.client.identity import fixed, token_file
from broker.client.reasons import IdentityMissing
from broker.client.tls import Tls
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.client.identity import Identity
    from broker.clock import Clock

DEFAULT_URL: Final = "http://127.0.0.1:8700"
URL: Final = "BROKER_URL"
TASK_ID: Final = "BROKER_TASK_ID"
AUDIENCE: Final = "BROKER_AUDIENCE"
TOKEN_FILE: Final = "BROKER_IDENTITY_TOKEN_FILE"
TOKEN: Final = "BROKER_IDENTITY_TOKEN"
COMMAND: Final = "BROKER_IDENTITY_COMMAND"
AGENT: Final = "SPIFFE_ENDPOINT_SOCKET"
GITHUB_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
PROJECTED: Final = Path("/var/run/secrets/tokens/broker")
CA_FILE: Final = "BROKER_CA_FILE"
CLIENT_CERT: Final = "BROKER_CLIENT_CERT"
CLIENT_KEY: Final = "BROKER_CLIENT_KEY"
DPOP: Final = "BROKER_DPOP"
DPOP_KEY: Final = "BROKER_DPOP_KEY"

_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker is, who is calling, as whose agent, and with what of one's own.

    ``dpop`` is the file of a key, or whether to make one.
    """

    url: str
    identity: Identity
    task_id: str | None
    audience: str | None
    tls: Tls
    dpop: Path | bool


def from_environment(
    environ: Mapping[str, str] = os.environ,
    *,
    url: str | None = None,
    identity: Identity | None = None,
    clock: Clock | None = None,
    projected: Path = PROJECTED,
) -> Settings:
    """Read the settings; an empty variable counts as one that isn't set.

    ``url`` goes before that of the environment. With an ``identity`` no source is looked for.

    Raises:
        InvalidRequest: one of them can't be what it is for.
    """
    url = url or environ.get(URL) or DEFAULT_URL
    return Settings(
        url=url,
        identity=identity or find_identity(environ, url, clock=clock, projected=projected),
        task_id=environ.get(TASK_ID) or None,
        audience=environ.get(AUDIENCE) or None,
        tls=Tls(*(environ.get(name) or None for name in (CA_FILE, CLIENT_CERT, CLIENT_KEY))),
        dpop=Path(key) if (key := environ.get(DPOP_KEY)) else _flag(environ, DPOP),
    )


def find_identity(
    environ: Mapping[str, str],
    url: str = DEFAULT_URL,
    *,
    clock: Clock | None = None,
    projected: Path = PROJECTED,
) -> Identity:
    """Return the first source of an identity that is there; asks none of them yet.

    The last is the login of a person at ``url``, which is looked for when it is needed.

    Without one it is an identity that, when asked, raises ``IdentityMissing`` and says what to set.
    """
    if path := environ.get(TOKEN_FILE):
        return token_file(path)
    if token := environ.get(TOKEN):
        return fixed(token, TOKEN)
    platform = _platform(environ, clock)
    if platform is not None:
        return platform
    if projected.exists():
        return token_file(projected)
    said = _nothing_found(environ, projected)

    def logged_in() -> Secret:
        from broker.client.login import Logins  # noqa: PLC0415  seldom needed

        found = Logins(clock=clock).token(checked_url(url))
        if found is None:
            raise IdentityMissing(said)
        return found

    return logged_in


def _platform(environ: Mapping[str, str], clock: Clock | None) -> Identity | None:
    command, agent = environ.get(COMMAND), environ.get(AGENT)
    url, token = environ.get(GITHUB_URL), environ.get(GITHUB_TOKEN)
    if not (command or agent or (url and token)):
        return None
    from broker.client import platforms  # noqa: PLC0415  most callers need none of them

    if command:
        return platforms.token_command(command, clock=clock)
    if agent:
        return platforms.workload_api(agent, clock=clock)
    return platforms.github_actions(url or "", Secret(token or ""), clock=clock)


def _nothing_found(environ: Mapping[str, str], projected: Path) -> str:
    said = (
        f"No workload identity: set {TOKEN_FILE} to a file that holds a workload JWT. There is "
        f"also no {TOKEN}, {COMMAND}, {AGENT} or {GITHUB_URL}, and no file {projected}. A person "
        "runs `broker login`"
    )
    if environ.get("GITHUB_ACTIONS"):
        said += ". This job of GitHub Actions needs `permissions: { id-token: write }`"
    elif environ.get("GITLAB_CI"):
        said += f". This job of GitLab needs `id_tokens: {{ {TOKEN}: {{ aud: … }} }}`"
    elif environ.get("KUBERNETES_SERVICE_HOST"):
        said += (
            ". This pod needs a projected volume with a service account token for the broker's "
            "audience; the token it has anyway is for the API server, and isn't taken"
        )
    return said


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


def _flag(environ: Mapping[str, str], name: str) -> bool:
    value = (environ.get(name) or "").strip().lower()
    if value and value not in _YES | _NO:
        raise InvalidRequest(f"{name} is 1 or 0", code="invalid_setting")
    return value in _YES
