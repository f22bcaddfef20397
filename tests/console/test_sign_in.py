"""Signing in: by the provider, by a link; and everything that must not get anybody in."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.console.people import EVIL, ConsoleWorld, assert_text, console_config
from tests.issuers import IssuerKey

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.console.provider import Provider

OTHER_KEY = IssuerKey.new("ES256", "idp-1")
SESSION = "__Host-broker-session"


async def test_a_page_leads_to_the_sign_in_and_back(console: ConsoleWorld) -> None:
    browser = console.browser()
    first = await browser.get("/?done=x")
    assert first.status_code == 303
    assert first.headers["location"] == "/console/sign-in?return_to=/console/%3Fdone%3Dx"
    page = await browser.get("/sign-in?return_to=/console/%3Fdone%3Dx")
    assert page.status_code == 200
    assert "Sign in with corp" in page.text
    answer = await browser.sign_in(query="?return_to=/console/%3Fdone%3Dx")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/?done=x")
    assert (await browser.get("/")).status_code == 200


async def test_the_provider_is_asked_as_it_must_be(console: ConsoleWorld) -> None:
    await console.signed_in()
    asked = console.provider.asked[0]
    assert asked["scope"] == "openid profile"
    assert {"state", "nonce", "code_challenge"} <= asked.keys()
    assert len(asked["nonce"]) == len(asked["code_challenge"]) == 43
    assert len(console.provider.tokens[0]["code_verifier"]) == 43
    await console.signed_in()
    again = console.provider.asked[1]
    assert all(asked[name] != again[name] for name in ("state", "nonce", "code_challenge"))


async def test_the_cookie_is_for_this_origin_alone(console: ConsoleWorld) -> None:
    browser = console.browser()
    answer = await browser.sign_in()
    cookies = answer.headers.get_list("set-cookie")
    session = next(c for c in cookies if c.startswith(SESSION))
    assert "; HttpOnly" in session
    assert "; Secure" in session
    assert "; Path=/;" in session
    assert "SameSite=lax" in session
    assert "Domain" not in session
    gone = next(c for c in cookies if c.startswith("__Host-broker-sign-in"))
    assert "Max-Age=0" in gone


async def test_nothing_in_the_ledger_opens_a_session(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    identifier = browser.cookies[SESSION]
    keys = await console.app.connection.command("KEYS", "*")
    rows = [await console.app.connection.command("GET", key) for key in keys if b":session:" in key]
    assert len(rows) == 1
    everything = b"\n".join([*keys, *rows]).decode()
    assert identifier not in everything
    assert "canary" not in everything
    assert console.provider.tokens[0]["code_verifier"] not in everything
    assert "eyJ" not in everything


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"nonce": "another"}, "claim"),
        ({"nonce": None}, "claim"),
        ({"aud": "broker"}, "another audience"),
        ({"aud": ["broker-console", "other"]}, "claim"),
        ({"aud": ["broker-console", "other"], "azp": "other"}, "claim"),
        ({"azp": "other"}, "claim"),
        ({"iss": "https://elsewhere.example"}, "another issuer"),
        ({"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200}, "expired"),
        ({"exp": None}, "no exp"),
        ({"iat": int(time.time()) + 3600, "exp": int(time.time()) + 7200}, "future"),
        ({"at_hash": "AAAA"}, "claim"),
        ({"sub": None}, "sub"),
    ],
    ids=range(12),  # not by the times: each worker has to call them the same
)
async def test_an_id_token_that_is_wrong_in_one_way(
    console: ConsoleWorld, claims: dict[str, Any], words: str
) -> None:
    # The times are of when the tests were collected: far enough from now either way.
    console.provider.claims = claims
    browser = console.browser()
    answer = await browser.sign_in()
    assert answer.status_code == 403, answer.text
    assert words in answer.text
    assert SESSION not in browser.cookies


async def test_an_id_token_that_somebody_else_signed(console: ConsoleWorld) -> None:
    console.provider.signed_by = OTHER_KEY
    assert (await console.browser().sign_in()).status_code == 403


async def test_an_answer_is_good_in_the_browser_that_asked(console: ConsoleWorld) -> None:
    """Else somebody could be signed in as another, and work in their name without knowing."""
    attacker, victim = console.browser(), console.browser()
    console.provider.subject = "u-alice"
    back = await attacker.begin()
    answer = await victim.get(back)
    assert answer.status_code == 403
    assert SESSION not in victim.cookies
    await victim.begin()  # a sign-in of their own under way doesn't help
    assert (await victim.get(back)).status_code == 403
    assert (await attacker.get(back)).status_code == 303


async def test_an_answer_is_good_once(console: ConsoleWorld) -> None:
    browser = console.browser()
    await browser.get("/sign-in/start")
    secret = browser.cookies["__Host-broker-sign-in"]
    back = await browser.begin()
    secret = browser.cookies["__Host-broker-sign-in"]
    assert (await browser.get(back)).status_code == 303
    browser.http.cookies.set("__Host-broker-sign-in", secret)
    assert (await browser.get(back)).status_code == 403


@pytest.mark.parametrize("change", ["state=x", "iss=https%3A%2F%2Fother.example", "state=.&x=1"])
async def test_an_answer_that_was_changed(console: ConsoleWorld, change: str) -> None:
    browser = console.browser()
    back = await browser.begin()
    name = change.partition("=")[0]
    query = parse_qs(urlsplit(back).query)
    kept = "&".join(f"{k}={quote(v[0])}" for k, v in query.items() if k != name)
    assert (await browser.get(f"/sign-in/callback?{kept}&{change}")).status_code == 403


async def test_an_answer_without_a_code(console: ConsoleWorld) -> None:
    browser = console.browser()
    state = parse_qs(urlsplit(await browser.begin()).query)["state"][0]
    answer = await browser.get(f"/sign-in/callback?error=access_denied&state={quote(state)}")
    assert answer.status_code == 403
    answer = await browser.get("/sign-in/callback")
    assert answer.status_code == 403


async def test_the_id_is_a_new_one_at_each_sign_in(console: ConsoleWorld) -> None:
    browser = console.browser()
    browser.http.cookies.set(SESSION, "planted-by-somebody-else")
    await browser.sign_in()
    first = browser.cookies[SESSION]
    assert first != "planted-by-somebody-else"
    await browser.sign_in()
    assert browser.cookies[SESSION] != first
    old = console.browser()
    old.http.cookies.set(SESSION, first)
    assert (await old.get("/")).status_code == 303


@pytest.mark.parametrize(
    "way",
    [
        "https://evil.example/",
        "//evil.example/console/",
        "/\\evil.example",
        "/console//evil.example",
        "/console/..//evil.example",
        "/console/../v1/tasks",
        "/console/%2e%2e/v1/tasks",
        "/consolex",
        "/console@evil.example/",
        "/console/\tx",
        "javascript:alert(1)",
        "",
    ],
)
async def test_no_way_back_leads_out_of_the_console(console: ConsoleWorld, way: str) -> None:
    browser = console.browser()
    answer = await browser.sign_in(query=f"?return_to={quote(way)}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    page = await browser.get(f"/sign-in?return_to={quote(way)}")
    assert "evil" not in page.text


async def test_the_theme_form_leads_nowhere_else_either(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    for way in ("https://evil.example/", "//evil.example", "/\\evil.example", "/v1/tasks"):
        answer = await browser.submit("/theme", {"theme": "dark", "return_to": way})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/"), way
    answer = await browser.submit("/theme", {"theme": "dark", "return_to": "/console/tasks"})
    assert answer.headers["location"] == "/console/tasks"


async def test_what_the_provider_calls_somebody_is_text(console: ConsoleWorld) -> None:
    """People write their own names there; a name gives nobody another's rights."""
    console.provider.claims = {"name": EVIL, "preferred_username": EVIL}
    browser = await console.signed_in()
    page = (await browser.get("/")).text
    assert_text(page)
    assert "<dd>alice</dd>" in page
    for odd in ("operator\u202e", "a\nb", "", 7, ["x"], {"x": 1}, "x" * 5000):
        console.provider.claims = {"name": odd}
        browser = await console.signed_in("audrey", "audit")
        page = (await browser.get("/")).text
        assert "\u202e" not in page
        assert "x" * 200 not in page
        assert "<dd>audrey</dd>" in page


async def test_groups_without_a_role_get_nobody_in(console: ConsoleWorld) -> None:
    browser = console.browser()
    for groups in (["strangers"], []):
        console.provider.groups = groups
        answer = await browser.get(await browser.begin())
        assert answer.status_code == 403
        assert "groups" in answer.text
    for odd in ({"ops": True}, 7, [["ops"]], None):
        console.provider.groups = odd
        assert (await browser.get(await browser.begin())).status_code == 403
    assert SESSION not in browser.cookies


async def test_signing_out_ends_the_session_here(console: ConsoleWorld) -> None:
    here, there = await console.signed_in(), await console.signed_in()
    kept = here.cookies[SESSION]
    answer = await here.submit("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/signed-out")
    assert SESSION not in here.cookies
    here.http.cookies.set(SESSION, kept)
    assert (await here.get("/")).status_code == 303
    assert (await there.get("/")).status_code == 200
    page = await here.get("/signed-out")
    assert f"{console.provider.url}/logout?client_id=broker-console" in page.text


async def test_signing_out_everywhere(console: ConsoleWorld) -> None:
    here, there = await console.signed_in(), await console.signed_in()
    other = await console.signed_in("olga")
    await here.submit("/sign-out", {"everywhere": "yes"})
    assert (await there.get("/")).status_code == 303
    assert (await other.get("/")).status_code == 200
    await there.sign_in()
    assert (await there.get("/")).status_code == 200


async def test_who_is_suspended_is_out_at_once(console: ConsoleWorld) -> None:
    browser = await console.signed_in("olga")
    assert (await browser.get("/")).status_code == 200
    ask = {"reason": "left"}
    answer = await console.call("operator", "POST", "/v1/principals/olga/suspend", ask)
    assert answer.status_code == 200, answer.text
    assert (await browser.get("/")).status_code == 303
    answer = await browser.sign_in("olga")
    assert answer.status_code == 403
    assert "suspended" in answer.text


async def test_idle_sessions_and_old_ones_end(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path
) -> None:
    config = console_config(engines[0], provider, tmp_path, idle="10m", max_session="1h")
    world = ConsoleWorld(engines[0], config, provider)
    await world.empty()
    browser = await world.signed_in()
    key = next(k for k in await world.app.connection.command("KEYS", "*") if b":session:" in k)
    left = await world.app.connection.command("PTTL", key)
    assert 590_000 < left <= 600_000
    row = await world.app.connection.command("GET", key)

    def aged(seen_s: int, started_s: int) -> str:
        found = json.loads(row)
        found["seen_at"] -= seen_s * 1000
        found["started_at"] -= started_s * 1000
        return json.dumps(found)

    await world.app.connection.command("SET", key, aged(300, 300), "PX", 300_000)
    assert (await browser.get("/")).status_code == 200
    assert await world.app.connection.command("PTTL", key) > 590_000  # it was used
    await world.app.connection.command("SET", key, aged(0, 3590), "PX", 600_000)
    assert (await browser.get("/")).status_code == 200
    await world.app.connection.command("SET", key, aged(300, 3590), "PX", 600_000)
    assert (await browser.get("/")).status_code == 200
    assert await world.app.connection.command("PTTL", key) <= 10_000  # no longer than it may
    await world.app.connection.command("SET", key, aged(601, 700), "PX", 600_000)
    assert (await browser.get("/")).status_code == 303
    await world.app.connection.command("SET", key, aged(0, 3601), "PX", 600_000)
    assert (await browser.get("/")).status_code == 303
    await world.close()


async def test_a_link_signs_in_once(console: ConsoleWorld) -> None:
    browser = console.browser()
    link = console.link().removeprefix("/console")
    page = await browser.get(link)
    assert page.status_code == 200
    assert SESSION not in browser.cookies  # opened, and not used
    token = parse_qs(urlsplit(link).query)["token"][0]
    answer = await browser.post("/sign-in/link", {"token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    assert "operator" in (await browser.get("/")).text
    other = console.browser()
    answer = await other.post("/sign-in/link", {"token": token})
    assert answer.status_code == 403
    assert "was used" in answer.text


async def test_what_is_no_link(console: ConsoleWorld) -> None:
    browser = console.browser()
    audience = f"{console.config.broker.issuer}/console"
    for token in (
        "",
        "x",
        console.identity("operator"),  # a workload's token, for the broker
        console.issuer.token("agent/report-writer", ttl_s=60, audience=audience).reveal(),
        console.issuer.token("operator/operator", ttl_s=3600, audience=audience).reveal(),
        console.issuer.token("operator/operator", ttl_s=-60, audience=audience).reveal(),
        await console.token("operator"),
    ):
        answer = await browser.post("/sign-in/link", {"token": token})
        assert answer.status_code == 403, token
    assert SESSION not in browser.cookies


async def test_a_link_is_for_the_console_and_nothing_else(console: ConsoleWorld) -> None:
    token = parse_qs(urlsplit(console.link()).query)["token"][0]
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }
    assert (await console.http.post("/oauth/token", data=form)).status_code == 400


async def test_another_site_cannot_sign_somebody_in(console: ConsoleWorld) -> None:
    token = parse_qs(urlsplit(console.link()).query)["token"][0]
    browser = console.browser()
    answer = await browser.post(
        "/sign-in/link",
        {"token": token},
        origin="https://evil.example",
        sec_fetch_site="cross-site",
    )
    assert answer.status_code == 403
    assert SESSION not in browser.cookies


async def test_a_fresh_sign_in_has_to_be_one(console: ConsoleWorld) -> None:
    browser = await console.signed_in()
    before = browser.cookies[SESSION]
    answer = await browser.sign_in(query="?fresh=yes")
    assert answer.status_code == 303
    asked = console.provider.asked[-1]
    assert (asked["prompt"], asked["max_age"]) == ("login", "0")
    assert browser.cookies[SESSION] != before
    for at in (int(time.time()) - 3600, None, "now", True):
        console.provider.claims = {"auth_time": at}
        assert (await browser.sign_in(query="?fresh=yes")).status_code == 403


async def test_a_provider_that_is_down_or_lies(console: ConsoleWorld) -> None:
    browser = console.browser()
    console.provider.metadata = {"issuer": "https://elsewhere.example"}
    assert (await browser.get("/sign-in/start")).status_code == 503
    console.provider.metadata = {"authorization_endpoint": "http://elsewhere.example/"}
    assert (await browser.get("/sign-in/start")).status_code == 503
    assert (await browser.get("/sign-in")).status_code == 200


async def test_below_the_path_of_the_issuer(
    engines: tuple[DevStack, Config], provider: Provider, tmp_path: Path
) -> None:
    config = console_config(engines[0], provider, tmp_path, path="/broker")
    world = ConsoleWorld(engines[0], config, provider)
    await world.empty()
    browser = world.browser()
    first = await browser.get("/")
    assert first.headers["location"].startswith(
        "/broker/console/sign-in?return_to=/broker/console/"
    )
    assert (await browser.sign_in()).headers["location"] == "/broker/console/"
    page = await browser.get("/")
    assert page.status_code == 200
    assert 'href="/console' not in page.text
    await world.close()
