"""Every route of the console, by every role and by every wrong way to send it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount

import broker.console
from broker.console.rights import Right
from broker.console.routing import NEED, OPEN
from tests.console.people import GROUPS
from tests.keys_check import assert_no_immortal_keys

if TYPE_CHECKING:
    from tests.console.people import ConsoleWorld

ROUTES: Final[dict[tuple[str, str], str]] = {
    ("GET", "/"): Right.READ,
    ("GET", "/now/events"): Right.READ,
    ("GET", "/tasks"): Right.READ,
    ("GET", "/tasks/{task_id}"): Right.READ,
    ("GET", "/grants/{grant_id}"): Right.READ,
    ("POST", "/grants/{grant_id}/retry"): Right.OPERATE,
    ("GET", "/approvals"): Right.READ,
    ("GET", "/approvals/{approval_id}"): Right.READ,
    ("POST", "/approvals/{approval_id}/approve"): Right.APPROVE,
    ("POST", "/approvals/{approval_id}/deny"): Right.APPROVE,
    ("GET", "/revoke"): Right.OPERATE,
    ("GET", "/revoke/preview"): Right.OPERATE,
    ("GET", "/revoke/all"): Right.OPERATE,
    ("POST", "/revoke"): Right.OPERATE,
    ("POST", "/revoke/all"): Right.OPERATE,
    ("GET", "/revoke/progress"): Right.OPERATE,
    ("GET", "/revoke/progress/events"): Right.OPERATE,
    ("POST", "/freeze"): Right.OPERATE,
    ("POST", "/thaw"): Right.OPERATE,
    ("GET", "/agents"): Right.READ,
    ("GET", "/agents/{name}"): Right.READ,
    ("POST", "/agents/{name}/suspend"): Right.OPERATE,
    ("POST", "/agents/{name}/resume"): Right.OPERATE,
    ("POST", "/agents/{name}/retire"): Right.OPERATE,
    ("POST", "/agents/{name}/review"): Right.OPERATE,
    ("GET", "/owners"): Right.READ,
    ("GET", "/owners/one"): Right.READ,
    ("POST", "/owners/hand-over"): Right.OPERATE,
    ("POST", "/owners/retire"): Right.OPERATE,
    ("POST", "/owners/reinstate"): Right.OPERATE,
    ("GET", "/audit"): Right.AUDIT,
    ("GET", "/audit/events/{event_id}"): Right.AUDIT,
    ("GET", "/audit/log"): Right.AUDIT,
    ("POST", "/audit/verify"): Right.AUDIT,
    ("GET", "/audit/export"): Right.AUDIT,
    ("GET", "/policy"): Right.READ,
    ("GET", "/policy/who-can"): Right.READ,
    ("GET", "/policy/decisions"): Right.AUDIT,
    ("GET", "/policy/dry-run"): Right.READ,
    ("POST", "/policy/dry-run"): Right.READ,
    ("GET", "/reviews"): Right.AUDIT,
    ("GET", "/reviews/{elevation_id}"): Right.AUDIT,
    ("GET", "/reviews/{elevation_id}/close"): Right.OPERATE,
    ("POST", "/reviews/{elevation_id}/close"): Right.OPERATE,
    ("POST", "/sign-out"): Right.READ,
    ("POST", "/theme"): Right.READ,
    ("GET", "/sign-in"): OPEN,
    ("GET", "/sign-in/start"): OPEN,
    ("GET", "/sign-in/callback"): OPEN,
    ("GET", "/sign-in/link"): OPEN,
    ("POST", "/sign-in/link"): OPEN,
    ("GET", "/signed-out"): OPEN,
    ("GET", "/assets/{version}/{name}"): OPEN,
}
"""What each route needs. One that isn't here fails the tests: say who may use it."""

PEOPLE: Final[dict[str, tuple[str, set[Right]]]] = {
    "viewer": ("vera", {Right.READ}),
    "approver": ("alice", {Right.READ, Right.APPROVE}),
    "operator": ("alice", set(Right)),
    "auditor": ("audrey", {Right.READ, Right.AUDIT}),
}


def routes(world: ConsoleWorld) -> dict[tuple[str, str], str]:
    mounts = [route for route in world.app.http().routes if isinstance(route, Mount)]
    (mount,) = [route for route in mounts if route.name == "console"]
    found: dict[tuple[str, str], str] = {}
    for route in mount.routes:
        assert isinstance(route, APIRoute), f"{route}: add it by Pages"
        assert route.openapi_extra is not None
        (method,) = route.methods or ("none",)
        found[method, route.path] = route.openapi_extra[NEED]
    return found


async def test_every_route_says_what_it_needs(console: ConsoleWorld) -> None:
    assert routes(console) == ROUTES


@pytest.mark.parametrize("role", PEOPLE)
async def test_roles_open_what_they_may_and_nothing_else(console: ConsoleWorld, role: str) -> None:
    name, rights = PEOPLE[role]
    browser = await console.signed_in(name, GROUPS[role])
    token = await browser.csrf()
    for (method, path), needs in ROUTES.items():
        if needs == OPEN or path in ("/sign-out", "/now/events"):
            continue
        url = re.sub(r"\{[a-z_]+\}", "x", path)
        answer = (
            await browser.get(url) if method == "GET" else await browser.post(url, {"csrf": token})
        )
        refused = answer.status_code == 403
        assert refused == (needs not in rights), f"{role} {method} {path}: {answer.status_code}"


async def test_nobody_signed_in_opens_nothing(console: ConsoleWorld) -> None:
    browser = console.browser()
    for (method, path), needs in ROUTES.items():
        if needs == OPEN:
            continue
        url = re.sub(r"\{[a-z_]+\}", "x", path)
        answer = await browser.get(url) if method == "GET" else await browser.post(url)
        assert answer.status_code == (303 if method == "GET" else 401), f"{method} {path}"
        assert "live" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example", "sec_fetch_site": "cross-site"},
        {"origin": "https://evil.example", "sec_fetch_site": None},
        {"origin": "null", "sec_fetch_site": None},
        {"origin": None, "sec_fetch_site": None},
        {"origin": None, "sec_fetch_site": "same-site"},
        {"origin": None, "sec_fetch_site": "none"},
        {"sec_fetch_site": "cross-site"},
    ],
    ids=str,
)
async def test_another_site_sends_nothing(
    console: ConsoleWorld, headers: dict[str, str | None]
) -> None:
    browser = await console.signed_in()
    token = await browser.csrf()
    for method, path in ROUTES:
        if method == "POST":
            answer = await browser.post(path, {"csrf": token}, **headers)
            assert answer.status_code == 403, path
    assert (await browser.get("/")).status_code == 200


async def test_a_form_carries_the_token_of_its_session(console: ConsoleWorld) -> None:
    browser, other = await console.signed_in(), await console.signed_in("olga")
    foreign = await other.csrf()
    for form in ({"theme": "dark"}, {"csrf": ""}, {"csrf": foreign}, {"csrf": "é"}):
        for (method, path), needs in ROUTES.items():
            if method == "POST" and needs != OPEN:
                assert (await browser.post(path, form)).status_code == 403, path
    assert (await browser.get("/")).status_code == 200


async def test_a_form_is_one(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    token = await browser.csrf()
    said = {"origin": browser.origin, "sec-fetch-site": "same-origin"}
    for kind, body in (
        ("application/json", b"{}"),
        ("text/plain", f"csrf={token}".encode()),
        ("application/x-www-form-urlencoded", f"csrf={token}&csrf={token}".encode()),
        ("application/x-www-form-urlencoded", b"\xff"),
    ):
        answer = await browser.http.post(
            f"{browser.base}/theme", content=body, headers={**said, "content-type": kind}
        )
        assert answer.status_code == 400, kind


async def test_every_answer_has_the_headers(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    for path in ("/", "/nothing", "/sign-in", "/sign-in/link", "/assets/x/console.css"):
        answer = await browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
    page = (await browser.get("/")).text
    for name in re.findall(r'(?:src|href)="(/console/assets/[^"]+)"', page):
        kept = await browser.get(name.removeprefix("/console"))
        assert kept.status_code == 200
        assert "immutable" in kept.headers["cache-control"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son[a-z]+=|style=|javascript:", page)


BUILT: Final = ("{{ way_out }}", "{{ sign_in }}")
"""Links made in code: out of the provider, the one that isn't the console's own; and to sign in."""
TEMPLATES: Final = sorted((Path(broker.console.__file__).parent / "templates").glob("*.html"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_a_template_escapes_and_has_nothing_inline(template: Path) -> None:
    text = template.read_text("utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son[a-z]+=|\sstyle=|javascript:", text)
    links = re.findall(r'(?:href|src|action|formaction)="([^"]*)', text)
    assert all(link.startswith(("{{ base }}", "{{ asset(", "#", *BUILT)) for link in links), links
    for form in re.findall(r'(?s)<form method="post".*?</form>', text):
        # Whoever uses a link has no session yet: its own token is good once, and the origin counts.
        assert "m.csrf()" in form or template.name == "link.html"


async def test_what_is_not_there_is_a_page(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    answer = await browser.get("/nothing")
    assert (answer.status_code, "There is no such page" in answer.text) == (404, True)
    answer = await browser.http.delete(f"{browser.base}/theme")
    assert answer.status_code == 405
    assert (await browser.get("/?a=1&a=2")).status_code == 400
    assert (await browser.get("/assets/x/..%2fapp.py")).status_code == 404


async def test_a_viewer_without_a_principal_acts_in_nobodys_name(console: ConsoleWorld) -> None:
    browser = await console.signed_in("vera", "ops")
    page = await browser.get("/")
    assert "nobody: reads only" in page.text
    assert "operate" not in page.text.partition("<main")[0]


async def test_what_is_kept_of_sessions_expires(console: ConsoleWorld) -> None:
    await console.signed_in()
    await (await console.signed_in()).submit("/sign-out", {"everywhere": "yes"})
    await console.signed_in()
    kinds = {key.split(":")[2] for key in await assert_no_immortal_keys(console)}
    assert kinds >= {"session", "signedout"}
