"""The contract suite: what every backend does, as tests for a package that brings one.

Write a ``Target``, and a class of tests that inherits all of them, with a fixture ``target``::

    class TestKeys(BackendContract):
        @pytest.fixture
        def target(self) -> Target: ...

It needs pytest and pytest-asyncio, and neither Redis nor Vault. ``docs/backends/writing.md`` shows
the whole of it.
"""

import pytest

pytest.register_assert_rewrite("broker.testing.case", "broker.testing.contract")

from broker.testing.contract import BackendContract  # noqa: E402  what it asserts is rewritten
from broker.testing.ledger import Ledger, MemoryLedger  # noqa: E402
from broker.testing.target import Session, Target  # noqa: E402

__all__ = ["BackendContract", "Ledger", "MemoryLedger", "Session", "Target"]
