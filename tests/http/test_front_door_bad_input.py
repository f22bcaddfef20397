"""Every parameter of the OAuth endpoints doubled, oversized, misspelt or in another encoding.

What ``test_token_endpoint.py`` and ``test_client_authentication.py`` don't say already: all three
endpoints, and all parameters, by one table.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import pytest

from tests.http.front_door import ASSERTION
from tests.http.parties import FORM, assert_oauth_error, details
from tests.world import EXCHANGE, JWT

if TYPE_CHECKING:
    import httpx2

    from tests.http.front_door import FrontDoor

CANARY: Final = "canary7f3aCANARY"
CLIENT: Final = ("client_id", "client_secret", "client_assertion", "client_assertion_type")
ENDPOINTS: Final = {
    "/oauth/token": (
        "grant_type",
        "subject_token",
        "subject_token_type",
        "actor_token",
        "actor_token_type",
        "requested_token_type",
        "scope",
        "authorization_details",
        "resource",
        "audience",
        *CLIENT,
    ),
    "/oauth/introspect": ("token", "token_type_hint", *CLIENT),
    "/oauth/revoke": ("token", "token_type_hint", *CLIENT),
}
PLACES: Final = [(path, name) for path, names in ENDPOINTS.items() for name in names]
REPEATABLE: Final = {"resource", "audience"}
IGNORED: Final = {
    # Whatever they say, they only hint (RFC 7009 section 2.1, RFC 7662 section 2.1).
    "token_type_hint",
    # No token at all is no error.
    "token",
    # Who a token belongs to is compared with it, and nobody is named by an unknown name.
    "client_id",
}
ODD: Final = {
    "nul": b"%00",
    "control": b"a%0Ab",
    "no-utf-8": b"%FF%FE",
    "cut-utf-8": b"%E2%82",
    "surrogate": b"%ED%A0%80",
    "overlong": b"%C0%AF",
    "right-to-left": b"%E2%80%AE",
    "no-character": b"%EF%BF%BF",
    "raw-bytes": b"\xff\xfe",
    "raw-utf-8": "\u00fc".encode(),
    "raw-nul": b"\0",
    "lone-percent": b"%",
    "half-escape": b"%A",
    "no-escape": b"%GG",
    "twice-escaped": b"%2541",
    "plus": b"+",
    "json-null": b"null",
    "json-object": b"%7B%22a%22%3A1%7D",
    "json-deep": b"%5B" * 3000,
    "digits": b"9" * 5000,
    "long": b"x" * 60_000,
    "dots": b"." * 20_000,
    "quotes": b"%22%5C%22",
    "html": b"%3Cscript%3E",
    "ldap": b"%24%7Bjndi%3Aldap%3A%2F%2Fx%7D",
    "template": b"%7B%7B7*7%7D%7D",
    "redis": b"%0D%0AFLUSHALL%0D%0A",
}


async def good_form(door: FrontDoor, path: str) -> dict[str, Any]:
    """A request that is answered, with every parameter that can be in it at once."""
    if path == "/oauth/token":
        return {
            "grant_type": EXCHANGE,
            "subject_token": door.identity("operator"),
            "subject_token_type": JWT,
            "resource": door.config.broker.issuer,
            "scope": "operator",
        }
    return {"token": "x", "token_type_hint": "access_token", **door.as_client("gateway")}


async def send(
    door: FrontDoor, path: str, content: bytes, headers: Any = (), method: str = "POST"
) -> httpx2.Response:
    merged = [*({**FORM}.items()), *headers]
    return await door.http.request(method, path, content=content, headers=merged)


def assert_sound(answer: httpx2.Response, *, status: int | None = None) -> None:
    """An answer that no error escaped into, and in OAuth's form if it is an error."""
    assert answer.status_code < 500, answer.text
    assert status is None or answer.status_code == status, answer.text
    assert CANARY not in answer.text
    assert CANARY not in str(answer.headers)
    if answer.status_code >= 400 and answer.status_code != 413:
        assert_oauth_error(answer, answer.json()["error"], answer.status_code)


# ── each parameter ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_the_good_requests_are_answered(door: FrontDoor, path: str) -> None:
    answer = await door.post(path, await good_form(door, path))

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_no_parameter_is_given_twice(door: FrontDoor, path: str) -> None:
    """RFC 6749 sections 3.1 and 3.2; also where both say the same, or one is empty."""
    for name in set(ENDPOINTS[path]) - REPEATABLE:
        for order in (1, -1):
            for second in ("the same", "another", ""):
                form = await good_form(door, path)
                first = str(form.pop(name, "x"))
                values = [first, first if second == "the same" else second][::order]
                pairs = [*form.items(), *((name, value) for value in values)]
                answer = await door.post(path, pairs)
                assert name in assert_oauth_error(answer, "invalid_request"), name


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_odd_values_are_refused_or_harmless(door: FrontDoor, path: str) -> None:
    for name in ENDPOINTS[path]:
        for odd, value in ODD.items():
            form = await good_form(door, path)
            form.pop(name, None)
            content = urlencode(form).encode() + f"&{name}=".encode() + value
            answer = await send(door, path, content)
            assert_sound(answer)
            assert "<script" not in answer.text
            if name not in IGNORED:
                # Of a parameter that says something none of these can be what it says.
                assert answer.status_code in (400, 401, 413), (name, odd, answer.text)
            if odd in ("no-utf-8", "cut-utf-8", "surrogate", "overlong", "raw-bytes", "raw-utf-8"):
                assert_oauth_error(answer, "invalid_request")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_errors_repeat_nothing_that_was_sent(door: FrontDoor, path: str) -> None:
    token = f"{CANARY}.{CANARY}.{CANARY}"
    for name in (*ENDPOINTS[path], CANARY):
        form = {**await good_form(door, path), name: token}
        for changed in (form, {**form, "client_assertion": token}, {name: token}):
            assert_sound(await door.post(path, changed))
            secret = await door.post(path, {**changed, "client_secret": CANARY})
            # A caller of introspection that isn't proved is challenged (RFC 7662 section 2.3).
            assert_sound(secret, status=401 if path.endswith("/introspect") else 400)
    assert_sound(await send(door, path, f"{CANARY}=%FF".encode()), status=400)
    assert_sound(await send(door, path, b"", [("Authorization", f"Bearer {token}")]))
    assert_sound(await send(door, path, b"", [("Authorization", f"Basic {CANARY}")]))
    assert_sound(await send(door, path, b"", [("DPoP", token)]))


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_parameters_have_one_spelling_and_one_place(door: FrontDoor, path: str) -> None:
    """Not in the query, where they end up in logs, nor as a list or under another name."""
    form = await good_form(door, path)
    query = urlencode(form)

    answer = await send(door, f"{path}?{query}", b"")
    assert answer.status_code >= 400, answer.text
    assert_sound(answer)
    for spell in (str.upper, "{}[]".format, "{}[0]".format, " {}".format, "{}\0".format):
        spelt = {spell(name): value for name, value in form.items()}
        answer = await door.post(path, spelt)
        assert answer.status_code >= 400, answer.text
        assert_sound(answer)
    # A semicolon separates nothing (WHATWG URL section 5.1).
    answer = await send(door, path, query.replace("&", ";").encode())
    assert_sound(answer)
    assert answer.status_code >= 400 or path == "/oauth/revoke"  # of a token with semicolons in it
    # And the query neither adds nor doubles.
    extra = urlencode(dict.fromkeys(ENDPOINTS[path], "x"))
    answer = await door.post(f"{path}?{extra}", await good_form(door, path))
    assert answer.status_code == 200, answer.text


# ── the request as a whole ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_only_a_form_is_read(door: FrontDoor, path: str) -> None:
    form = await good_form(door, path)
    urlencoded, as_json = urlencode(form).encode(), json.dumps(form).encode()
    boundary = b'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\nx\r\n--x--\r\n'
    bodies = {
        "application/json": as_json,
        "application/x-www-form-urlencoded, application/json": urlencoded,
        "multipart/form-data; boundary=x": boundary,
        "text/plain": urlencoded,
        "application/xml": b"<a/>",
        "": urlencoded,
        "application/x-www-form-urlencoded\x00": urlencoded,
        "x-www-form-urlencoded": urlencoded,
        CANARY: urlencoded,
    }
    for kind, body in bodies.items():
        headers = [(b"content-type", kind.encode("latin-1"))]
        answer = await door.http.post(path, content=body, headers=headers)
        assert_oauth_error(answer, "invalid_request")
        assert_sound(answer)
    assert_oauth_error(await door.http.post(path, content=urlencoded), "invalid_request")
    for body in (as_json, boundary, gzip.compress(urlencoded), "\u00fc".encode("utf-16"), b"\0"):
        answer = await send(door, path, body)
        assert answer.status_code in (400, 401)
        assert_sound(answer)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_form_has_a_bounded_number_of_fields(door: FrontDoor, path: str) -> None:
    form = urlencode(await good_form(door, path))
    room = 50 - form.count("&") - 1

    most = await send(door, path, form.encode() + b"&a=1" * room)
    assert most.status_code == 200, most.text
    for many in (room + 1, 1000, 15_000):
        answer = await send(door, path, form.encode() + b"&a=1" * many)
        assert_oauth_error(answer, "invalid_request")
    for separators in (b"&" * 5000, b"=" * 5000, b"&=" * 5000, b"a" * 60_000):
        answer = await send(door, path, separators)
        assert answer.status_code in (400, 401)
        assert_sound(answer)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_only_post_is_answered(door: FrontDoor, path: str, method: str) -> None:
    query = urlencode(await good_form(door, path))

    answer = await send(door, f"{path}?{query}", b"", method=method)

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "access_token" not in answer.text


@pytest.mark.parametrize(
    "path", ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server"]
)
async def test_what_is_published_is_only_read(door: FrontDoor, path: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = await door.http.request(method, path, content=b"{}")
        assert answer.status_code == 405
        assert "GET" in answer.headers["allow"]
    assert (await door.http.get(f"{path}?{CANARY}")).text.count(CANARY) == 0


# ── two ways at once ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_client_authenticates_in_one_way(door: FrontDoor, path: str) -> None:
    """RFC 6749 section 2.3: never in more than one way in a request."""
    bearer = ("Authorization", f"Bearer {await door.token('operator')}")
    basic = ("Authorization", f"Basic {b64encode(b'desk:x').decode()}")
    form = await good_form(door, path)
    asserted = urlencode({**form, **door.as_client("desk")}).encode()
    secret = urlencode({**form, "client_id": "desk", "client_secret": CANARY}).encode()
    both = urlencode({**form, **door.as_client("desk"), "client_secret": CANARY}).encode()

    for content, headers in (
        (asserted, [bearer]),
        (asserted, [basic]),
        (secret, []),
        (secret, [bearer]),
        (both, []),
        (asserted, [bearer, bearer]),
        (asserted, [bearer, basic]),
        (urlencode(form).encode(), [basic]),
        (urlencode(form).encode(), [bearer, bearer]),
    ):
        answer = await send(door, path, content, headers)
        assert answer.status_code in (400, 401), answer.text
        assert answer.json()["error"] in ("invalid_client", "invalid_request")
        assert_sound(answer)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "scheme", ["", "Bearer", "Digest", "Negotiate", "HOBA", "Mutual", "Bearer\t", "Token", "JWT"]
)
async def test_other_schemes_prove_nothing(door: FrontDoor, path: str, scheme: str) -> None:
    token = await door.token("operator")
    value = f"{scheme} {token}" if scheme not in ("", "Bearer") else scheme

    answer = await send(door, path, b"token=x", [("Authorization", value)])

    assert answer.status_code == 401, answer.text
    assert token not in answer.text
    assert answer.headers["www-authenticate"]
    assert_sound(answer)


@pytest.mark.parametrize(
    "named",
    [
        "",
        "desk ",
        "DESK",
        "d\u0435sk",
        "desk\0",
        "*",
        "gateway",
        "x" * 5000,
        "../desk",
        "desk,runner",
    ],
)
async def test_a_client_id_is_the_clients_or_refused(door: FrontDoor, named: str) -> None:
    form = {"grant_type": "client_credentials", **door.as_client("desk"), "client_id": named}

    answer = await door.post("/oauth/token", form)

    if named:
        assert_oauth_error(answer, "invalid_client", answer.status_code)
    else:  # empty is omitted
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
        "jwt-bearer",
        ASSERTION.upper(),
        f"{ASSERTION} ",
        f"{ASSERTION}\0",
        "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
    ],
)
async def test_an_assertion_is_of_the_type_it_says(door: FrontDoor, kind: str) -> None:
    form = {"grant_type": "client_credentials", **door.as_client("desk")}

    answer = await door.post("/oauth/token", {**form, "client_assertion_type": kind})

    assert_oauth_error(answer, "invalid_client", answer.status_code)


async def test_a_task_is_named_by_json_alone(door: FrontDoor) -> None:
    """The one parameter that is JSON: what two readers may read differently is refused."""
    task = (await door.task_of())["task_id"]
    good = details(task)
    spoilt = (
        good.replace('"type"', '"type":"x","type"', 1),
        good.replace('"task_id"', f'"task_id":"{task}","task_id"', 1),
        good[:-2] + ',"task_id":"x"}]',
        good[:-1] + ",]",
        good + good,
        f"[{good}]",
        good[1:-1],
        good.replace(task, task.upper()),
        good.replace(task, f"{task}\\u0000"),
        good.replace(task, f" {task}"),
        good.replace("]", "]\0"),
        "\ufeff" + good,
        good.replace('"', "'"),
        good[:-2] + ',"capabilities":["\\ud800"]}]',
        good[:-2] + ',"capabilities":[1e999]}]',
        good[:-2] + ',"capabilities":{"a":1}}]',
        good[:-2] + ',"capabilities":[["orders-api"]]}]',
        good[:-2] + ',"actions":["read"]}]',
        good[:-2] + ',"":null}]',
    )
    for text in spoilt:
        answer = await door.swap(door.identity("report-writer"), authorization_details=text)
        assert_oauth_error(answer, "invalid_authorization_details")

    fine = await door.swap(door.identity("report-writer"), authorization_details=f" \n{good}\t")
    assert fine.status_code == 200, fine.text
