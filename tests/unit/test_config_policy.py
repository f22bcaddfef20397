"""``[policy]``: its defaults, what is taken from it, and what can't be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.catalog import Power
from broker.config import Config, PolicySection, RemoteMode, parse_config
from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """\
broker.issuer = "http://127.0.0.1:8700"
redis.url = "unix:///run/valkey/valkey.sock"
"""
REMOTE = '[policy.remote]\nurl = "https://pdp.example/access/v1/evaluation"\n'
WATCHED = '[[policy.observe]]\nname = "next"\ndir = "next"\n'


def policy(tmp_path: Path, text: str = "") -> PolicySection:
    return loaded(tmp_path, text).policy


def loaded(tmp_path: Path, text: str = "") -> Config:
    return parse_config(f"{SMALLEST}{text}", tmp_path / "config.toml")


def test_without_a_word_the_packages_policies_apply_to_production(tmp_path: Path) -> None:
    section = policy(tmp_path)

    assert section.dir is None
    assert section.environment == "production"
    assert section.private == {"confidential", "restricted", "secret"}
    assert (section.reload, section.report_within) == (5_000, 900_000)
    assert section.require_binding is None
    assert (section.watched, section.remote) == ((), None)


def test_what_is_written_is_taken(tmp_path: Path) -> None:
    for name in ("own", "next"):
        (tmp_path / name).mkdir()
    (tmp_path / "token").write_text("t")

    section = policy(
        tmp_path,
        '[policy]\ndir = "own"\nenvironment = "staging"\nprivate_data = ["pii"]\nreload = "off"\n'
        'report_within = "1h"\nrequire_binding = "operate"\n'
        f'{WATCHED}{REMOTE}mode = "instead"\ntimeout = "200ms"\ntoken_file = "token"',
    )

    assert section.dir == tmp_path / "own"
    assert (section.environment, section.private) == ("staging", {"pii"})
    assert section.reload is None
    assert section.report_within == 3_600_000
    assert section.require_binding is Power.OPERATE
    assert section.watched == (("next", tmp_path / "next"),)
    assert section.remote is not None
    assert (section.remote.mode, section.remote.timeout) == (RemoteMode.INSTEAD, 200)
    assert section.remote.token_file == tmp_path / "token"


def test_a_decision_point_elsewhere_is_asked_besides_and_not_for_long(tmp_path: Path) -> None:
    remote = policy(tmp_path, REMOTE).remote

    assert remote is not None
    assert (remote.mode, remote.timeout) == (RemoteMode.BESIDES, 1_000)
    assert policy(tmp_path, REMOTE.replace("https://pdp.example", "http://127.0.0.1:8181")).remote


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[policy]\nenvironment = "Prod EU"', "is not a name"),
        ("[policy]\nprivate_data = []", "nothing would count as private"),
        ('[policy]\nprivate_data = "secret"', "must be an array"),
        ('[policy]\nreload = "10ms"', 'write "1s" or more'),
        ('[policy]\nreload = "of"', "is not a duration"),
        ('[policy]\nreport_within = "25h"', 'write "24h" or less'),
        ('[policy]\nreport_within = "off"', "is not a duration"),
        ('[policy]\nrequire_binding = "write"', "one of: read, operate, privileged"),
        ('[policy]\nfolder = "x"', "unknown key"),
        ('[[policy.observe]]\nname = "next"\ndir = "nowhere"', "there is no folder"),
        ('[[policy.observe]]\ndir = "next"', "add name ="),
        (WATCHED + WATCHED, "policy.observe[0] has the same name"),
        ("[policy.remote]\n", "add url ="),
        (REMOTE.replace("https", "http"), "use https"),
        (REMOTE.replace("pdp", "me:secret@pdp"), "user name or password"),
        (REMOTE + 'mode = "beside"', 'did you mean "besides"'),
        (REMOTE + 'timeout = "31s"', 'write "30s" or less'),
        (REMOTE + 'token_file = "nowhere"', "there is no file"),
        (REMOTE + 'ca_file = "nowhere"', "there is no file"),
    ],
)
def test_what_cant_be_used_is_said(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "next").mkdir()

    with pytest.raises(ConfigError) as caught:
        policy(tmp_path, text)

    assert why in caught.value.detail
    assert "policy" in caught.value.detail
    assert "me:secret" not in caught.value.detail
