"""What is asked about a call, what is reported of it, and what a credential is called elsewhere."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import sys
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client import Credential, InvalidRequest, Secret, Tool, tool
from broker.client.conventions import variables
from broker.client.scripts import Act, aplay, play
from broker.client.tools import digest, written_down
from broker.client.work import verdict

if TYPE_CHECKING:
    from collections.abc import Generator


class Colour(Enum):
    RED = "red"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_is_written_down_as_it_is(value: Any) -> None:
    assert written_down("a", value) == value
    assert digest(value) is not None


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Secret("canary"), "[redacted]"),
        (Credential({"type": "kv", "key": "canary"}), "[redacted]"),
        ([Secret("canary")], ["[redacted]"]),
        ({"deep": ({"er": Secret("canary")},)}, {"deep": [{"er": "[redacted]"}]}),
        (("a", "b"), ["a", "b"]),
        (Decimal("19.9"), 19.9),
    ],
    ids=["secret", "credential", "in-a-list", "deep", "tuple", "decimal"],
)
def test_secrets_are_there_and_not_shown(value: Any, written: Any) -> None:
    assert written_down("a", value) == written


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        Decimal("1e999"),
        b"x",
        {1: 2},
        {"a"},
        object(),
        Colour.RED,
        [print],
    ],
    ids=[
        "nan",
        "inf",
        "decimal-nan",
        "decimal-huge",
        "bytes",
        "key",
        "set",
        "object",
        "enum",
        "in-a-list",
    ],
)
def test_what_json_has_not_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        written_down("amount", value)
    assert caught.value.code == "argument_not_json"
    assert "amount" in caught.value.detail


def test_a_digest_names_the_result_whatever_the_order_of_its_names() -> None:
    assert digest({"b": 1, "a": [2]}) == digest({"a": [2], "b": 1})
    assert digest("text") == digest(b"text") == f"sha256:{hashlib.sha256(b'text').hexdigest()}"
    assert digest(Secret("s")) is digest({1: object()}) is None


def test_arguments_are_those_that_the_function_gets() -> None:
    def call(a: int, /, b: int = 2, *more: int, c: Any = None, **rest: Any) -> None: ...

    made: Tool[..., None] = tool(without=["d"])(call)
    assert made.name == "call"
    assert made.arguments((1,), {}) == {"a": 1, "b": 2}
    assert made.arguments((1, 3, 4), {"c": 5, "e": 6}) == {
        "a": 1,
        "b": 3,
        "more": (4,),
        "c": 5,
        "e": 6,
    }
    with pytest.raises(TypeError):
        made.arguments((), {})
    with pytest.raises(TypeError, match="a was given twice"):
        made.arguments((1,), {"a": "harmless"})
    with_handle: Tool[..., None] = tool(without=["c"])(call)
    assert with_handle.arguments((1,), {"c": object(), "d": 3}) == {"a": 1, "b": 2, "d": 3}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, ("completed", None)),
        (SystemExit(), ("completed", None)),
        (SystemExit("text"), ("failed", "SystemExit")),
        (GeneratorExit(), ("cancelled", "GeneratorExit")),
        (asyncio.CancelledError(), ("cancelled", "asyncio.exceptions.CancelledError")),
        (InvalidRequest("text"), ("failed", "broker.client.errors.InvalidRequest")),
    ],
    ids=["none", "exit", "exit-text", "generator", "cancelled", "ours"],
)
def test_how_a_block_is_left_decides_the_outcome(error: Any, outcome: Any) -> None:
    assert verdict(error) == outcome


def _script(function: Any) -> Generator[Any, Any, Any]:
    try:
        return (yield Act(function, (0,)))
    except RuntimeError as error:
        return type(error.__cause__)


def stops(_: int) -> None:
    raise StopIteration


async def test_an_act_may_raise_anything_also_what_ends_generators() -> None:
    def none(call: Any) -> Any:
        raise AssertionError(call)

    assert play(_script(stops), none) is StopIteration
    assert await aplay(_script(stops), none) is StopIteration
    assert play(_script(str), none) == "0"
    assert await aplay(_script(asyncio.sleep), none) is None


def env(**members: str) -> dict[str, str]:
    found = variables(Credential(members))
    return {k: v.reveal() if isinstance(v, Secret) else v for k, v in found.items()}


def test_a_database_has_the_variables_of_its_programs() -> None:
    account = {"type": "database", "username": "u", "password": "p@ss"}
    dsn = "postgresql://u:p%40ss@db.example:5433/orders?sslmode=verify-full&x=y"
    assert env(**account, dsn=dsn) == {
        "PGUSER": "u",
        "PGPASSWORD": "p@ss",
        "PGHOST": "db.example",
        "PGPORT": "5433",
        "PGDATABASE": "orders",
        "PGSSLMODE": "verify-full",
        "DATABASE_URL": dsn,
    }
    assert (
        env(**account, dsn="postgresql+psycopg://u:p@/orders?host=/run/pg")["PGHOST"] == "/run/pg"
    )
    mysql = env(**account, dsn="mysql://u:p@[::1]:3306/stock")
    assert (mysql["MYSQL_HOST"], mysql["MYSQL_PWD"]) == ("::1", "p@ss")
    assert (mysql["MYSQL_TCP_PORT"], mysql["MYSQL_DATABASE"]) == ("3306", "stock")
    assert env(**account, dsn="redis://u:p@r:6379/0")["REDISCLI_AUTH"] == "p@ss"
    amqp = env(**account, dsn="amqp://u:p@r/%2F")
    assert (amqp["RABBITMQ_HOST"], amqp["RABBITMQ_PORT"]) == ("r", "5672")
    assert set(env(**account, dsn="mongodb://u:p@m/x")) == {"DATABASE_URL"}
    several = env(**account, dsn="postgresql://u:p@a:1,b:2/orders")
    assert several.keys() == {"PGUSER", "PGPASSWORD", "DATABASE_URL"}


def test_what_is_secret_stays_a_secret() -> None:
    account = {"type": "database", "username": "u", "password": "p"}
    found = variables(Credential({**account, "dsn": "postgresql://u:p@h/d?sslmode=require"}))
    assert {n for n, v in found.items() if isinstance(v, Secret)} == {"PGPASSWORD", "DATABASE_URL"}


def test_a_cloud_has_the_variables_of_its_programs() -> None:
    assert env(type="aws", access_key="A", secret_key="S", arn="r", session_token="T") == {
        "AWS_ACCESS_KEY_ID": "A",
        "AWS_SECRET_ACCESS_KEY": "S",
        "AWS_SESSION_TOKEN": "T",
    }
    assert env(type="azure", client_id="C", client_secret="S") == {
        "AZURE_CLIENT_ID": "C",
        "AZURE_CLIENT_SECRET": "S",
    }
    key = base64.b64encode(b'{"type": "service_account"}').decode()
    assert env(type="gcp", private_key_data=key)["GOOGLE_CREDENTIALS"].startswith("{")
    assert env(type="gcp", token="t")["CLOUDSDK_AUTH_ACCESS_TOKEN"] == "t"
    assert env(type="kubernetes", service_account_token="t") == {"KUBE_TOKEN": "t"}
    assert env(type="token", access_token="t") == {"ACCESS_TOKEN": "t"}


@pytest.mark.parametrize(
    "members",
    [
        {"type": "kv", "key": "canary"},
        {"type": "database", "username": "u", "password": "canary"},
    ],
    ids=["kv", "no-dsn"],
)
def test_what_has_no_convention_says_so_and_shows_nothing(members: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        env(**members)
    assert caught.value.code == "no_variables"
    assert "canary" not in caught.value.detail
    assert caught.value.__cause__ is None


def test_importing_the_client_starts_nothing_and_catches_nothing() -> None:
    code = (
        "import signal, threading; before = signal.getsignal(signal.SIGTERM); import broker.client;"
        "assert signal.getsignal(signal.SIGTERM) is before; assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
