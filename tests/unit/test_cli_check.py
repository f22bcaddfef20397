"""``broker check-config``: what isn't wrong, and still wants a second look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.cli_runner import runner
from tests.unit.test_config import SMALLEST, VAULT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CAPABILITY = """
[[capabilities]]
name = "{name}"
power = "read"
backend = "vault"
path = "aws/sts/reader"
{more}
"""


def test_a_capability_that_claims_more_than_its_engine_does_is_valid_and_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "config.toml", runner(capsys)
    (tmp_path / "token").write_text("x")
    claims = CAPABILITY.format(name="claims", more='revocability = "instant"')
    says_nothing = CAPABILITY.format(name="says-nothing", more="")
    file.write_text(SMALLEST + VAULT + claims + says_nothing)

    ran = run("check-config", "--config", str(file), "--json")
    assert (ran.code, ran.json["valid"]) == (0, True)
    assert ran.json["warnings"].keys() == {"claims"}
    ran = run("check-config", "--config", str(file))
    assert ran.code == 0
    [warning, _] = ran.out.splitlines()
    assert warning.startswith("warning: capability claims: claims to be instant, and what the")
