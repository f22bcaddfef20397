"""``[audit]``: its defaults, where its files are, and what can't be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import parse_config
from broker.config.audit import AuditSection, SinkKind
from broker.errors import ConfigError

SMALLEST = """\
broker.issuer = "https://broker.example.com"
redis.url = "redis://127.0.0.1:6379/0"
"""
SINK = '[[audit.sinks]]\nname = "siem"\nkind = "webhook"\nurl = "https://siem.example.com"\n'
STATE = Path("/var/lib/broker")


def audit(tmp_path: Path, text: str = "") -> AuditSection:
    return parse_config(f"{SMALLEST}\n{text}", tmp_path / "config.toml").audit


def test_every_broker_has_a_log_unless_it_is_switched_off(tmp_path: Path) -> None:
    default = audit(tmp_path)

    assert default.enabled
    assert default.folder(STATE) == STATE / "audit"
    assert default.signing_key(STATE).parent == default.fingerprint_key(STATE).parent == STATE
    assert (default.checkpoint_every, default.max_lag) == (10_000, 30_000)
    assert default.retention is None
    assert default.sinks == ()
    assert not audit(tmp_path, "[audit]\nenabled = false").enabled


def test_what_is_written_is_taken(tmp_path: Path) -> None:
    section = audit(
        tmp_path,
        '[audit]\nlog_dir = "log"\nkey_file = "keys/a"\nfingerprint_key_file = "keys/b"\n'
        'segment_size = "1MiB"\nretention = "400d"\ncheckpoint_every = "1m"\nmax_lag = "15s"',
    )

    assert section.folder(STATE) == tmp_path / "log"
    assert section.signing_key(STATE) == tmp_path / "keys" / "a"
    assert section.fingerprint_key(STATE) == tmp_path / "keys" / "b"
    assert section.segment_size == 1 << 20
    assert section.retention == 400 * 86_400_000
    assert (section.checkpoint_every, section.max_lag) == (60_000, 15_000)


def test_sinks(tmp_path: Path) -> None:
    console = (
        '[[audit.sinks]]\nname = "console"\nkind = "stdout"\ntypes = ["task.", "grant.active"]\n'
    )

    first, second = audit(tmp_path, SINK + console).sinks

    assert (first.kind, first.timeout, first.types) == (SinkKind.WEBHOOK, 10_000, ())
    assert (second.kind, second.timeout) == (SinkKind.STDOUT, None)
    assert second.types == ("task.", "grant.active")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[audit]\nlog_dir = ""', "is empty"),
        ('[audit]\nlog_dir = "config.toml"', "not a folder"),
        ('[audit]\nkey_file = "."', "not a file"),
        ('[audit]\nretention = "never"', "duration"),
        ('[audit]\ncheckpoint_every = "999ms"', 'write "1s" or more'),
        ('[audit]\nmax_lag = "14s"', "another replica takes a dead one's log over"),
        ('[audit]\nlog = "x"', 'did you mean "log_dir"'),
        ('[audit]\nenabled = "no"', "true or false"),
        ('[[audit.sinks]]\nname = "a"\nkind = "kafka"', "one of: stdout, webhook"),
        ('[[audit.sinks]]\nname = "a"\nkind = "webhook"', "add url = "),
        ('[[audit.sinks]]\nname = "a"\nkind = "stdout"\ntimeout = "1s"', 'kind = "webhook"'),
        (SINK.replace("https:", "http:"), "use https"),
        (SINK + 'token_file = "nowhere"', "there is no file"),
        (SINK + 'timeout = "6m"', 'write "5m" or less'),
        (SINK + 'types = ["Grant"]', "beginning of an event's type"),
        (SINK + SINK, "has the same name"),
        ("[audit]\nenabled = false\n" + SINK, "fed from the log, which is off"),
    ],
)
def test_what_cant_be_used_is_said(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "config.toml").touch()

    with pytest.raises(ConfigError) as caught:
        audit(tmp_path, text)

    assert why in caught.value.detail
    assert "audit" in caught.value.detail
