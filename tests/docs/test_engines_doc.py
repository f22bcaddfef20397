"""The capabilities in the pages about single engines load, and end as the pages say."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
import tomli_w

from broker.config import parse_config
from tests.docs.blocks import blocks
from tests.unit.test_config import SMALLEST, VAULT

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTED = {
    "kubernetes.md": {"jobs-read": "ttl_only", "jobs-restart": "instant"},
    "cloud.md": {
        "bucket-read": "ttl_only",
        "bucket-write": "instant",
        "warehouse-read": "ttl_only",
        "vault-app": "instant",
        "directory-read": "instant",
    },
}


@pytest.mark.parametrize("page", DOCUMENTED)
def test_the_capabilities_of_a_page_can_be_revoked_as_it_says(page: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    found: dict[str, str] = {}
    for document in blocks(f"backends/{page}").values():
        text = tomli_w.dumps({**tomllib.loads(SMALLEST + VAULT), **document})
        config = parse_config(text, tmp_path / "config.toml")
        found |= {c.name: c.revocability for c in config.catalog().capabilities.values()}

    assert found == DOCUMENTED[page]
