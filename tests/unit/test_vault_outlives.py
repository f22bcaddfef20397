"""For how long what nobody has heard of may live, when the token it was asked for with is gone."""

from __future__ import annotations

from typing import Any, Final, cast

import pytest

from broker.backends.vault import VaultBackend
from broker.catalog import Capability, Power, Revocability
from broker.grants import Grant, GrantState
from tests.clocks import ManualClock

LEFT_MS: Final = 60_000
OWN_END_MS: Final = LEFT_MS + 1000
"""A whole second more: Vault counts in these."""


def left(path: str, *configured: Revocability) -> int | None:
    clock = ManualClock()
    capabilities = [
        Capability("x", Power.READ, "vault", 1, 1, path=path, revocability=said)
        for said in configured
    ]
    nothing = cast("Any", None)  # neither Vault nor the ledger is asked
    backend = VaultBackend(nothing, nothing, capabilities, clock, broker_id="b")
    ends_at = round(clock.now() * 1000) + LEFT_MS
    return backend.outlives(
        Grant(
            *("grt_1", GrantState.REVOKING, "t", "a", "o", "x", "vault", "read", path, "h"),
            created_at=0,
            expires_at=ends_at,
        )
    )


@pytest.mark.parametrize("path", ["database/creds/a", "own/creds/a"])
def test_what_is_revocable_at_once_is_gone_with_its_token(path: str) -> None:
    assert left(path, Revocability.INSTANT) == 0
    assert left(path, Revocability.TTL_ONLY) == OWN_END_MS


@pytest.mark.parametrize("path", ["database/creds/a", "own/creds/a", "pki/issue/a"])
def test_of_a_capability_that_has_gone_nobody_knows_what_was_said(path: str) -> None:
    assert left(path) == OWN_END_MS


def test_a_static_secret_has_no_end_whatever_the_configuration_says_now() -> None:
    assert left("kv/data/a") is None
    assert left("kv/data/a", Revocability.NEVER) is None
