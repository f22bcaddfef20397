"""The policy that the broker itself is given in Vault."""

from __future__ import annotations

from broker.backends.bootstrap import broker_policy

PATHS = ("database/creds/orders-read", "database/creds/orders-write")


def test_nothing_to_rotate_adds_nothing_to_the_policy() -> None:
    text = broker_policy(PATHS)

    assert text == broker_policy(PATHS, [])
    assert "rotate" not in text


def test_each_thing_to_rotate_may_be_written_to_once_and_nothing_else_changes() -> None:
    text = broker_policy(PATHS, ["b/rotate-root/x", "a/rotate-role/y", "b/rotate-root/x"])

    before, added = text[: len(broker_policy(PATHS))], text[len(broker_policy(PATHS)) :]
    assert before == broker_policy(PATHS)
    lines = [line for line in added.splitlines() if line and not line.startswith("#")]
    assert lines == [
        line
        for path in ("a/rotate-role/y", "b/rotate-root/x")
        for line in (f'path "{path}" {{', '  capabilities = ["update"]', "}")
    ]
