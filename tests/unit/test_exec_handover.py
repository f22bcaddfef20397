"""What a child is handed: templates, presets, files, and what it gets of our own environment."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client.conventions import PROGRAMS
from broker.client.decoding import decode
from broker.client.dsn import Place
from broker.client.models import IssuedGrant
from broker.exec.environment import ALLOWED, clean
from broker.exec.files import SecretFiles, in_memory, place, sweep
from broker.exec.handover import Handover
from broker.exec.members import Members, pgpass_line
from broker.exec.presets import NAMES
from broker.exec.refusal import Unfit

if TYPE_CHECKING:
    from pathlib import Path

PG = "postgresql://v-user:p%40ss%3Aword@db.example:5433/orders?sslmode=require"
DATABASE = {"type": "database", "username": "v-user", "password": "p@ss:word", "dsn": PG}


def members(credential: dict[str, Any], capability: str = "orders-read") -> Members:
    document = {"grant_id": "grt_1", "capability": capability, "state": "active"}
    issued = decode(IssuedGrant, {**document, "credential": credential})
    return Members(issued, task_id="tsk_1")


def filled(folder: Path, credential: dict[str, Any], **options: tuple[str, ...]) -> dict[str, str]:
    handover = Handover.parse(("orders-read",), **options)
    with SecretFiles(folder) as files:
        return handover.filled({"orders-read": members(credential)}, files)


@pytest.mark.parametrize(
    ("credential", "variables"),
    [
        pytest.param(
            DATABASE,
            {
                "PGHOST": "db.example",
                "PGPORT": "5433",
                "PGDATABASE": "orders",
                "PGUSER": "v-user",
                "PGPASSWORD": "p@ss:word",
                "PGSSLMODE": "require",
                "DATABASE_URL": PG,
            },
            id="postgres",
        ),
        pytest.param(
            {
                "type": "database",
                "username": "u",
                "password": "p",
                "dsn": "mysql+pymysql://u:p@h/stock",
            },
            {
                "MYSQL_HOST": "h",
                "MYSQL_TCP_PORT": "3306",
                "MYSQL_DATABASE": "stock",
                "MYSQL_USER": "u",
                "MYSQL_PWD": "p",
                "MYSQL_PASSWORD": "p",
                "DATABASE_URL": "mysql+pymysql://u:p@h/stock",
            },
            id="mysql",
        ),
        pytest.param(
            {"type": "database", "username": "u", "password": "p", "dsn": "rediss://u:p@[::1]:1/0"},
            {
                "REDIS_HOST": "::1",
                "REDIS_PORT": "1",
                "REDIS_USERNAME": "u",
                "REDIS_PASSWORD": "p",
                "REDISCLI_AUTH": "p",
                "REDIS_URL": "rediss://u:p@[::1]:1/0",
            },
            id="redis",
        ),
        pytest.param(
            {"type": "rabbitmq", "username": "u", "password": "p"},
            {"RABBITMQ_USERNAME": "u", "RABBITMQ_PASSWORD": "p"},
            id="rabbitmq without a DSN",
        ),
        pytest.param(
            {"type": "aws", "access_key": "AK", "secret_key": "SK", "security_token": "ST"},
            {
                "AWS_ACCESS_KEY_ID": "AK",
                "AWS_SECRET_ACCESS_KEY": "SK",
                "AWS_SESSION_TOKEN": "ST",
            },
            id="aws",
        ),
        pytest.param(
            {"type": "kv", "api-key": "at", "scope": "a b"},
            {
                "BROKER_GRANT_ID": "grt_1",
                "BROKER_CREDENTIAL_TYPE": "kv",
                "BROKER_CREDENTIAL_API_KEY": "at",
                "BROKER_CREDENTIAL_SCOPE": "a b",
            },
            id="a kind without a habit",
        ),
        pytest.param(
            {"type": "database", "username": "u", "dsn": "postgresql://u:p@a:1,b:2/orders"},
            {"PGUSER": "u", "DATABASE_URL": "postgresql://u:p@a:1,b:2/orders"},
            id="several hosts",
        ),
    ],
)
def test_the_kind_chooses_the_variables(
    tmp_path: Path, credential: dict[str, Any], variables: dict[str, str]
) -> None:
    assert filled(tmp_path, credential) == variables


def test_a_template_takes_the_place_of_the_preset(tmp_path: Path) -> None:
    env = ("WHO={{ username }}@{{orders-read.host}}", "TASK={{task_id}}", "MODE=a=b")
    found = filled(tmp_path, DATABASE, env=env)
    assert found == {"WHO": "v-user@db.example", "TASK": "tsk_1", "MODE": "a=b"}
    both = filled(tmp_path, DATABASE, env=("PGUSER={{password}}",), preset=("postgres",))
    assert (both["PGUSER"], both["PGHOST"]) == ("p@ss:word", "db.example")
    assert filled(tmp_path, DATABASE, env=("MODE=x",)).keys() > {"MODE", "PGUSER"}
    assert filled(tmp_path, DATABASE, preset=("none",)) == {}


def test_a_template_is_not_filled_in_twice(tmp_path: Path) -> None:
    found = filled(tmp_path, {"type": "kv", "a": "{{b}}", "b": "no"}, env=("X={{a}}",))
    assert found == {"X": "{{b}}"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"env": ("PGUSER",)}, "NAME=TEMPLATE"),
        ({"env": ("={{a.x}}",)}, "NAME=TEMPLATE"),
        ({"env": ("A-B={{a.x}}",)}, "NAME=TEMPLATE"),
        ({"env": ("A={{a.x",)}, "without its"),
        ({"env": ("A={{}}",)}, "names no member"),
        ({"env": ("A={{a.x y}}",)}, "names no member"),
        ({"env": ("A={{x}}",)}, "of which capability? {{a.x}} or {{b.x}}"),
        ({"env": ("A={{c.x}}",)}, "c isn't asked for"),
        ({"env": ("A={{a.x}}", "A=1")}, "set twice"),
        ({"env": ("A={{a.x}}",), "file": ("A={{a.y}}",)}, "set twice"),
        ({"preset": ("nonsense",)}, "there are postgres,"),
        ({"preset": ("postgres",)}, "of which capability?"),
        ({"preset": ("c=postgres",)}, "of its own"),
        ({"preset": ("a=postgres", "a=none")}, "of its own"),
    ],
)
def test_what_can_be_known_before_is_refused_before(
    options: dict[str, tuple[str, ...]], says: str
) -> None:
    with pytest.raises(Unfit) as refused:
        Handover.parse(("a", "b"), **options)
    assert says in str(refused.value)


def test_what_is_refused_after_says_what_there_is_and_no_secret(tmp_path: Path) -> None:
    with pytest.raises(Unfit) as refused:
        filled(tmp_path, DATABASE, env=("A={{passwort}}",))
    assert "it has" in str(refused.value)
    assert "username, password, dsn" in str(refused.value)
    assert "p@ss" not in str(refused.value)
    with pytest.raises(Unfit, match="has nothing for it"):
        filled(tmp_path, DATABASE, preset=("aws",))
    with pytest.raises(Unfit, match="zero byte"):
        filled(tmp_path, {"type": "kv", "a": "x\0y"}, env=("A={{a}}",))
    with pytest.raises(Unfit) as refused:
        Handover.parse(("a",), env=("hunter2",))
    assert "hunter2" not in str(refused.value)


def test_two_of_a_kind_have_to_be_told_apart(tmp_path: Path) -> None:
    credentials = {name: members(DATABASE, name) for name in ("a", "b")}
    with SecretFiles(tmp_path) as files:
        with pytest.raises(Unfit, match="two credentials would set DATABASE_URL"):
            Handover.parse(("a", "b")).filled(credentials, files)
        told = Handover.parse(("a", "b"), env=("OTHER={{b.dsn}}",))
        assert told.filled(credentials, files).keys() > {"OTHER", "PGUSER"}


def test_every_preset_can_be_named() -> None:
    for name in PROGRAMS:
        assert Handover.parse(("a",), preset=(name,)).presets == {"a": name}
    assert set(NAMES) - PROGRAMS.keys() == {"plain", "none"}


def test_a_file_is_private_and_goes(tmp_path: Path) -> None:
    handover = Handover.parse(
        ("orders-read",), file=("PGPASSFILE={{pgpass}}",), env=("PGUSER={{username}}",)
    )
    with SecretFiles(tmp_path) as files:
        found = handover.filled({"orders-read": members(DATABASE)}, files)
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        written = folder / "PGPASSFILE"
        assert found == {"PGPASSFILE": str(written), "PGUSER": "v-user"}
        assert written.stat().st_mode & 0o777 == 0o600
        assert written.read_text() == "db.example:5433:orders:v-user:p@ss\\:word\n"
        sweep(tmp_path)
        assert written.exists(), "its owner lives"
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_dead_are_swept_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "broker-exec-left"
    left.mkdir(mode=0o700)
    (left / ".lock").touch()
    (left / "PGPASSFILE").write_text("x")
    strange = tmp_path / "broker-exec-strange"
    strange.mkdir()
    with SecretFiles(tmp_path) as files:
        assert files.write({}) == {}
        assert left.exists(), "nothing is looked for that isn't needed"
        assert filled(tmp_path, DATABASE, file=("F={{password}}",)).keys() == {"F"}
    assert not left.exists()
    assert strange.exists(), "what has no lock isn't known to be ours"


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="nothing can be written below"):
        filled(tmp_path / "nowhere", DATABASE, file=("F={{password}}",))


def test_the_place_is_in_memory_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert str(place()) != "/proc"
    assert not in_memory(tmp_path / "nowhere")


def test_googles_key_is_a_file(tmp_path: Path) -> None:
    data = base64.b64encode(b'{"type": "service_account"}').decode()
    key = {"type": "gcp", "private_key_data": data}
    assert filled(tmp_path, key, env=("K={{key_file}}",)) == {"K": '{"type": "service_account"}'}
    assert filled(tmp_path, key) == {"GOOGLE_CREDENTIALS": '{"type": "service_account"}'}
    assert filled(tmp_path, {"type": "gcp", "private_key_data": "%"}, env=("K={{key_file}}",)) == {
        "K": "%"
    }


text = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1)


@given(user=text, password=text)
def test_a_pgpass_line_has_five_fields_whatever_is_in_them(user: str, password: str) -> None:
    line = pgpass_line(Place(host="h"), user, password).removesuffix("\n")
    fields, escaped = [""], False
    for char in line:
        if char == ":" and not escaped:
            fields.append("")
        elif char != "\\" or escaped:
            fields[-1] += char
        escaped = char == "\\" and not escaped
    wild = user == "*"
    assert fields == ["h", "*", "*", "*" if wild else user, password]


def test_the_environment_is_a_list() -> None:
    here = dict.fromkeys(ALLOWED, "x")
    secret = {"AWS_SECRET_ACCESS_KEY": "s", "BROKER_URL": "u", "LC_SECRET": "s", "LD_PRELOAD": "l"}
    assert clean({**here, **secret}) == here
    assert clean({"PATH": "p", **secret}, ["BROKER_URL"]) == {"PATH": "p", "BROKER_URL": "u"}
    with pytest.raises(Unfit, match="no such variable"):
        clean({"PATH": "p"}, ["NOPE"])
