"""Fixtures: the slower engines, once a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.dev.engines import OpenBao, Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with OpenBao(tmp_path_factory.mktemp("bao")) as engine:
        yield engine


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("pg"), durable=False) as engine:
        yield engine
