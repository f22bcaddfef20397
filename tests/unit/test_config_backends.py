"""``[backends.NAME]``: what a backend of another package is told, and by which name it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from broker.catalog import Revocability
from broker.config import parse_config
from broker.errors import ConfigError

SMALLEST = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
"""
CAPABILITY = """
[[capabilities]]
name = "tickets-key"
power = "read"
backend = "tickets"
"""
TABLE = "[backends.tickets]\n"


def problem(text: str) -> dict[str, Any]:
    with pytest.raises(ConfigError) as caught:
        parse_config(SMALLEST + text, Path("/nowhere/config.toml"))
    (only,) = cast("list[dict[str, Any]]", caught.value.extra["problems"])
    return only


def test_its_own_keys_are_free_and_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("hunter2\n")
    own = (
        'url = "https://keys.example"\nretries = 3\nteams = { web = 1 }\nadmin_token_file = "admin"'
    )
    config = parse_config(SMALLEST + TABLE + own, tmp_path / "config.toml")

    entry = config.backends["tickets"]
    assert (entry.kind, entry.timeout) == (None, 10_000)
    assert entry.options == {
        "url": "https://keys.example",
        "retries": 3,
        "teams": {"web": 1},
        "admin_token_file": tmp_path / "admin",
    }
    assert entry.secret_files == [tmp_path / "admin"]


def test_a_capability_names_it_and_its_path_and_parameters_are_free_text() -> None:
    own = 'path = "Projects/web & more"\nparameters = { size = "3 x 4" }'
    text = TABLE + 'kind = "keys"' + CAPABILITY + own
    config = parse_config(SMALLEST + text, Path("/nowhere/config.toml"))

    capability = config.catalog().capabilities["tickets-key"]
    assert (capability.backend, capability.path) == ("tickets", "Projects/web & more")
    assert capability.parameters == {"size": "3 x 4"}
    assert config.backends["tickets"].kind == "keys"


@pytest.mark.parametrize("path", ["kv/data/web", "aws/sts/deploy", "ssh/sign/web"])
def test_its_path_is_no_secrets_engines_whatever_it_is_called(path: str) -> None:
    """Else what it gives would be given up unconfirmed, as a static secret of Vault's is."""
    text = SMALLEST + TABLE + CAPABILITY + f'path = "{path}"\n'
    capabilities = parse_config(text, Path("/nowhere/config.toml")).catalog().capabilities
    assert capabilities["tickets-key"].revocability is Revocability.INSTANT

    (entry,) = parse_config(
        f'{text}revocability = "instant"', Path("/nowhere/config.toml")
    ).capabilities
    assert entry.doubt() == ""


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        (CAPABILITY, "capabilities[0].backend", "one of: vault, token, tool"),
        (
            TABLE + CAPABILITY.replace('"tickets"', '"ticket"'),
            "capabilities[0].backend",
            'did you mean "tickets"?',
        ),
        (TABLE + CAPABILITY + 'dsn = "x"', "capabilities[0].dsn", "must hold the placeholders"),
        (TABLE + CAPABILITY + 'scope = "x"', "capabilities[0].scope", "has no use with backend"),
        (TABLE + CAPABILITY + 'path = "a\\nb"', "capabilities[0].path", "one line of text"),
        ("[backends.vault]", "backends.vault", "is a backend of the broker's own"),
        ("[backends.tool]", "backends.tool", "is a backend of the broker's own"),
        ('[backends."a|b"]', 'backends."a|b"', "is not a name"),
        (TABLE + CAPABILITY + 'engine = "kv"', "capabilities[0].engine", "has no use with backend"),
        ("[backends]\nkeys = 3", "backends.keys", "write [backends.keys] on a line of its own"),
        ("[[backends]]", "backends", "write a table for each: [backends.NAME]"),
        (TABLE + 'timeout = "2m"', "backends.tickets.timeout", 'write "1m" or less'),
        (TABLE + "kind = 3", "backends.tickets.kind", "must be a string"),
        (TABLE + 'token_file = "nope"', "backends.tickets", "token_file there is no file"),
    ],
)
def test_what_is_refused(text: str, key: str, said: str) -> None:
    found = problem(text)
    assert found["key"] == key
    assert said in found["reason"] + "\n" + found["suggestion"]


@pytest.mark.parametrize("key", ["password", "api_token", "client_secret", "api_key", "token"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(key: str) -> None:
    found = problem(f'{TABLE}{key} = "hunter2"')
    assert found["suggestion"].endswith(f"{key}_file")
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "own",
    [
        'auth = { user = "broker", password = "hunter2" }',
        'hosts = [{ url = "https://keys.example", login = { token = "hunter2" } }]',
        'Client-Secret = "hunter2"',
    ],
    ids=["table", "array", "spelling"],
)
def test_a_secret_is_refused_however_deep_it_is_and_however_it_is_spelt(own: str) -> None:
    found = problem(TABLE + own)
    assert "would be a secret in this file" in found["reason"]
    assert "hunter2" not in str(found)
