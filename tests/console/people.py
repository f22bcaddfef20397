"""A broker with a console, its identity provider, and people with browsers."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx2
import tomli_w

from broker.clock import SystemClock
from broker.config import parse_config
from broker.dev.config import FILE
from broker.dev.link import console_link
from tests.console.provider import CLIENT, SECRET, Provider
from tests.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

ROLES: Final = {
    "viewer": ["staff"],
    "approver": ["approvers"],
    "operator": ["ops"],
    "auditor": ["audit"],
}
GROUPS: Final = {role: groups[0] for role, groups in ROLES.items()}
_CSRF: Final = re.compile(r'name="csrf" value="([0-9a-f]{64})"')


def console_config(
    stack: DevStack,
    provider: Provider,
    folder: Path,
    *,
    path: str = "",
    document: dict[str, Any] | None = None,
    **section: Any,
) -> Config:
    """The dev configuration, or another, with an identity provider and people.

    ``path`` is one of the issuer's.
    """
    document = document or tomllib.loads((stack.data / FILE).read_text("utf-8"))
    document["broker"]["issuer"] += path
    document["identity"]["issuers"].append(
        {
            "name": "corp",
            "issuer": provider.url,
            "audience": "broker",
            "discovery": True,
            "algorithms": ["ES256"],
        }
    )
    for name, role in (("alice", "operator"), ("olga", "operator"), ("audrey", "auditor")):
        document["principals"].append(
            {
                "name": name,
                "role": role,
                "owner": f"{name}@example.com",
                "identity": {"issuer": "corp", "subject": f"u-{name}"},
            }
        )
    secret = folder / "client-secret"
    secret.write_text(SECRET)
    document["console"] = {
        "link_issuer": "dev",
        "issuer": "corp",
        "client_id": CLIENT,
        "client_secret_file": str(secret),
        "roles": ROLES,
        **section,
    }
    document["console"] = {k: v for k, v in document["console"].items() if v is not None}
    return parse_config(tomli_w.dumps(document), stack.data / FILE)


class ConsoleWorld(World):
    """A replica and the people in front of it."""

    def __init__(self, stack: DevStack, config: Config, provider: Provider) -> None:
        super().__init__(stack.issuer, config)
        self.stack = stack
        self.provider = provider
        self.base = f"{urlsplit(config.broker.issuer).path}/console"
        provider.redirect_uris = [f"{config.broker.issuer}/console/sign-in/callback"]

    def browser(self) -> Browser:
        return Browser(self)

    async def signed_in(self, subject: str = "alice", *groups: str) -> Browser:
        """A browser whose person has signed in at the provider."""
        browser = self.browser()
        answer = await browser.sign_in(subject, *groups)
        assert answer.status_code == 303, answer.text
        return browser

    async def logged(self, kind: str) -> list[dict[str, Any]]:
        """What the log says of a type of events: what each says, and who did it."""
        path = f"/v1/audit/events?type={kind}&limit=500"
        found = (await self.call("operator", "GET", path)).json()["items"]
        return [{"by": row["principal"], **row["data"]} for row in found]

    def link(self, name: str = "operator") -> str:
        """A one-time link, as `broker dev console` makes it."""
        made = console_link(name, self.stack.data, SystemClock())
        return self.base + made.partition("/console")[2]


EVIL: Final = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
"""What an agent or an operator may write where it is shown."""


def assert_text(page: str, times: int = 1) -> None:
    """Fail unless it is shown, as text."""
    assert page.count("&lt;img src=x onerror=") >= times, page
    assert "<img src=x" not in page
    assert "<script>" not in page


class Browser:
    """Keeps cookies and says where it comes from, as browsers do. It follows no redirect."""

    def __init__(self, world: ConsoleWorld) -> None:
        self._world = world
        issuer = urlsplit(world.config.broker.issuer)
        self.origin = f"{issuer.scheme}://{issuer.netloc}"
        self.base = world.base
        # By https: Python's cookie jar sends Secure cookies nowhere else.
        self.http = httpx2.AsyncClient(
            transport=world.http._transport,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the one into the broker
            base_url=f"https://{issuer.netloc}",
        )

    @property
    def cookies(self) -> dict[str, str]:
        return {c.name: c.value or "" for c in self.http.cookies.jar}

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        """Open a page of the console."""
        return await self.http.get(self.base + path, headers=headers)

    async def post(
        self, path: str, form: dict[str, str] | None = None, **headers: str | None
    ) -> httpx2.Response:
        """Send a form; a header of None is left out."""
        said = {"origin": self.origin, "sec-fetch-site": "same-origin", **_named(headers)}
        there = {name: value for name, value in said.items() if value is not None}
        return await self.http.post(self.base + path, data=form or {}, headers=there)

    async def csrf(self) -> str:
        """The token of this browser's forms."""
        found = _CSRF.search((await self.get("/")).text)
        assert found
        return found[1]

    async def submit(self, path: str, form: dict[str, str] | None = None) -> httpx2.Response:
        """Send a form with its token."""
        return await self.post(path, {"csrf": await self.csrf(), **(form or {})})

    async def begin(self, query: str = "") -> str:
        """Go to the provider; returns where it sends the browser back to."""
        answer = await self.get(f"/sign-in/start{query}")
        assert answer.status_code == 303, answer.text
        async with httpx2.AsyncClient() as outside:
            sent = await outside.get(answer.headers["location"])
        assert sent.status_code == 302, sent.text
        return sent.headers["location"].removeprefix(self.origin + self.base)

    async def sign_in(
        self, subject: str = "alice", *groups: str, query: str = ""
    ) -> httpx2.Response:
        provider = self._world.provider
        provider.subject, provider.groups = f"u-{subject}", list(groups or ("ops",))
        return await self.get(await self.begin(query))

    async def close(self) -> None:
        await self.http.aclose()


def _named(headers: dict[str, str | None]) -> dict[str, str | None]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
