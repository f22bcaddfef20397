"""No secret is anywhere but in the one answer that delivers it (pitfall 24).

Real secrets, as issued by the real engines, are searched for in all that the broker leaves behind:
the ledger and its files, the audit log, the log lines, every other answer, every repr.
"""

from __future__ import annotations

import base64
import gc
import json
import traceback
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import pytest

from broker.identity.models import Transport
from broker.secret import Secret
from broker.steps import Step
from broker.wire import RequestGrant
from tests.http.parties import ORDERS, assert_problem
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

GET = Transport("GET", "http://127.0.0.1:8700/v1/tasks")


PLAIN: Final = frozenset({"type", "username", "token_type", "scope"})
OF_WRAPPING: Final = frozenset({"creation_path", "creation_time", "expires_at", "unwrap_url"})
DELIVERS: Final = ("/grants", "/rotate", "/unwrap")


class Overheard:
    """Every request's identity proofs and tokens, and every answer's body and headers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.secrets: dict[str, str] = {}
        self.answers: list[tuple[str, str]] = []
        world.http.event_hooks = {"response": [self._hear]}

    async def _hear(self, answer: httpx2.Response) -> None:
        await answer.aread()
        sent = dict(answer.request.headers)
        path = answer.request.url.path
        if answer.request.method == "POST" and answer.is_success and path.endswith(DELIVERS):
            body = answer.json()
            self._keep(path, body.pop("credential"))
            text = json.dumps(body)
        elif answer.status_code == 200 and path == "/oauth/token":
            body = answer.json()
            self.secrets[f"access token of {path}"] = body.pop("access_token")
            text = json.dumps(body)
        else:
            text = answer.text
        if path == "/oauth/token":
            form = dict(p.split("=", 1) for p in answer.request.content.decode().split("&"))
            self.secrets.setdefault("workload JWT", unquote(form["subject_token"]))
        assert sent  # every request here has headers
        self.answers.append((path, text + json.dumps(dict(answer.headers))))

    def _keep(self, path: str, credential: dict[str, Any]) -> None:
        for name, value in credential.items():
            if name not in PLAIN | OF_WRAPPING:
                self.secrets[f"{name} of {path}"] = value
        if "dsn" in credential:
            self.secrets[f"password in the dsn of {path}"] = unquote(
                urlsplit(str(credential["dsn"])).password or ""
            )

    @property
    def needles(self) -> list[tuple[str, bytes]]:
        """Each secret, and of a token its signature, in the forms it could be written in."""
        found: list[tuple[str, bytes]] = []
        for name, secret in self.secrets.items():
            assert len(secret) >= 16, f"{name} is too short to search for"
            parts = secret.split(".")
            alone = [secret] if len(parts) != 3 else [secret, parts[2], parts[1]]
            for part in alone:
                raw = part.encode()
                found += [(name, raw), (name, base64.b64encode(raw)[:-4])]
        return found

    def assert_not_in(self, where: str, text: bytes | str) -> None:
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        for name, needle in self.needles:
            assert needle not in raw, f"{name} is in {where}"


async def read_all(redis: Any) -> list[tuple[str, bytes]]:
    """Every key and its whole value."""
    found: list[tuple[str, bytes]] = []
    async for key in redis.scan_iter(count=1000):
        kind = (await redis.type(key)).decode()
        match kind:
            case "string":
                value: Any = await redis.get(key)
            case "hash":
                value = await redis.hgetall(key)
            case "zset":
                value = await redis.zrange(key, 0, -1)
            case "stream":
                value = await redis.xrange(key)
            case "none":
                continue  # it has just gone
            case other:
                raise AssertionError(f"{key}: a {other}, which this test doesn't read")
        found.append((key.decode(), key + repr(value).encode()))
    return found


def every_repr(value: object, seen: set[int]) -> Iterator[str]:
    """What printing an object, or anything in it, would show."""
    if id(value) in seen:
        return
    seen.add(id(value))
    yield f"{value!r} {value!s} {value}"
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from every_repr(getattr(value, field.name), seen)
    elif isinstance(value, dict):
        for inner in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from every_repr(inner, seen)  # pyright: ignore[reportUnknownArgumentType]


@pytest.fixture
def engine_secrets(engines: tuple[DevStack, Config]) -> dict[str, str]:
    """What the broker itself holds: its AppRole secret, its signing key."""
    _, config = engines
    assert config.vault is not None
    assert config.vault.secret_id_file is not None
    pem = next((config.broker.state_dir / "keys").glob("signing-*.pem")).read_text("utf-8")
    return {
        "secret_id": config.vault.secret_id_file.read_text("utf-8").strip(),
        "signing key": "".join(pem.splitlines()[1:-1]),
    }


async def carried_scenario(world: World, task: dict[str, Any]) -> None:
    """Deliver in wrapping tokens, open them in time and too late, renew, rotate."""
    own: dict[str, Any] = {"task_id": task["task_id"]}
    for spent in (False, True):
        grant = await world.grant(task, delivery="wrapped")
        path, token = f"/v1/grants/{grant['grant_id']}", grant["credential"]["token"]
        if spent:
            assert world.app.vault is not None
            await world.app.vault.as_holder(Secret(token), "post", "sys/wrapping/unwrap")
        for _ in "12":
            await world.call("report-writer", "POST", f"{path}/unwrap", {"token": token}, **own)
        await world.call("report-writer", "POST", f"{path}/unwrap", {"token": f"{token}!"}, **own)
        await world.call("report-writer", "POST", f"{path}/renew", {"ttl": "10m"}, **own)
        await world.call("report-writer", "POST", f"{path}/rotate", {}, **own)


async def rich_scenario(world: World, heard: Overheard) -> None:
    """Issue, complete, fail, deny, revoke, expire, and go wrong in as many ways as there are."""
    everything = ["orders-read", "orders-api"]
    task = await world.open(
        capabilities=everything, on_behalf_of=heard_person(world, heard), context={"k": "v"}
    )
    path = f"/v1/tasks/{task['task_id']}"
    body = {"capability": "orders-read", "intent": "look at the orders"}
    key = {"Idempotency-Key": "k"}
    own: dict[str, Any] = {"task_id": task["task_id"]}
    for attempt in (body, body, {**body, "ttl": "1m"}):
        await world.call("report-writer", "POST", f"{path}/grants", attempt, **own, headers=key)
    api = await world.grant(task, "orders-api")
    token = api["credential"]["access_token"]
    await world.call("report-writer", "POST", f"{path}/grants", {"capability": "nope"}, **own)
    # Secrets where they don't belong: in the wrong header, field, path and query.
    for wrong in (token, world.identity("operator")):
        heard.secrets.setdefault(f"misplaced {len(heard.secrets)}", wrong)
        bearer = {"Authorization": f"Bearer {wrong}"}
        await world.http.get("/v1/tasks", headers=bearer)
        await world.http.post("/oauth/introspect", data={"token": wrong}, headers=bearer)
        await world.http.get("/v1/audit/events", headers={"Authorization": f"Basic {wrong}"})
        for place in ("agent", "ttl", "heartbeat", "parent_task_id"):
            await world.call("orchestrator", "POST", "/v1/tasks", {**body, place: wrong})
        await world.call("orchestrator", "GET", f"/v1/grants?cursor={wrong[:300]}")
        await world.call("orchestrator", "GET", f"/v1/grants/{wrong}")
        await world.call("operator", "GET", f"/v1/audit/events?after={wrong[:300]}")
        form = {"grant_type": wrong, "subject_token": wrong, "subject_token_type": wrong}
        await world.http.post("/oauth/token", data={**form, "resource": wrong})
    service = {"Authorization": f"Bearer {await world.token('orders-service')}"}
    seen = await world.http.post("/oauth/introspect", data={"token": token}, headers=service)
    assert (seen.json()["active"], seen.json()["aud"]) == (True, ORDERS)
    for grant in (await world.call("operator", "GET", "/v1/grants")).json()["items"]:
        await world.call("operator", "GET", f"/v1/grants/{grant['grant_id']}")
    await world.call("operator", "DELETE", f"/v1/grants/{api['grant_id']}")
    await carried_scenario(world, task)
    await world.complete(task, "failed")
    short = await world.open()
    await world.grant(short)
    await world.sweep(ahead_ms=1_000_000)
    revoked = await world.open(agent="order-clerk", capabilities=["orders-write"])
    await world.grant(revoked, "orders-write")
    ask = {"selector": {"all": True}, "reason": "drill", "freeze": True}
    assert (await world.call("operator", "POST", "/v1/revocations", ask)).json()["revoked"] >= 1
    for listing in ("/v1/tasks", "/v1/freezes", "/v1/audit/events?limit=500", "/readyz"):
        assert (await world.call("operator", "GET", listing)).status_code == 200


def heard_person(world: World, heard: Overheard) -> str:
    person = world.issuer.token("person/ada").reveal()
    heard.secrets["proof of a person"] = person
    return person


def held_secrets() -> list[str]:
    """What this process holds wrapped: tokens for Vault, those made for tasks among them."""
    return [o.reveal() for o in gc.get_objects() if type(o) is Secret and len(o.reveal()) > 15]


async def test_secrets_are_only_in_their_one_delivery(
    engines: tuple[DevStack, Config],
    world: World,
    engine_secrets: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    heard = Overheard(world)
    heard.secrets |= engine_secrets
    held = await world.open()
    await world.grant(held)
    heard.secrets |= {f"held secret {n}": secret for n, secret in enumerate(held_secrets())}
    assert [s for s in heard.secrets.values() if s.startswith("s.")], "Vault tokens among them"

    await rich_scenario(world, heard)

    kinds = " ".join(heard.secrets)
    delivered = ("password", "dsn", "access_token", "workload JWT", "token of", *DELIVERS)
    assert all(kind in kinds for kind in delivered), kinds
    for path, text in heard.answers:
        heard.assert_not_in(f"another answer of {path}", text)
    redis: Any = world.app.connection.client
    rows = await read_all(redis)
    assert any(held["task_id"].encode() in row for _, row in rows), "the search finds what is there"
    for key, row in rows:
        heard.assert_not_in(f"the ledger's {key}", row)
    heard.assert_not_in("the slow log", repr(await redis.execute_command("SLOWLOG", "GET", "-1")))
    files = [f for f in (engines[0].data / "valkey").rglob("*") if f.is_file()]
    log = b"".join(f.read_bytes() for f in files if "appendonly" in str(f))
    assert held["task_id"].encode() in log, "the append-only file is the one in use"
    for file in files:
        heard.assert_not_in(f"Valkey's {file.name}", file.read_bytes())
    printed = capfd.readouterr()
    heard.assert_not_in("standard output", printed.out)
    heard.assert_not_in("standard error", printed.err)


async def test_what_was_issued_prints_no_secret(world: World) -> None:
    task = await world.open(capabilities=["orders-read", "orders-api"])
    token = await world.token("report-writer", task["task_id"])
    caller = await world.app.broker.access.authenticate(token, "bearer", GET)

    for capability in ("orders-read", "orders-api"):
        issued = await world.app.broker.request_grant(
            caller, task["task_id"], RequestGrant(capability=capability)
        )
        secrets = [v.reveal() for v in issued.minted.fields.values() if isinstance(v, Secret)]
        shown = "\n".join(every_repr(issued, set()))
        assert secrets
        assert not [secret for secret in secrets if secret in shown]
    assert token not in "\n".join(every_repr(caller, set()))
    vault = vars(world.app.pipeline.backends["vault"])
    shown = f"{world.app!r} {vault!r} {vars(vault['_tokens'])!r} {vars(world.app.pipeline)!r}"
    assert task["task_id"] in shown, "the tokens kept for tasks are among what is shown"
    assert not [held for held in held_secrets() if held in shown]


async def test_a_crash_with_a_secret_in_hand_prints_its_place_only(
    engines: tuple[DevStack, Config], capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "canary-c0ffee-c0ffee-c0ffee"

    def before(step: Step) -> None:
        if step is Step.DELIVER:
            raise RuntimeError(canary)

    stack, config = engines
    world = World(stack.issuer, config, before_step=before)
    try:
        await world.app.connection.command("FLUSHALL")
        task = await world.open()
        path = f"/v1/tasks/{task['task_id']}/grants"
        answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})

        assert_problem(answer, 500, "internal_error")
        assert canary not in answer.text
        for key, row in await read_all(world.app.connection.client):
            assert canary.encode() not in row, key
        await world.complete(task)
    finally:
        await world.close()
    printed = capfd.readouterr()
    assert "RuntimeError" in printed.err
    assert canary not in printed.err + printed.out


async def test_an_error_chain_holds_no_credential(world: World) -> None:
    task = await world.open()
    body = RequestGrant(capability="orders-read")
    token = await world.token("report-writer", task["task_id"])
    caller = await world.app.broker.access.authenticate(token, "bearer", GET)
    issued = await world.app.broker.request_grant(caller, task["task_id"], body, "k")
    password = next(v.reveal() for v in issued.minted.fields.values() if isinstance(v, Secret))

    with pytest.raises(Exception, match="Idempotency-Key") as caught:
        await world.app.broker.request_grant(caller, task["task_id"], body, "k")

    assert password not in "".join(traceback.format_exception(caught.value))
