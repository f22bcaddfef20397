"""A target whose file can't be used: said without what the file holds, and nothing else stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from broker.errors import Unavailable
from broker.settings import targets
from tests.unit.test_config_targets import TARGET, parsed

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config import Config

SCHEMES: Final = {
    "postgresql": "postgresql",
    "mysql": "mysql",
    "rabbitmq": "https",
    "valkey": "redis",
}
HIDDEN: Final = "hunter2"


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize(
    "place",
    [
        f"u:{HIDDEN}/x@127.0.0.1:1/y",
        f"u:{HIDDEN}\u2100@127.0.0.1:1",
        f"u:{HIDDEN}@[127.0.0.1:1",
        f"u:p@127.0.0.1:{HIDDEN}",
        f"u:{HIDDEN}@127.0.0.1:1",
    ],
    ids=["slash", "unicode", "bracket", "port", "nobody there"],
)
async def test_what_cannot_be_used_is_said_without_what_is_in_it(
    tmp_path: Path, kind: str, place: str
) -> None:
    config = parsed(tmp_path, TARGET.replace("postgresql", kind))
    (tmp_path / "dsn").write_text(f"{SCHEMES[kind]}://{place}")

    await assert_said(config)


@pytest.mark.parametrize("kind", ["mysql", "rabbitmq"])
async def test_whom_it_trusts_may_be_gone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "ca").write_text("not yet")
    config = parsed(tmp_path, TARGET.replace("postgresql", kind) + 'ca_file = "ca"')
    (tmp_path / "dsn").write_text(f"{SCHEMES[kind]}://u:{HIDDEN}@127.0.0.1:1")
    await assert_said(config)
    (tmp_path / "ca").unlink()
    await assert_said(config)


async def assert_said(config: Config) -> None:
    [target] = targets(config)
    with pytest.raises(Unavailable) as caught:
        await target.accounts()
    assert HIDDEN not in caught.value.detail
